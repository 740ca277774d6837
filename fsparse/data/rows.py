"""Sparse rows on the host: compressed rows (CSR) of numpy arrays.

Row ``r`` holds ``ids[indptr[r]:indptr[r + 1]]`` and the ``values`` beside them. Batches
leave this room as padded arrays of static shape, where the padding id is
``num_columns``, which is out of bounds, and the padding value is 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]


class SparseRows(NamedTuple):
    """``m`` sparse rows in CSR form."""

    indptr: I64  # i64[m + 1]
    ids: I32  # i32[nnz], in [0, num_columns)
    values: F32  # f32[nnz]
    num_columns: int

    @property
    def num_rows(self) -> int:
        """``m``."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> I64:
        """``i64[m]`` entries of each row."""
        return np.diff(self.indptr)


class Dataset(NamedTuple):
    """Examples: row ``r`` of the features goes with row ``r`` of the labels."""

    features: SparseRows
    labels: SparseRows


class Splits(NamedTuple):
    """A data set to train on and one to judge by, over the same columns."""

    train: Dataset
    test: Dataset
    name: str


class Clipped(NamedTuple):
    """What :func:`clip` left out."""

    examples: int  # rows that were longer than the capacity
    entries: int  # entries they lost


def from_lists(
    ids: Sequence[Sequence[int]],
    num_columns: int,
    values: Sequence[Sequence[float]] | None = None,
) -> SparseRows:
    """Rows from nested lists.

    Args:
      ids: the column ids of each row.
      num_columns: every id is in ``[0, num_columns)``.
      values: one for each id; ones where left out.

    Raises:
      ValueError: if an id is out of range, a value is not finite, or the lengths
        differ.

    Example:
      >>> from_lists([[2, 0], []], 3).indptr
      array([0, 2, 2])
    """
    lengths = [len(row) for row in ids]
    if values is not None and [len(row) for row in values] != lengths:
        raise ValueError(
            "from_lists: values must have as many entries as ids in every row; got "
            f"{sum(lengths)} ids and {sum(map(len, values))} values."
        )
    flat = np.array([i for row in ids for i in row], np.int64)
    _require_ids("from_lists", flat, num_columns)
    weights = (
        np.ones(len(flat), np.float32)
        if values is None
        else np.array([v for row in values for v in row], np.float32)
    )
    rows = SparseRows(_indptr(lengths), flat.astype(np.int32), weights, num_columns)
    return check_rows("from_lists", rows)


def check_rows(function: str, rows: SparseRows) -> SparseRows:
    """``rows``, if they keep what :class:`SparseRows` promises.

    Raises:
      ValueError: in the name of ``function``, with the first entry that does not.
    """
    indptr, ids, values, num_columns = rows
    if (
        len(indptr) < 1
        or indptr[0] != 0
        or not len(ids) == len(values) == indptr[-1]
        or np.any(np.diff(indptr) < 0)
    ):
        raise ValueError(
            f"{function}: indptr must rise from 0 to the number of entries; got "
            f"{len(indptr)} row ends, {len(ids)} ids and {len(values)} values."
        )
    _require_ids(function, ids, num_columns)
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"{function}: values must be finite; got {values[at]} for id {ids[at]} in "
            f"row {_row_of(indptr, at)}. Replace or leave out such entries."
        )
    return rows


def take(rows: SparseRows, index: ArrayLike) -> SparseRows:
    """The rows at ``index``, ``i64[k]``, in that order; a row may be taken twice.

    Raises:
      ValueError: if an index is not in ``[0, m)``.

    Example:
      >>> take(from_lists([[5], [6, 7]], 10), [1, 0, 1]).ids
      array([6, 7, 5, 6, 7], dtype=int32)
    """
    chosen = np.asarray(index, np.int64)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= rows.num_rows):
        raise ValueError(
            f"take: index must be in [0, {rows.num_rows}), the rows there are; got "
            f"{chosen.min()} to {chosen.max()}."
        )
    entries = _entries_of(rows, chosen)
    return SparseRows(
        _indptr(_lengths_at(rows, chosen)),
        rows.ids[entries],
        rows.values[entries],
        rows.num_columns,
    )


