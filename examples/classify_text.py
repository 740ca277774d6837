"""Natural language: which news group is an article of, is a text message spam?

Examples:
  python examples/classify_text.py --data newsgroups --plot newsgroups.png
  python examples/classify_text.py --data sms --json rows.json

A linear classifier of tf-idf weights: some words drop out while it learns, an embedding
bag sums the others, and a softmax ends it. Features are words, pairs of words, and runs
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

NUM_FEATURES, WIDTH, BATCH = 2**20, 64, 128
NAMES = {"newsgroups": "20newsgroups", "sms": "sms-spam"}
WORDS = {"ngrams": "word", "min_n": 1, "max_n": 2}
CHARACTERS = {"ngrams": "char", "min_n": 3, "max_n": 5}


def load(args, name, ngrams):
    """The parts, or with ``--validate`` parts of the training texts."""
    splits = data.load(name, num_features=NUM_FEATURES, **ngrams)
    order = text_baselines.in_time(splits.train.labels.ids)
    return data.Splits(*parts.choose(args, *splits[:2], order), name)


def weigh(splits, room):
    """Logarithms of counts, tf-idf, at most ``room`` features a text, length 1."""
    is_repeated = data.column_counts(splits.train.features) > 1

    def counted(part):
        rows = data.scale_columns(part.features, is_repeated)
        return part._replace(features=rows._replace(values=np.log1p(rows.values)))

    train, test, name = splits
    weighted = data.tfidf(data.Splits(counted(train), counted(test), name))
    return [data.normalize(data.clip(p.features, room)[0]) for p in weighted[:2]]


def train(examples, dropout, epochs, rate):
    """The model, from small embeddings: what it has not seen will say little."""
    num_features = examples.features.num_columns
    nodes = {
        "kept": (nn.Dropout(dropout), "weights"),
        "bag": (nn.EmbeddingBag(num_features, WIDTH), "ids", "kept"),
    }
    body = nn.Graph(["ids", "weights"], nodes, "bag")
    model = nn.Classifier(body, nn.Softmax(WIDTH, examples.labels.num_columns))
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
    parser.add_argument("--data", choices=NAMES, default="newsgroups")
    parser.add_argument("--dropout", type=float, default=0.3, help="share of words")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1.2e-2, help="learning rate")
    parser.add_argument("--validate", action="store_true", help="see above")
    args = parser.parse_args(argv)
    learnt, test, name = splits = load(args, NAMES[args.data], WORDS)
    words, characters = weigh(splits, 512), weigh(load(args, name, CHARACTERS), 768)
    both = [*map(data.join_columns, zip(words, characters, strict=True))]
    examples, new = learnt._replace(features=both[0]), test._replace(features=both[1])
    fitted = train(examples, args.dropout, args.epochs, args.rate)
    bayes = text_baselines.naive_bayes(learnt)
    near = baselines.centroids(words[0], learnt.labels)
    best, judge = baselines.best, text_baselines.judge
    found = {
        "naive Bayes": best(test.features, bayes.weights, 1, prior=bayes.prior),
        "nearest centroid": best(words[1], near, 1),
        "fsparse": fsparse.predict(*fitted[:3], new, k=1)[1],
    }
    rows = [{"model": m, **judge(i[:, 0], test.labels.ids)} for m, i in found.items()]
    results.report(args, name, rows, ["accuracy", "macro-F1"])
    return rows


if __name__ == "__main__":
    main()
