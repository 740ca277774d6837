"""Batches with the shapes of data sets that are not to be had here.

Features and labels follow Zipf's law: the r-th most frequent of them has a share that
falls as ``r**-exponent``. Which id is how frequent is random, so that rows read
together do not lie together. All systems get the same batches.
"""

from typing import NamedTuple

import numpy as np

FEATURE_EXPONENT = 1.0  # as words
LABEL_EXPONENT = 0.75  # flatter: most products have few buyers
NUM_BATCHES = 16  # made before the clock starts, then used in turn


class Batch(NamedTuple):
    """Examples of as many features and labels each."""

    features: np.ndarray  # i32[b, nonzeros]
    labels: np.ndarray  # i32[b, labels_per_example]


def zipf(
    rng: np.random.Generator, n: int, exponent: float, shape: tuple[int, ...]
) -> np.ndarray:
    """``i32[shape]`` ids in ``[0, n)``."""
    ends = np.cumsum(np.arange(1, n + 1) ** -exponent)
    ranks = np.searchsorted(ends, rng.random(shape) * ends[-1])
    return rng.permutation(n).astype(np.int32)[np.minimum(ranks, n - 1)]


def batches(
    features: int,
    nonzeros: int,
    labels: int,
    labels_per_example: int,
    batch: int,
    count: int = NUM_BATCHES,
) -> list[Batch]:
    """The same ones whenever they are asked for."""
    rng = np.random.default_rng(0)
    ids = zipf(rng, features, FEATURE_EXPONENT, (count, batch, nonzeros))
    targets = zipf(rng, labels, LABEL_EXPONENT, (count, batch, labels_per_example))
    return [Batch(*each) for each in zip(ids, targets, strict=True)]


def distinct(ids: np.ndarray) -> int:
    """How many rows a pass over ids must read."""
    return len(np.unique(ids))


def bag_ids(rows: int, batch: int, nonzeros: int, ids: str, **_: object) -> np.ndarray:
    """``i32[2, batch, nonzeros]``, where ``ids`` is Zipf or uniform."""
    exponent = FEATURE_EXPONENT if ids == "Zipf" else 0.0
    return zipf(np.random.default_rng(0), rows, exponent, (2, batch, nonzeros))
