"""Product recommendation: half of a shopping basket tells the rest of it.

Example:
  python examples/recommend_baskets.py --json rows.json --plot recommend_baskets.png

68,509 products. Each epoch halves training baskets anew, at random, recent ones more
often. The last tenth of the training baskets (`--validate`) chose RECENT, SHARE and the
ridge regression's settings; seen many times, it flatters them: there the two together
have P@1 .148 and hit@10 .435, the ridge regression alone .145 and .424. A random tenth
of the training baskets chose the network's settings.
"""

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import Any

import baselines
import jax
import jax.numpy as jnp
import numpy as np
import optax
import parts
import results

import fsparse
from fsparse import Fitted, data, nn
from fsparse.data import Batch, Dataset, SparseRows

METRICS = ["p@1", "hit@10"]
RECENT = 70_000  # baskets, some 30 weeks: one that far back counts 1 / e
SHARE = 0.15  # of the network's chances, beside the ridge regression's
ROOM = {"feature_capacity": 40, "label_capacity": 16}  # of the largest, a random part


def main(argv: list[str] | None = None) -> list[results.Row]:
    """Runs the command line; returns the rows of the table."""
    parser = results.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--validate", action="store_true", help="see above")
    args = parser.parse_args(argv)
    train, test = parts.choose(args, *data.load("baskets")[:2])
    test = parts.take(test, np.flatnonzero(test.features.lengths > 1))
    baskets, (features, labels) = parts.whole(train), test
    rank = partial(baselines.best, features, k=10, exclude_inputs=True)
    weights = np.exp(np.arange(1 - baskets.num_rows, 1) / RECENT)
    ridge = baselines.ridge(baskets, 6000, penalty=50.0, weights=weights, dropout=0.33)
    fitted = fit(args, baskets, weights)
    scored = fsparse.predict(*fitted[:3], test, 100)
    chances = baselines.chances(*scored, labels.num_columns)
    ranks = {
        "popularity": partial(rank, None, prior=data.column_counts(baskets)),
        "item-item cosine": partial(rank, baselines.cosine(baskets)),
        "item-item ridge": partial(rank, ridge),
        "fsparse": partial(rank, None, prior=chances),
        "fsparse + ridge": partial(rank, ridge, prior=SHARE * chances),
    }
    table = [baselines.row(*rule, labels, METRICS) for rule in ranks.items()]
    for row in table[-2:]:
        row["seconds"] += fitted.history[-1]["seconds"]
    results.report(args, "baskets: half to the rest", table, METRICS)
    return table


class Recommender(nn.Classifier):
    """Features and labels are the same products: it predicts new ones."""

    def predict(self, params: Any, state: Any, batch: Batch, k: int) -> Any:
        """The best that are not in the basket yet."""
        inputs = batch.feature_ids
        scores, ids = super().predict(params, state, batch, k + inputs.shape[1])
        is_input = jnp.any(ids[:, :, None] == inputs[:, None, :], axis=2)
        scores, at = jax.lax.top_k(jnp.where(is_input, -jnp.inf, scores), k)
        return scores, jnp.take_along_axis(ids, at, axis=1)


def fit(args: Namespace, baskets: SparseRows, weights: Any) -> Fitted:
    """Sums of embeddings, as long for a small basket as for a large one."""
    n, width = baskets.num_columns, 511
    layers = [nn.EmbeddingBag(n, width), nn.UnitNorm(8.0), nn.Dropout(0.5)]
    model = Recommender(nn.Sequential(layers), nn.SparseLinear(width, n))
    params, state = model.init(jax.random.key(0))
    state = model.with_label_counts(state, data.column_counts(baskets))

    def epoch(number: int) -> Iterator[Batch]:
        rng = np.random.default_rng(number)
        chosen = np.flatnonzero(rng.random(len(weights)) < weights)
        halves = data.halve(data.take(baskets, rng.permutation(chosen)), rng)
        sides = zip(halves, ROOM.values(), strict=True)
        clipped = Dataset(*(data.clip(rows, room)[0] for rows, room in sides))
        return data.batches(clipped, range(len(chosen)), 256, **ROOM)

    steps = args.epochs * data.num_batches(round(weights.sum()), 256)
    rate, start = optax.linear_schedule(3e-3, 0, steps), (params, state)
    return fsparse.fit(model, epoch, steps=steps, learning_rate=rate, initial=start)


if __name__ == "__main__":
    main()
