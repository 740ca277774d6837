"""Files and rows to data sets and batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fsparse.data.batches import Batch
from fsparse.data.rows import Dataset, SparseRows, concatenate, to_padded
from fsparse.tabular import FittedSchema, Source, read

_BLOCK = 256  # rows of the largest batch


def require_tables(fn: str, source: Any) -> None:
    """Refuses what looks like rows, and is something else."""
    if isinstance(source, Iterator):
        raise TypeError(
            f"{fn}: rows must be a path, a reader or a list of dicts; got "
            f"{type(source).__name__}. Pass a list of its rows."
        )
    if hasattr(source, "to_dict") and not isinstance(source, dict | list):
        raise TypeError(
            f"{fn}: rows must be a dict of columns or a list of dicts; got "
            f'{type(source).__name__}. Pass .to_dict("list") of it.'
        )


def dataset_of(
    schema: FittedSchema, source: Source, *, state: Any = None, strict: bool = True
) -> Dataset:
    """All examples of a source, in memory."""
    reader = read(source, strict=strict)
    parts = list(schema.encode_stream(reader, state=state, strict=strict))
    if not parts:
        raise ValueError("there must be at least one row; got none.")
    return Dataset(
        concatenate([part.features for part in parts]),
        concatenate([part.labels for part in parts]),
    )


def batches_of(features: SparseRows, capacity: int) -> Iterator[tuple[Batch, int]]:
    """Batches for prediction, and how many of their rows are examples.

    A batch has a power of two rows, so that few programs are compiled.
    """
    for start in range(0, features.num_rows, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, features.num_rows))
        yield padded(features, index, capacity), len(index)


def padded(features: SparseRows, index: np.ndarray, capacity: int) -> Batch:
    """A batch of some rows, filled up to a power of two with empty ones."""
    b = 1 << (len(index) - 1).bit_length()
    ids, weights = to_padded(features, index, capacity)
    empty = ((0, b - len(index)), (0, 0))
    return Batch(
        np.pad(ids, empty, constant_values=features.num_columns),
        np.pad(weights, empty),
        np.full((b, 1), np.iinfo(np.int32).max, np.int32),
    )
