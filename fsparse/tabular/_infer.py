"""A schema guessed from the first rows of a file, to be looked at and edited."""

import os
import re
import statistics
from itertools import islice
from typing import Any

from fsparse.tabular._columns import (
    categorical,
    multi_label,
    numerical,
    text,
    timestamp,
)
from fsparse.tabular._csv import CsvReader, read_csv
from fsparse.tabular._parquet import ParquetReader, read_parquet
from fsparse.tabular._rows import require_columns
from fsparse.tabular._schema import Column, Schema
from fsparse.tabular._targets import Target
from fsparse.tabular._values import read_numbers, read_texts, read_times

_NOTHING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
_DELIMITERS = (";", "|")
_FEW = 10  # integers of so few values are categories
_MIN_WORDS = 3.0  # a text has more, on average


def infer_schema(
    path: str | os.PathLike[str],
    target: str,
    *,
    sample_rows: int = 10_000,
    **options: Any,
) -> Schema:
    r"""Guesses the kinds of the columns by the first rows.

    Times in ISO 8601 are a ``timestamp``, numbers ``numerical``, but for whole numbers
    of at most 10 values, or of columns whose name ends in ``id``; strings that hold
    ``;`` or ``|`` again and again are ``multi_label``, those of more than 3 words on
    average ``text``, all others ``categorical``, as the target is.
    Print ``schema.to_json()``, edit it, and read it with :meth:`Schema.from_json`.

    Args:
      path: a parquet file if its name ends in ``.parquet``, otherwise a CSV file.
      target: the column of the labels.
      sample_rows: how many rows are looked at.
      options: of :func:`read_csv` or :func:`read_parquet`.

    Raises:
      ValueError: if the file has no row or no such column.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "fruit.csv")
      ...     _ = path.write_text("color,size,kind\nred,1.5,apple\nred,2.5,pear\n")
      ...     schema = infer_schema(path, target="kind")
      >>> schema.columns, schema.labels
      ({'color': categorical(), 'size': numerical(bins=10)}, categorical())
    """
    reader = _reader(path, options)
    require_columns("infer_schema", os.fspath(path), reader.columns, [target])
    sample = _sample(reader, sample_rows)
    if not sample[target]:
        raise ValueError(
            f"infer_schema: {os.fspath(path)} must have at least one row; got none."
        )
    missing = _missing_marks(sample)
    columns = {
        name: _kind(name, values, frozenset(missing))
        for name, values in sample.items()
        if name != target
    }
    labels = _labels(sample[target], frozenset(missing))
    return Schema(columns, target, labels, missing=missing)


def _reader(
    path: str | os.PathLike[str], options: dict[str, Any]
) -> CsvReader | ParquetReader:
    if os.fspath(path).endswith(".parquet"):
        return read_parquet(path, **options)
    return read_csv(path, **options)


def _sample(reader: CsvReader | ParquetReader, count: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in reader.columns}
    parts = iter(reader)
    for rows in islice(parts, -(-count // reader.chunk_rows)):
        for name, held in columns.items():
            held.extend(rows.columns[name][: count - len(held)])
    return columns


def _missing_marks(sample: dict[str, list[Any]]) -> tuple[str, ...]:
    """The empty string, and the usual marks that stand among numbers."""
    found = {""}
    for values in sample.values():
        marks = {v for v in set(map(_key, values)) if v in _NOTHING}
        rest = [v for v in values if _key(v) not in marks]
        if marks and rest and _are_numbers(rest, frozenset([""])):
            found |= marks
    return tuple(sorted(found))


def _kind(name: str, values: list[Any], missing: frozenset[str]) -> Column:
    if any(isinstance(value, list) for value in values):
        return multi_label()
    present = [v for v in values if v is not None and v not in missing]
    if not present:
        return categorical()
    if _are_numbers(present, missing):
        is_code = (_is_id(name) and _are_whole(present)) or _is_few(present)
        return categorical() if is_code else numerical()
    if not read_times(present, None, missing)[1]:
        return timestamp()
    texts = read_texts(present, missing)[0].texts
    delimiter = _delimiter(texts)
    if delimiter:
        return multi_label(delimiter)
    words = statistics.mean(len(t.split()) for t in texts)
    return text() if words > _MIN_WORDS else categorical()


def _labels(values: list[Any], missing: frozenset[str]) -> Target:
    if any(isinstance(value, list) for value in values):
        return multi_label()
    texts = [t for t in read_texts(values, missing)[0].texts if t]
    delimiter = _delimiter(texts)
    if delimiter:
        return multi_label(delimiter)
    return categorical()


def _are_numbers(values: list[Any], missing: frozenset[str]) -> bool:
    is_number = not any(isinstance(value, bool) for value in values)
    return is_number and not read_numbers(values, missing)[1]


def _is_id(name: str) -> bool:
    return re.search(r"(^|[_ .-])(id|ID|Id)$|[a-z](Id|ID)$", name) is not None


def _are_whole(values: list[Any]) -> bool:
    return all(float(value).is_integer() for value in values)


def _is_few(values: list[Any]) -> bool:
    return len({float(value) for value in values}) <= _FEW and _are_whole(values)


def _delimiter(texts: list[str]) -> str | None:
    """One that a fifth of the texts hold, and whose parts come again and again."""
    for delimiter in _DELIMITERS:
        parts = [p for t in texts for p in t.split(delimiter)]
        holding = sum(delimiter in t for t in texts)
        if holding * 5 >= len(texts) > 0 and len(set(parts)) * 2 <= len(parts):
            return delimiter
    return None


def _key(value: Any) -> Any:
    return value if isinstance(value, str) else None
