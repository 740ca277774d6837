"""Parquet files in parts, by pyarrow."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fsparse.tabular._csv import CHUNK_ROWS
from fsparse.tabular._rows import Rows, require_columns


@dataclasses.dataclass(frozen=True)
class ParquetReader:
    """A parquet file, read anew by each iteration; :func:`read_parquet` makes one."""

    path: str | os.PathLike[str]
    columns: tuple[str, ...]  # those that are read
    chunk_rows: int = CHUNK_ROWS

    def __iter__(self) -> Iterator[Rows]:
        """Parts of at most ``chunk_rows`` rows."""
        first = 0
        with _open(self.path) as file:
            for batch in file.iter_batches(self.chunk_rows, columns=[*self.columns]):
                columns = {n: _to_list(batch.column(n)) for n in self.columns}
                numbers = np.arange(first, first + batch.num_rows)
                yield Rows(columns, numbers, os.fspath(self.path))
                first += batch.num_rows


def read_parquet(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> ParquetReader:
    """A reader of a parquet file, for :meth:`Schema.fit` and its kin.

    Args:
      path: the file.
      columns: those to read, such as ``schema.sources(has_target=True)``; all where
        left out.
      chunk_rows: the most rows of a part. What is read does not depend on it.

    Raises:
      ImportError: if pyarrow is missing.
      ValueError: if the file is no parquet file, or lacks a column, or two columns have
        one name.

    Example:
      >>> rows = read_parquet("fruit.parquet")  # doctest: +SKIP
      >>> schema.fit(rows).label_names  # doctest: +SKIP
      ('apple', 'pear')
    """
    if chunk_rows < 1:
        raise ValueError(
            f"read_parquet: chunk_rows must be positive; got {chunk_rows}."
        )
    with _open(path) as file:
        found = list(file.schema_arrow.names)
    chosen = found if columns is None else list(columns)
    require_columns("read_parquet", os.fspath(path), found, chosen)
    for name in chosen:
        if found.count(name) > 1:
            raise ValueError(
                f"read_parquet: {os.fspath(path)} must have distinct names of columns; "
                f"got {name!r} twice. Rename one."
            )
    return ParquetReader(path, tuple(chosen), chunk_rows)


def _open(path: str | os.PathLike[str]) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise ImportError(
            "read_parquet: pyarrow is required to read parquet files; it is missing. "
            "Install it with `pip install fsparse[tabular]`."
        ) from e
    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as e:
        raise ValueError(
            f"read_parquet: {os.fspath(path)} must be a parquet file; got the error {e}"
        ) from e


def _to_list(column: Any) -> list[Any]:
    """Python's values; times to microseconds, as its ``datetime`` holds."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_timestamp(column.type):
        micro = pyarrow.timestamp("us", column.type.tz)
        column = column.cast(micro, safe=False)
    values: list[Any] = column.to_pylist()
    return values
