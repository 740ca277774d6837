"""Sets that are their own examples: a part of a set tells the rest of it."""

import numpy as np

from fsparse.data.rows import I64, Dataset, SparseRows


def halve(rows: SparseRows, rng: np.random.Generator | None = None) -> Dataset:
    """Of ``k`` entries of a row, ``k // 2`` as features and the others as labels.

    A row of one entry has no features. Called anew each epoch, it makes other examples
    of the same sets.

    Args:
      rows: ``m`` sets.
      rng: chooses the features; None takes the first ones.

    Returns:
      A data set of ``m`` examples, whose features and labels have the same columns.

    Example:
      >>> from fsparse.data import from_lists
      >>> features, labels = halve(from_lists([[5, 2, 7], [4]], 8))
      >>> features.ids.tolist(), labels.ids.tolist()
      ([5], [2, 7, 4])
    """
    lengths = rows.lengths
    row = np.repeat(np.arange(rows.num_rows), lengths)
    if rng is not None:
        order = np.lexsort((rng.random(len(row)), row))
        rows = rows._replace(ids=rows.ids[order], values=rows.values[order])
    halves = lengths // 2
    is_feature = np.arange(len(row)) < (rows.indptr[:-1] + halves)[row]

    def part(lengths: I64, chosen: np.ndarray) -> SparseRows:
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return SparseRows(
            indptr, rows.ids[chosen], rows.values[chosen], rows.num_columns
        )

    return Dataset(part(halves, is_feature), part(lengths - halves, ~is_feature))
