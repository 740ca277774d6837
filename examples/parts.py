"""Parts of data sets: to choose settings by, and small ones to try a program."""

from argparse import Namespace
from typing import TypeVar

import baselines
import numpy as np

from fsparse import data
from fsparse.data import Dataset, SparseRows, Texts

Examples = TypeVar("Examples", Dataset, Texts)
_QUICK = 5000


def choose(
    args: Namespace, train: Examples, test: Examples, seed: int | None = None
) -> tuple[Examples, Examples]:
    """What ``--validate`` and ``--quick`` train on and judge by; else all, as it is.

    They judge by the last tenth of the training examples, or of some thousands of them,
    in the order of a seed or as they are: the test set chooses no settings.
    """
    if not (args.validate or args.quick):
        return train, test
    order = np.arange(train.labels.num_rows)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    order = order[: _QUICK if args.quick else None]
    end = len(order) - len(order) // 10
    return take(train, order[:end]), take(train, order[end:])


def take(examples: Examples, index: np.ndarray) -> Examples:
    """The examples at the index, in that order."""
    return type(examples)(
        *(
            data.take(column, index)
            if isinstance(column, SparseRows)
            else [column[i] for i in index]
            for column in examples
        )
    )


def whole(dataset: Dataset) -> SparseRows:
    """Features and labels as one set; sets of a single item are left out."""
    both = baselines.matrix(dataset.features) + baselines.matrix(dataset.labels)
    indptr = both.indptr.astype(np.int64)
    rows = SparseRows(indptr, both.indices, both.data, both.shape[1])
    return data.take(rows, np.flatnonzero(rows.lengths > 1))
