"""Natural language: which news group is an article of, is a text message spam?

Examples:
  python examples/classify_text.py --data newsgroups --plot newsgroups.png
  python examples/classify_text.py --data sms --json rows.json

Linear classifiers of tf-idf weights: some words drop out while they learn, embedding
bags sum the others. Features are words, pairs of words, and runs of characters, but not
those of a single text. Beside them: naive Bayes, and the nearest centroid. Settings
were chosen on the last part of each class of the training texts, as --validate does.
"""

import baselines
import jax
import numpy as np
import optax
import parts
import results
import text_baselines
import texts

import fsparse
from fsparse import data, nn

NUM_FEATURES, WIDTH, BATCH = 2**20, 64, 128
NAMES = {"newsgroups": "20newsgroups", "sms": "sms-spam"}
WORDS = {"ngrams": "word", "min_n": 1, "max_n": 2}
CHARACTERS = {"ngrams": "char", "min_n": 3, "max_n": 5}


def load(args, name, ngrams):
    """The parts, or with ``--validate`` parts of the training texts."""
    splits = data.load(name, num_features=NUM_FEATURES, **ngrams)
    order = texts.in_time(splits.train.labels.ids)
    return data.Splits(*parts.choose(args, *splits[:2], order), name)


def train(examples, args, seed):
    """A model, from small embeddings: what it has not seen will say little."""
    num_features = examples.features.num_columns
    nodes = {
        "kept": (nn.Dropout(args.dropout), "weights"),
        "bag": (nn.EmbeddingBag(num_features, WIDTH), "ids", "kept"),
    }
    body = nn.Graph(["ids", "weights"], nodes, "bag")
    model = nn.Classifier(body, nn.Softmax(WIDTH, examples.labels.num_columns))
    initial = params, _ = model.init(jax.random.key(seed))
    bag = params["body"]["bag"]
    bag["table"] = fsparse.Table(0.1 * bag["table"].value)
    steps = args.epochs * data.num_batches(examples.labels.num_rows, BATCH)
    rate = optax.cosine_decay_schedule(args.rate, steps)
    options = {"epochs": args.epochs, "batch_size": BATCH, "learning_rate": rate}
    return fsparse.fit(model, examples, initial=initial, seed=seed, **options)


def predict(examples, new, args):
    """The labels with the largest sums of the models' logits, ``i64[m, 1]``."""
    total = np.zeros((new.labels.num_rows, new.labels.num_columns))
    for seed in range(args.models):
        fitted = train(examples, args, seed)
        scores, ids = fsparse.predict(*fitted[:3], new, k=total.shape[1])
        total += np.take_along_axis(scores, np.argsort(ids, axis=1), axis=1)
    return total.argmax(axis=1)[:, None]


def main(argv=None):
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--data", choices=NAMES, default="newsgroups")
    parser.add_argument("--dropout", type=float, default=0.3, help="share of words")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1.2e-2, help="learning rate")
    parser.add_argument("--models", type=int, default=3, help="whose logits are added")
    parser.add_argument("--validate", action="store_true", help="see above")
    args = parser.parse_args(argv)
    learnt, test, name = splits = load(args, NAMES[args.data], WORDS)
    words = texts.weigh(splits, 512)
    characters = texts.weigh(load(args, name, CHARACTERS), 768)
    both = [*map(data.join_columns, zip(words, characters, strict=True))]
    examples, new = learnt._replace(features=both[0]), test._replace(features=both[1])
    bayes = text_baselines.naive_bayes(learnt)
    near = baselines.centroids(words[0], learnt.labels)
    best, judge = baselines.best, text_baselines.judge
    found = {
        "naive Bayes": best(test.features, bayes.weights, 1, prior=bayes.prior),
        "nearest centroid": best(words[1], near, 1),
        "fsparse": predict(examples, new, args),
    }
    rows = [{"model": m, **judge(i[:, 0], test.labels.ids)} for m, i in found.items()]
    results.report(args, name, rows, ["accuracy", "macro-F1"])
    return rows


if __name__ == "__main__":
    main()
