"""Natural language: which news group is an article of, is a text message spam?

Examples:
  python examples/classify_text.py --data newsgroups --plot newsgroups.png
  python examples/classify_text.py --data sms --json rows.json

A linear classifier of tf-idf weights: some words drop out while it learns, an embedding
bag sums the others, and a softmax ends it. Words are single ones and pairs, or n-grams
of characters; those that only one text has are left out. Beside it: naive Bayes, and
the nearest centroid of a class. Settings were chosen on the last part of each class of
the training texts, as --validate does.
"""

import baselines
import jax
import numpy as np
import optax
import parts
import results
import text_baselines

import fsparse
from fsparse import data, nn

NUM_FEATURES, WIDTH, BATCH, ROOM = 2**20, 64, 128, 512
LOADERS = {
    "newsgroups": ("20newsgroups", {"max_n": 2}),
    "sms": ("sms-spam", {"min_n": 2, "max_n": 5}),
}


def weigh(splits):
    """Logarithms of counts, tf-idf, at most ``ROOM`` features a text, length 1."""
    is_repeated = data.column_counts(splits.train.features) > 1

    def counted(part):
        rows = data.scale_columns(part.features, is_repeated)
        return part._replace(features=rows._replace(values=np.log1p(rows.values)))

    def shortened(part):
        rows, _ = data.clip(part.features, ROOM)
        return part._replace(features=data.normalize(rows))

    train, test, name = splits
    train, test, _ = data.tfidf(data.Splits(counted(train), counted(test), name))
    return data.Splits(shortened(train), shortened(test), name)


def train(examples, dropout, epochs, rate):
    """The model, from small embeddings: what it has not seen will say little."""
    num_labels = examples.labels.num_columns
    nodes = {
        "kept": (nn.Dropout(dropout), "weights"),
        "bag": (nn.EmbeddingBag(NUM_FEATURES, WIDTH), "ids", "kept"),
    }
    body = nn.Graph(["ids", "weights"], nodes, "bag")
    model = nn.Classifier(body, nn.Softmax(WIDTH, num_labels))
    params, state = model.init(jax.random.key(0))
    bag = params["body"]["bag"]
    bag["table"] = fsparse.Table(0.1 * bag["table"].value)
    steps = epochs * data.num_batches(examples.labels.num_rows, BATCH)
    schedule = optax.cosine_decay_schedule(rate, steps)
    options = {"epochs": epochs, "batch_size": BATCH, "learning_rate": schedule}
    return fsparse.fit(model, examples, initial=(params, state), **options)


def main(argv=None):
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--data", choices=LOADERS, default="newsgroups")
    parser.add_argument("--dropout", type=float, default=0.3, help="share of words")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1.2e-2, help="learning rate")
    parser.add_argument("--validate", action="store_true", help="see above")
    args = parser.parse_args(argv)
    name, options = LOADERS[args.data]
    splits = data.load(name, num_features=NUM_FEATURES, **options)
    order = text_baselines.in_time(splits.train.labels.ids)
    splits = data.Splits(*parts.choose(args, *splits[:2], order), name)
    weighted = weigh(splits)
    bayes = text_baselines.naive_bayes(splits.train)
    near = baselines.centroids(*weighted.train)
    fitted = train(weighted.train, args.dropout, args.epochs, args.rate)
    texts, labels = weighted.test.features, splits.test.labels.ids
    best = baselines.best
    found = {
        "naive Bayes": best(splits.test.features, bayes.weights, 1, prior=bayes.prior),
        "nearest centroid": best(texts, near, 1),
        "fsparse": fsparse.predict(*fitted[:3], weighted.test, k=1)[1],
    }
    judge = text_baselines.judge
    rows = [{"model": m, **judge(ids[:, 0], labels)} for m, ids in found.items()]
    results.report(args, name, rows, ["accuracy", "macro-F1"])
    return rows


if __name__ == "__main__":
    main()
