"""Search: a word or a gloss finds the broader concept, among 12,824 of WordNet.

Examples:
  python examples/search_glosses.py --query "gondola" --query "| a bird that cannot fly"
  python examples/search_glosses.py --json rows.json --plot search_glosses.png

Texts and queries are `word; word | gloss`; either side may be empty. Settings were
chosen by `--validate`, which judges on a tenth of the training texts.
"""

import re
from argparse import Namespace
from collections.abc import Sequence

import baselines
import jax
import jax.numpy as jnp
import numpy as np
import optax
import parts
import results

import fsparse
from fsparse import Fitted, Table, data, nn
from fsparse.data import Dataset, SparseRows

METRICS = ["p@1", "hit@5"]


def main(argv: list[str] | None = None) -> list[results.Row]:
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--query", action="append", help="what to search; repeatable")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--validate", action="store_true", help="see above")
    args = parser.parse_args(argv)
    train, test, names = data.wordnet_texts()
    order = np.random.default_rng(0).permutation(len(train.texts))
    train, test = parts.choose(args, train, test, order)
    counts = encode(train.texts)
    weights = data.inverse_document_frequency(counts) * (data.column_counts(counts) > 1)
    examples, judged = (
        Dataset(encode(part.texts, weights), part.labels) for part in (train, test)
    )
    words = (Dataset(data.hash_words(t.texts), t.labels) for t in (train, test))
    splits = data.tfidf(data.Splits(*words, "words"))
    table = [
        baselines.nearest("centroids of words", *splits[:2], METRICS),
        baselines.nearest("centroids of our features", examples, judged, METRICS),
    ]
    fitted = fit(args, examples)
    figures = fsparse.evaluate(*fitted[:3], judged, METRICS)
    seconds = fitted.history[-1]["seconds"]
    table.append({"model": "fsparse", **figures, "seconds": seconds})
    results.report(args, "WordNet: text to hypernym", table, METRICS)
    for query in args.query or test.texts[:2]:
        features = encode([query], weights)
        one = Dataset(features, data.from_lists([[]], len(names)))
        scores, ids = fsparse.predict(*fitted[:3], one, 5, label_capacity=1)
        print(f"\n{query}")
        for score, label in zip(scores[0], ids[0], strict=True):
            print(f"  {score:6.2f}  {names[label][:78]}")
    return table


def encode(texts: Sequence[str], weights: np.ndarray | None = None) -> SparseRows:
    """Words; the first ones of the gloss, which say the kind; ends of compounds."""
    sides = [f"{text.lower()}|".split("|")[:2] for text in texts]
    firsts = [" ".join(re.findall(r"\w+", gloss)[:4]) for _, gloss in sides]
    ends = [" ".join(re.findall(r"\w[ -](\w+) *(?:;|$)", names)) for names, _ in sides]
    more = [data.hash_words(part, num_features=2**16) for part in (firsts, ends)]
    counts = data.join_columns([data.hash_words(texts), *more])
    if weights is None:
        return counts
    return data.normalize(data.scale_columns(counts, weights))


def fit(args: Namespace, train: Dataset) -> Fitted:
    """Starts at the means of the labels' examples, in the space of the embeddings."""
    n, width = train.labels.num_columns, 256
    model = nn.extreme_classifier(
        train.features.num_columns, n, width=width, num_negatives=2048
    )
    params, state = model.init(jax.random.key(0))
    state = model.with_label_counts(state, data.column_counts(train.labels))
    table = baselines.centroids(*train).T @ np.asarray(params["body"][0]["table"].value)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    table = jnp.asarray(np.pad(table, ((0, 0), (0, 1))), jnp.float32)
    start = {**params, "head": {"table": Table(table)}}, state
    steps = args.epochs * data.num_batches(train.labels.num_rows, 512)
    rate = optax.linear_schedule(2e-3, 0, steps)
    options = {"steps": steps, "learning_rate": rate, "initial": start}
    return fsparse.fit(model, train, batch_size=512, **options)


if __name__ == "__main__":
    main()