def concatenate(parts: Sequence[SparseRows]) -> SparseRows:
    """All rows of the parts, one part after the other.

    Raises:
      ValueError: if there is no part or they differ in their number of columns.

    Example:
      >>> part = from_lists([[2], [0, 1]], 3)
      >>> concatenate([part, part]).indptr
      array([0, 1, 3, 4, 6])
    """
    columns = sorted({part.num_columns for part in parts})
    if len(columns) != 1:
        raise ValueError(
            "concatenate: parts must have one and the same num_columns; got "
            f"{len(parts)} parts with num_columns {columns}."
        )
    return SparseRows(
        _indptr(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.values for part in parts]),
        columns[0],
    )


def clip(rows: SparseRows, capacity: int) -> tuple[SparseRows, Clipped]:
    """Rows of at most ``capacity`` entries, and the count of what was left out.

    A longer row keeps its entries of largest ``|value|``, the first ones where values
    tie, in their old order.

    Raises:
      ValueError: if ``capacity`` is negative.

    Example:
      >>> rows = from_lists([[5, 6, 7]], 10, [[1.0, -3.0, 2.0]])
      >>> shorter, clipped = clip(rows, 2)
      >>> shorter.ids, clipped
      (array([6, 7], dtype=int32), Clipped(examples=1, entries=1))
    """
    if capacity < 0:
        raise ValueError(f"clip: capacity must not be negative; got {capacity}.")
    long = np.flatnonzero(rows.lengths > capacity)
    if not len(long):
        return rows, Clipped(0, 0)
    keep = np.ones(len(rows.ids), bool)
    entries = _entries_of(rows, long)
    row = np.repeat(long, rows.lengths[long])
    ranked = entries[np.lexsort((-np.abs(rows.values[entries]), row))]
    rank = np.arange(len(ranked)) - np.repeat(
        _indptr(rows.lengths[long])[:-1], rows.lengths[long]
    )
    keep[ranked[rank >= capacity]] = False
    clipped = Clipped(len(long), int(len(keep) - np.count_nonzero(keep)))
    lengths = np.minimum(rows.lengths, capacity)
    shorter = rows._replace(
        indptr=_indptr(lengths), ids=rows.ids[keep], values=rows.values[keep]
    )
    return shorter, clipped


def to_padded(rows: SparseRows, index: ArrayLike, capacity: int) -> tuple[I32, F32]:
    """The rows at ``index`` as arrays of static shape.

    Args:
      rows: where to take from.
      index: ``i64[b]``, which rows.
      capacity: ``k``, room for the entries of a row.

    Returns:
      ``i32[b, k]`` ids, padded with ``num_columns``, and ``f32[b, k]`` values, padded
      with 0.

    Raises:
      ValueError: if a row has more than ``capacity`` entries, or an index is out of
        range. Nothing is dropped here: see :func:`clip`.

    Example:
      >>> to_padded(from_lists([[2, 0], [1]], 3), [1, 0], 2)[0]
      array([[1, 3],
             [2, 0]], dtype=int32)
    """
    chosen = take(rows, index)
    lengths = chosen.lengths
    require_capacity("to_padded", lengths, capacity, np.asarray(index))
    b = len(lengths)
    ids = np.full((b, capacity), rows.num_columns, np.int32)
    values = np.zeros((b, capacity), np.float32)
    filled = np.arange(capacity) < lengths[:, None]
    ids[filled] = chosen.ids
    values[filled] = chosen.values
    return ids, values


def require_capacity(function: str, lengths: I64, capacity: int, rows: I64) -> None:
    """Nothing, if rows of these lengths, known by the numbers ``rows``, have room.

    Raises:
      ValueError: in the name of ``function``, with the longest row.
    """
    if len(lengths) and lengths.max() > capacity:
        at = int(lengths.argmax())
        raise ValueError(
            f"{function}: a row must have at most capacity={capacity} entries; got "
            f"{lengths[at]} in row {rows[at]}. Raise the capacity, or drop the "
            "smallest entries with fsparse.data.clip."
        )


def normalize(rows: SparseRows) -> SparseRows:
    """Rows of Euclidean length 1: ``v / sqrt(sum(v**2))``. Rows of zeros stay.

    Example:
      >>> normalize(from_lists([[0, 1]], 2, [[3.0, 4.0]])).values
      array([0.6, 0.8], dtype=float32)
    """
    filled = rows.lengths > 0
    squares = np.zeros(rows.num_rows, np.float64)  # float32 would overflow at 1.8e19
    squares[filled] = np.add.reduceat(
        np.square(rows.values, dtype=np.float64), rows.indptr[:-1][filled]
    )
    scale = np.divide(1, np.sqrt(squares), out=squares, where=squares > 0)
    values = np.empty_like(rows.values)
    np.multiply(
        rows.values, np.repeat(scale, rows.lengths), values, casting="same_kind"
    )
    return rows._replace(values=values)


