"""Natural language: which news group is an article of, is a text message spam?

Examples:
  python examples/classify_text.py --data newsgroups --plot newsgroups.png
  python examples/classify_text.py --data sms --json rows.json

A linear classifier of tf-idf weights in three layers: words drop out while it learns,
the rest is an embedding bag, and a softmax ends it. Features are pairs of words, or
n-grams of characters; those that a single training example has are left out. Beside
it: naive Bayes, and the nearest centroid of a class.
"""

import baselines
import jax
import numpy as np
import optax
import results
import text_baselines

import fsparse
from fsparse import data, nn

NUM_FEATURES, WIDTH, BATCH, ROOM = 2**20, 32, 64, 512
LOADERS = {
    "newsgroups": ("20newsgroups", {"max_n": 2}),
    "sms": ("sms-spam", {"min_n": 2, "max_n": 5}),
}


def weigh(splits):
    """Logarithms of counts, tf-idf, at most ``ROOM`` features a text, length 1."""
    counts = data.column_counts(splits.train.features)

    def repeated(part):
        rows = data.scale_columns(part.features, counts > 1)
        return part._replace(features=rows._replace(values=np.log1p(rows.values)))

    def shortened(part):
        rows, _ = data.clip(part.features, ROOM)
        return part._replace(features=data.normalize(rows))

    train, test = map(repeated, splits[:2])
    splits = data.tfidf(splits._replace(train=train, test=test))
    return splits._replace(train=shortened(splits.train), test=shortened(splits.test))


def classifier(num_labels, dropout):
    """Words that drop out, an embedding bag, and the labels."""
    nodes = {
        "kept": (nn.Dropout(dropout), "weights"),
        "bag": (nn.EmbeddingBag(NUM_FEATURES, WIDTH), "ids", "kept"),
    }
    body = nn.Graph(["ids", "weights"], nodes, "bag")
    return nn.Classifier(body, nn.Softmax(WIDTH, num_labels))


def train(examples, epochs, rate, dropout, seed=0, **options):
    """The classifier, from small embeddings: what it never sees says nothing later."""
    model = classifier(examples.labels.num_columns, dropout)
    params, state = model.init(jax.random.key(seed))
    bag = params["body"]["bag"]
    bag["table"] = fsparse.Table(0.1 * bag["table"].value)
    steps = epochs * data.num_batches(examples.labels.num_rows, BATCH)
    schedule = optax.cosine_decay_schedule(rate, steps)
    options |= {"epochs": epochs, "batch_size": BATCH, "learning_rate": schedule}
    initial = params, state
    return fsparse.fit(model, examples, initial=initial, seed=seed, **options)


def rules(splits, weighted):
    """Labels of the test set by simple rules."""
    bayes = text_baselines.naive_bayes(splits.train)
    near = baselines.centroids(*weighted.train)
    return {
        "naive Bayes": baselines.best(
            splits.test.features, bayes.weights, 1, prior=bayes.prior
        ),
        "nearest centroid": baselines.best(weighted.test.features, near, 1),
    }


def main(argv=None):
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--data", choices=LOADERS, default="newsgroups")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.5, help="share of words")
    args = parser.parse_args(argv)
    name, options = LOADERS[args.data]
    splits = data.load(name, num_features=NUM_FEATURES, **options)
    splits = text_baselines.some(splits, 1000) if args.quick else splits
    weighted = weigh(splits)
    fitted = train(weighted.train, args.epochs, args.rate, args.dropout)
    found = rules(splits, weighted)
    found["fsparse"] = fsparse.predict(*fitted[:3], weighted.test, k=1)[1]
    labels = splits.test.labels.ids
    rows = [
        {"model": rule, **text_baselines.judge(ids[:, 0], labels)}
        for rule, ids in found.items()
    ]
    results.report(args, name, rows, ["accuracy", "macro-F1"])
    return rows


if __name__ == "__main__":
    main()
