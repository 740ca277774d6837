"""Features of ``m`` rows, made column by column and added up."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsparse.data.rows import F32, SparseRows


def ragged(lengths: ArrayLike, ids: NDArray[np.int32], num_features: int) -> SparseRows:
    """Rows of the weight 1."""
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return SparseRows(indptr, ids, np.ones(len(ids), np.float32), num_features)


def masked(
    ids: NDArray[np.int32], values: F32, is_there: NDArray[np.bool_], num_features: int
) -> SparseRows:
    """Rows of the entries of ``[m, k]`` arrays that are there."""
    rows = ragged(is_there.sum(axis=1), ids[is_there], num_features)
    return rows._replace(values=values[is_there])


def marked(is_marked: NDArray[np.bool_], id: int, num_features: int) -> SparseRows:
    """The feature ``id`` in the rows that are marked."""
    count = int(np.count_nonzero(is_marked))
    return ragged(is_marked, np.full(count, id, np.int32), num_features)


def add_rows(
    parts: Sequence[SparseRows], num_rows: int, num_features: int
) -> SparseRows:
    """The sums of the parts' rows, with rising ids."""
    row = [np.repeat(np.arange(num_rows), part.lengths) for part in parts]
    keys = [r * num_features + part.ids for r, part in zip(row, parts, strict=True)]
    key = np.concatenate([np.zeros(0, np.int64), *keys])
    values = np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)])
    order = np.argsort(key, kind="stable")
    key, values = key[order], values[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
    sums = np.add.reduceat(values, first) if len(first) else values
    lengths = np.bincount(key[first] // num_features, minlength=num_rows)
    merged = ragged(lengths, (key[first] % num_features).astype(np.int32), num_features)
    return merged._replace(values=sums)