def scale_columns(rows: SparseRows, scale: ArrayLike) -> SparseRows:
    """Each value times the factor of its column; ``scale: f32[num_columns]``.

    Raises:
      ValueError: if ``scale`` has not one factor for each column.

    Example:
      >>> scale_columns(from_lists([[1], [0, 1]], 2), [0.5, 2.0]).values
      array([2. , 0.5, 2. ], dtype=float32)
    """
    factors = np.asarray(scale, np.float32)
    if factors.shape != (rows.num_columns,):
        raise ValueError(
            f"scale_columns: scale must have shape ({rows.num_columns},), one factor "
            f"for each column; got {factors.shape}."
        )
    return rows._replace(values=rows.values * factors[rows.ids])


def column_counts(rows: SparseRows) -> I64:
    """``i64[num_columns]``: how many entries each column has.

    Example:
      >>> column_counts(from_lists([[1], [0, 1]], 3))
      array([1, 2, 0])
    """
    return np.bincount(rows.ids, minlength=rows.num_columns)


def inverse_document_frequency(rows: SparseRows) -> F32:
    """The weight of each column: ``ln((1 + m) / (1 + count)) + 1``.

    Returns ``f32[num_columns]``. ``count`` is the number of the ``m`` rows that have
    the column. A column of every row weighs 1, a column of no row ``ln(1 + m) + 1``.

    Example:
      >>> inverse_document_frequency(from_lists([[1], [0, 1]], 3)).round(2)
      array([1.41, 1.  , 2.1 ], dtype=float32)
    """
    weights = np.log((1 + rows.num_rows) / (1 + column_counts(rows))) + 1
    return weights.astype(np.float32)


def tfidf(splits: Splits) -> Splits:
    """Features times their inverse document frequency, in rows of length 1.

    Frequencies are those of the training features: nothing is learnt from the test set.

    Raises:
      ValueError: if the test features have other columns than the training features.

    Example:
      >>> rows = from_lists([[1], [0, 1]], 2)
      >>> splits = tfidf(Splits(Dataset(rows, rows), Dataset(rows, rows), "two"))
      >>> splits.test.features.values.round(2)
      array([1.  , 0.81, 0.58], dtype=float32)
    """
    weights = inverse_document_frequency(splits.train.features)

    def weigh(dataset: Dataset) -> Dataset:
        features = normalize(scale_columns(dataset.features, weights))
        return dataset._replace(features=features)

    return splits._replace(train=weigh(splits.train), test=weigh(splits.test))


def _indptr(lengths: ArrayLike) -> I64:
    """Row ends from row lengths: ``[0, l0, l0 + l1, ...]``."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _lengths_at(rows: SparseRows, index: I64) -> I64:
    """Entries of the rows at ``index``, without a pass over all rows."""
    return rows.indptr[index + 1] - rows.indptr[index]


def _entries_of(rows: SparseRows, index: I64) -> I64:
    """Where the entries of the rows at ``index`` lie, row after row."""
    lengths = _lengths_at(rows, index)
    indptr = _indptr(lengths)
    # Entry e of the chosen rows lies at e, moved from its new row start to the old one.
    return np.repeat(rows.indptr[index] - indptr[:-1], lengths) + np.arange(indptr[-1])


def _row_of(indptr: I64, entry: int) -> int:
    return int(np.searchsorted(indptr, entry, side="right")) - 1


def require_columns(function: str, num_columns: int) -> None:
    """That ids of so many columns are int32."""
    if num_columns < 0 or num_columns >= 2**31 - 1:
        raise ValueError(
            f"{function}: num_columns must be in [0, 2**31 - 1), as ids are int32 and "
            f"one more is for padding; got {num_columns}."
        )


def _require_ids(function: str, ids: NDArray[Any], num_columns: int) -> None:
    require_columns(function, num_columns)
    bad = (ids < 0) | (ids >= num_columns)
    if bad.any():
        raise ValueError(
            f"{function}: ids must be in [0, num_columns={num_columns}); got "
            f"{ids[bad.argmax()]} as entry {bad.argmax()}."
        )
