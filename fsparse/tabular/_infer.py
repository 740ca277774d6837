"""A schema guessed from the first rows of a table, to be looked at and edited."""

import re
import statistics
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fsparse.tabular._columns import (
    categorical,
    multi_label,
    numerical,
    text,
    timestamp,
)
from fsparse.tabular._read import Source, read
from fsparse.tabular._rows import Rows, as_rows, parts_of, require_columns
from fsparse.tabular._schema import Column, Schema
from fsparse.tabular._targets import Target
from fsparse.tabular._values import (
    F64,
    Bad,
    read_numbers,
    read_texts,
    read_times,
)

_NOTHING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
_DELIMITERS = (";", "|")
_FEW = 10  # integers of so few values are categories
_MIN_WORDS = 3.0  # a text has more, on average
_MAX_BAD = 0.01  # of the values of a column of numbers or times


def infer_schema(
    source: Source,
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

    A few bad cells do not make a column another one: 99 % of the values that are there
    must be numbers, or times. A ``UserWarning`` tells of the others; they are errors
    when the rows are read, or such rows are left out with ``strict=False``.

    Args:
      source: a path of a CSV or parquet file, a reader, or rows in memory.
      target: the column of the labels.
      sample_rows: how many rows are looked at.
      options: of :func:`read`, for a path.

    Raises:
      TypeError: if an option is unknown, or the source is something else.
      ValueError: if there is no row or no such column.

    Example:
      >>> rows = [{"color": "red", "size": 1.5, "kind": "apple"}]
      >>> rows += [{"color": "red", "size": 2.5, "kind": "pear"}]
      >>> schema = infer_schema(rows, target="kind")
      >>> schema.columns, schema.labels
      ({'color': categorical(), 'size': numerical(bins=10)}, categorical())
    """
    sample = _sample(read(source, **options), target, sample_rows)
    missing = _missing_marks(sample)
    columns = {
        name: _kind(name, sample, frozenset(missing))
        for name in sample.columns
        if name != target
    }
    labels = _labels(sample.columns[target], frozenset(missing))
    return Schema(columns, target, labels, missing=missing)


def _sample(reader: Any, target: str, count: int) -> Rows:
    """The first rows, as one part."""
    names = getattr(reader, "columns", None)  # of a file without rows, too
    if isinstance(names, tuple):
        require_columns("infer_schema", str(reader.path), names, [target])
    parts = list(_first_parts(reader, target, count))
    if not parts:
        raise ValueError(
            f"infer_schema: {getattr(reader, 'path', 'the source')} must have at least "
            "one row; got none."
        )
    columns = {
        name: [value for part in parts for value in part.columns[name]][:count]
        for name in parts[0].columns
    }
    numbers = np.concatenate([part.numbers for part in parts])[:count]
    return parts[0]._replace(columns=columns, numbers=numbers)


def _first_parts(reader: Any, target: str, count: int) -> Iterator[Rows]:
    for part in parts_of(reader):
        rows = as_rows("infer_schema", part, [target])
        if rows.num_rows:
            yield rows
        count -= rows.num_rows
        if count <= 0:
            return


def _missing_marks(sample: Rows) -> tuple[str, ...]:
    """The empty string, and the usual marks that stand among numbers."""
    found = {""}
    for values in sample.columns.values():
        marks = {v for v in set(map(_key, values)) if v in _NOTHING}
        rest = [v for v in values if v is not None and _key(v) not in {"", *marks}]
        if marks and rest and _are_most(rest, _numbers(rest)[1]):
            found |= marks
    return tuple(sorted(found))


def _kind(name: str, sample: Rows, missing: frozenset[str]) -> Column:
    values = sample.columns[name]
    if any(isinstance(value, list) for value in values):
        return multi_label()
    places = [i for i, v in enumerate(values) if v is not None and v not in missing]
    present = [values[i] for i in places]
    if not present:
        return categorical()
    numbers, bad = _numbers(present)
    if _are_most(present, bad):
        if _are_codes(name, numbers):
            return categorical()
        _warn(name, "numerical", [(places[i], what) for i, what in bad], sample)
        return numerical()
    _, bad = read_times(present, None, missing)
    if _are_most(present, bad):
        _warn(name, "timestamp", [(places[i], what) for i, what in bad], sample)
        return timestamp()
    texts = read_texts(present, missing)[0].texts
    delimiter = _delimiter(texts)
    if delimiter:
        return multi_label(delimiter)
    words = statistics.mean(len(t.split()) for t in texts)
    return text() if words > _MIN_WORDS else categorical()


def _labels(values: Sequence[Any], missing: frozenset[str]) -> Target:
    if any(isinstance(value, list) for value in values):
        return multi_label()
    texts = [t for t in read_texts(values, missing)[0].texts if t]
    delimiter = _delimiter(texts)
    if delimiter:
        return multi_label(delimiter)
    return categorical()


def _numbers(values: list[Any]) -> tuple[F64, Bad]:
    """Numbers, and what is none; truth values are none."""
    if any(isinstance(value, bool) for value in values):
        return np.zeros(0), [(i, "") for i in range(len(values))]
    numbers, bad = read_numbers(values, frozenset())
    return np.delete(numbers, [i for i, _ in bad]), bad


def _are_most(values: list[Any], bad: Bad) -> bool:
    return len(bad) <= _MAX_BAD * len(values)


def _are_codes(name: str, numbers: F64) -> bool:
    """Whole numbers that are names: of an id, or of few values."""
    is_id = re.search(r"(^|[_ .-])(id|ID|Id)$|[a-z](Id|ID)$", name) is not None
    is_whole = bool(np.all(np.isfinite(numbers) & (np.trunc(numbers) == numbers)))
    return is_whole and (is_id or len(np.unique(numbers)) <= _FEW)


def _warn(name: str, kind: str, bad: Bad, sample: Rows) -> None:
    """Of cells that the kind will not read."""
    if not bad:
        return
    at, what = bad[0]
    warnings.warn(
        f"infer_schema: the column {name!r} is {kind}, but for {len(bad)} of "
        f"{sample.num_rows} rows; {sample.place(at)}: it {what}. Correct such values, "
        "add them to 'missing' of the schema, or leave such rows out with strict=False "
        "(in the shell, --skip-bad-rows).",
        stacklevel=4,
    )


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
