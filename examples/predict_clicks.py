"""Personalisation: will a promoted product be sold in this store, this week?

Example:
  python examples/predict_clicks.py --json rows.json --plot clicks.png

One in nine promotions of weeks 1 to 45 is trained on, and weeks 46 to 53 are predicted.
What helps is history: what was sold of the product, its kind and all else in the weeks
before. Each count, in bins, is a feature like product and store. The network is wide
and deep: one embedding bag goes straight to the logits, one through hidden layers.
Beside it: the same odds for all; logistic regression, without history and with it.
"""

import jax
import numpy as np
import optax
import results
from click_baselines import judge, logistic_regression

import fsparse
from fsparse import data, nn
from fsparse.data.dense_datasets import CTR_FIELDS
from fsparse.data.sales import HISTORY_FIELDS

NUM_FEATURES, WIDE, BATCH = 2**18, 4, 1024
FIELDS = [*CTR_FIELDS, *HISTORY_FIELDS]
RULES = {
    "the same odds": [],
    "weeks since sold": ["sold_here_since"],
    "logistic regression": [*CTR_FIELDS],
    "the same, history": FIELDS,
}


def network(width):
    """Wide and deep."""
    nodes = {
        "wide": (nn.EmbeddingBag(NUM_FEATURES, WIDE), "ids", "weights"),
        "bag": (nn.EmbeddingBag(NUM_FEATURES, width), "ids", "weights"),
        "norm": (nn.LayerNorm(width), "bag"),
        "first": (nn.Linear(width, width, init_scale=2**0.5), "norm"),
        "relu": (nn.Activation("relu"), "first"),
        "second": (nn.Linear(width, width, init_scale=2**0.5), "relu"),
        "deep": (nn.Activation("relu"), "second"),
        "both": (nn.Concatenate(), "wide", "deep"),
    }
    body = nn.Graph(["ids", "weights"], nodes, "both")
    return nn.Classifier(body, nn.Softmax(WIDE + width, 2))


def examples(part):
    """The ids of the fields as a bag, and the label."""
    ids, starts = part.features, np.arange(len(part.labels) + 1)
    ones = np.ones(ids.size, np.float32)
    bags = data.SparseRows(starts * ids.shape[1], ids.ravel(), ones, NUM_FEATURES)
    labels = data.SparseRows(starts, part.labels, ones[: len(ids)], 2)
    return data.Dataset(bags, labels)


def train(part, width, epochs, rate):
    """The network, from small embeddings: what is rare says little."""
    model = network(width)
    params, state = model.init(jax.random.key(0))
    for bag in (params["body"]["wide"], params["body"]["bag"]):
        bag["table"] = fsparse.Table(0.1 * bag["table"].value)
    steps = epochs * data.num_batches(len(part.labels), BATCH)
    schedule = optax.cosine_decay_schedule(rate, steps)
    options = {"epochs": epochs, "batch_size": BATCH, "learning_rate": schedule}
    return fsparse.fit(model, examples(part), initial=(params, state), **options)


def rules(train, test):
    """Rows of the table, of logistic regression on some fields."""
    for model, names in RULES.items():
        at = [FIELDS.index(name) for name in names]
        few = train._replace(features=train.features[:, at])
        scores = logistic_regression(few, test.features[:, at], NUM_FEATURES)
        yield {"model": model, **judge(scores, test.labels)}


def main(argv=None):
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    args = parser.parse_args(argv)
    sizes = {"every": 999, "test_every": 99} if args.quick else {"every": 9}
    splits = data.load_dense("ctr", history=True, num_features=NUM_FEATURES, **sizes)
    fitted = train(splits.train, args.width, args.epochs, args.rate)
    test, metrics = examples(splits.test), ["auc", "log_loss"]
    own = fsparse.evaluate(*fitted[:3], test, metrics, batch_size=8192)
    rows = [*rules(*splits[:2]), {"model": "fsparse", **own}]
    results.report(args, "promotions", rows, metrics)
    return rows


if __name__ == "__main__":
    main()
