"""Where rows come from: a path, a reader, or rows in memory."""

import os
from collections.abc import Iterable
from typing import Any

from fsparse.tabular._csv import read_csv
from fsparse.tabular._parquet import read_parquet
from fsparse.tabular._rows import Table

Source = str | os.PathLike[str] | Table | Iterable[Table]


def read(source: Source, *, strict: bool = True, **options: Any) -> Any:
    r"""A reader of the file at a path; rows and readers as they are.

    Args:
      source: a path: of a parquet file if it ends in ``.parquet``, else of a CSV file.
        Or rows, or a reader.
      strict: of :func:`read_csv`; rows of parquet files are never malformed.
      options: of :func:`read_csv`, such as ``delimiter`` and ``encoding``, or of
        :func:`read_parquet`. Only a path takes them.

    Raises:
      TypeError: if there is no such option, or the source is no path.
      ValueError: as the readers do.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "fruit.csv")
      ...     _ = path.write_text("color;kind\nred;apple\n")
      ...     [dict(rows.columns) for rows in read(path, delimiter=";")]
      [{'color': ['red'], 'kind': ['apple']}]
    """
    if isinstance(source, str | os.PathLike):
        if os.fspath(source).endswith(".parquet"):
            return _parquet(source, options)
        return read_csv(source, strict=strict, **options)
    if options:
        raise TypeError(
            f"read: a source with options must be a path; got {type(source).__name__} "
            f"and {', '.join(options)}. Make the reader with them."
        )
    return source


def _parquet(path: str | os.PathLike[str], options: dict[str, Any]) -> Any:
    known = ("columns", "chunk_rows")
    for name in options:
        if name not in known:
            raise TypeError(
                f"read: options for parquet must be among {', '.join(known)}; got "
                f"{name} for {os.fspath(path)}. Leave it out."
            )
    return read_parquet(path, **options)
