"""Features of ``m`` rows, made column by column and added up."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsparse.data.rows import F32, I64, SparseRows


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


def beside(parts: Sequence[SparseRows], num_rows: int, num_columns: int) -> SparseRows:
    """Rows of the entries of the parts' rows, those of the first part first."""
    lengths = [np.zeros(num_rows, np.int64), *(part.lengths for part in parts)]
    begins = np.cumsum(lengths, axis=0)
    indptr = np.concatenate([[0], np.cumsum(begins[-1])])
    ids, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    for part, begin in zip(parts, begins, strict=False):
        shift = np.repeat(indptr[:-1] + begin - part.indptr[:-1], part.lengths)
        at = shift + np.arange(len(part.ids))
        ids[at], values[at] = part.ids, part.values
    return SparseRows(indptr, ids, values, num_columns)


def add_rows(
    parts: Sequence[SparseRows], num_rows: int, num_features: int
) -> SparseRows:
    """The sums of the parts' rows, with rising ids.

    A part of more columns, by a power of two, is folded: as if it had been hashed to
    ``num_features``.
    """
    keys = [_keys(part, num_rows, num_features) for part in parts]
    key = np.concatenate([np.zeros(0, np.int64), *keys])
    values = np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)])
    key, order = _sorted(key, num_rows * num_features)
    values = values[order]
    is_first = np.concatenate([[True], key[1:] != key[:-1]])[: len(key)]
    if not is_first.all():
        first = np.flatnonzero(is_first)
        key, values = key[first], np.add.reduceat(values, first)
    row = key // num_features
    lengths = np.bincount(row, minlength=num_rows)
    ids = (key - row * num_features).astype(np.int32)
    return ragged(lengths, ids, num_features)._replace(values=values)


def _keys(part: SparseRows, num_rows: int, num_features: int) -> I64:
    fold = (part.num_columns // num_features).bit_length() - 1
    row = np.repeat(np.arange(num_rows) * num_features, part.lengths)
    return row + (part.ids >> fold)


def _sorted(key: I64, bound: int) -> tuple[I64, I64]:
    """Keys below ``bound``, rising, and the stable order that sorts them.

    Keys and places in one number each, where that has room, sort much faster.
    """
    bits = len(key).bit_length()
    if bound << bits >= 2**63:
        order = np.argsort(key, kind="stable")
        return key[order], order
    packed = np.sort((key << bits) | np.arange(len(key)))
    return packed >> bits, packed & ((1 << bits) - 1)
