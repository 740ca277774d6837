"""Search: a word or a gloss finds the broader concept, among 12,824 of WordNet.

Examples:
  python examples/search_glosses.py --query "red fox" --query "| a bird that sings"
  python examples/search_glosses.py --json rows.json --plot search_glosses.png

Texts and queries are `word; word | gloss`. Each concept is an example of itself, too.
`--validate` judges on a tenth of the training texts: it chose SHARE; 3,000, the rest.
"""

from argparse import Namespace
from collections.abc import Iterator

import baselines
import gloss_features
import jax
import jax.numpy as jnp
import numpy as np
import optax
import parts
import results
from scipy.sparse import csr_matrix

import fsparse
from fsparse import Fitted, Table, data, nn, rows
from fsparse.data import Batch, Dataset

METRICS = ["p@1", "hit@5"]
SHARE = 0.3  # of the network's chances, beside the cosines of the centroids


def main(argv: list[str] | None = None) -> list[results.Row]:
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--query", action="append", help="what to search; repeatable")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--validate", action="store_true", help="see above")
    args = parser.parse_args(argv)
    train, test, names = data.wordnet_texts()
    train, test = parts.choose(args, train, test, seed=0)
    words = (Dataset(data.hash_words(t.texts), t.labels) for t in (train, test))
    splits = data.tfidf(data.Splits(*words, "words"))
    own = data.from_lists([[i] for i in range(len(names))], len(names))
    texts = train.texts + [gloss_features.as_kind(name) for name in names]
    weights = gloss_features.weigh(gloss_features.count(texts))
    labels = data.concatenate([train.labels, own])
    train = Dataset(gloss_features.encode(texts, weights), labels)
    judged = Dataset(gloss_features.encode(test.texts, weights), test.labels)
    table = [
        baselines.nearest("centroids of words", *splits[:2], METRICS),
        baselines.nearest("centroids of our features", train, judged, METRICS),
    ]
    centroids = baselines.centroids(*train)
    fitted = fit(args, train, centroids)
    scores, ids = fsparse.predict(*fitted[:3], judged, 100)
    both = baselines.rerank(judged.features, centroids, scores, ids, SHARE)
    for name, best in (("fsparse", ids), ("fsparse + centroids", both)):
        row = {"model": name, **baselines.judge(best[:, :5], test.labels, METRICS)}
        table.append({**row, "seconds": fitted.history[-1]["seconds"]})
    results.report(args, "WordNet: text to hypernym", table, METRICS)
    for query in args.query or test.texts[:2]:
        features = gloss_features.encode([query], weights)
        one = Dataset(features, data.take(own, [0]))  # whose label does not matter
        scored = fsparse.predict(*fitted[:3], one, 100)
        best = baselines.rerank(features, centroids, *scored, SHARE)[0, :5]
        shown = [names[i][:78] for i in best] if any(features.values) else ["(none)"]
        print("\n  ".join([query, *shown]))
    return table


def fit(args: Namespace, train: Dataset, centroids: csr_matrix) -> Fitted:
    """Starts at the centroids; half of a text's features are dropped, at random."""
    n, k = train.labels.num_columns, int(train.features.lengths.max()) // 2
    sizes = train.features.num_columns, n
    model = nn.extreme_classifier(*sizes, width=256, num_negatives=2048)
    params, state = model.init(jax.random.key(0))
    state = model.with_label_counts(state, data.column_counts(train.labels))
    table = centroids.T @ np.asarray(params["body"][0]["table"].value)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    table = jnp.asarray(np.pad(table, ((0, 0), (0, 1))), jnp.float32)
    start = {**params, "head": {"table": Table(table)}}, state

    def epoch(number: int) -> Iterator[Batch]:
        rng = np.random.default_rng(number)
        half = Dataset(data.halve(train.features, rng).features, train.labels)
        order = rng.permutation(train.labels.num_rows)
        return data.batches(half, order, 512, feature_capacity=k, label_capacity=8)

    steps = args.epochs * data.num_batches(train.labels.num_rows, 512)
    rates = {"embeddings": 1.25e-2, "output": 1e-3}
    adams = {k: rows.adam(optax.linear_schedule(r, 0, steps)) for k, r in rates.items()}
    labels = {"body": ("embeddings", *["hidden"] * 3), "head": "output"}
    optimizer = fsparse.multi_transform({**adams, "hidden": optax.adam(1e-4)}, labels)
    options = {"steps": steps, "batch_size": 512, "optimizer": optimizer}
    return fsparse.fit(model, epoch, initial=start, **options)


if __name__ == "__main__":
    main()
