"""What stands in a table's cells, read as text, numbers, times or bags of text.

Each reader returns its values and a list of ``(row, what is wrong)``.
"""

import datetime
import math
from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsparse.data.rows import I64

Bad = list[tuple[int, str]]
Bool = NDArray[np.bool_]
F64 = NDArray[np.float64]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST, _LAST = -62_135_596_800, 253_402_300_800  # the years 1 to 9999
_MAX_SHOWN = 40
_LISTS = (list, tuple, np.ndarray)


class Texts(NamedTuple):
    """``m`` strings, empty where they are missing."""

    texts: list[str]
    is_missing: Bool  # bool[m]


class Bags(NamedTuple):
    """``m`` bags of strings, one after the other."""

    texts: list[str]
    lengths: I64  # i64[m]
    is_missing: Bool  # bool[m]


def read_texts(values: Sequence[Any], missing: frozenset[str]) -> tuple[Texts, Bad]:
    """Strings as they are; other values as Python writes them, whole floats as ints."""
    bad: Bad = []
    texts = list(values)
    if not set(map(type, texts)) <= {str}:
        texts = [_text(value, i, bad) for i, value in enumerate(texts)]
    nothing = missing | {None}
    if nothing.isdisjoint(texts):
        return Texts(texts, np.zeros(len(texts), bool)), bad
    is_missing = np.fromiter(map(nothing.__contains__, texts), bool, len(texts))
    for i in np.flatnonzero(is_missing).tolist():
        texts[i] = ""
    return Texts(texts, is_missing), bad


def read_numbers(values: Sequence[Any], missing: frozenset[str]) -> tuple[F64, Bad]:
    """``f64[m]``, NaN where missing."""
    bad: Bad = []
    try:
        if missing.isdisjoint(values):
            return np.fromiter(map(float, values), np.float64, len(values)), bad
        given = (math.nan if v is None or v in missing else float(v) for v in values)
        return np.fromiter(given, np.float64, len(values)), bad
    except (ValueError, TypeError, OverflowError):
        given = (_number(v, missing, i, bad) for i, v in enumerate(values))
        return np.fromiter(given, np.float64, len(values)), bad


def read_times(
    values: Sequence[Any], format: str | None, missing: frozenset[str]
) -> tuple[F64, Bad]:
    """``f64[m]`` seconds since 1970 in UTC, NaN where missing."""
    bad: Bad = []
    known: dict[Any, float] = {}
    seconds = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            if value not in known:
                known[value] = _seconds(value, format, missing)
            seconds[i] = known[value]
        except (ValueError, TypeError, OverflowError) as e:
            seconds[i] = math.nan
            bad.append((i, f"must be a time; got {show(value)} ({e})"))
    return seconds, bad


def read_bags(
    values: Sequence[Any], delimiter: str | None, missing: frozenset[str]
) -> tuple[Bags, Bad]:
    """Strings that a delimiter parts, or lists of values, without spaces around."""
    if set(map(type, values)).isdisjoint(_LISTS):
        (texts, is_missing), bad = read_texts(values, missing)
        if delimiter is None:
            there = [*compress(texts, (~is_missing).tolist())]
            return Bags(there, (~is_missing).astype(np.int64), is_missing), bad
        bags = [_split(text, delimiter, missing) for text in texts]
    else:
        bad = []
        bags = [_bag(v, delimiter, missing, i, bad) for i, v in enumerate(values)]
        is_missing = np.fromiter((v is None for v in values), bool, len(values))
    lengths = np.fromiter(map(len, bags), np.int64, len(bags))
    return Bags([text for bag in bags for text in bag], lengths, is_missing), bad


def show(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int with too many digits to print
        text = f"an int of {value.bit_length()} bits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _text(value: Any, row: int, bad: Bad) -> str | None:
    """The text of a value, None where there is none."""
    if value is None or isinstance(value, str):
        return value
    try:
        if isinstance(value, float):
            return _float_text(value)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, list | tuple | dict | set):
            raise ValueError("a list goes into a multi_label column")
        return None if _is_nothing(value) else str(value)
    except (ValueError, TypeError) as e:
        bad.append((row, f"must be text or a number; got {show(value)} ({e})"))
        return None


def _float_text(value: float) -> str | None:
    """Tables turn ints to floats where some are missing: 3.0 is the category 3."""
    if math.isnan(value):
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _is_nothing(value: Any) -> bool:
    """Whether it is a NaN or one of its kin, which differ from themselves."""
    return bool(value != value)


def _number(value: Any, missing: frozenset[str], row: int, bad: Bad) -> float:
    try:
        if value is None or (isinstance(value, str) and value in missing):
            return math.nan
        if isinstance(value, int):
            return float(str(value))  # beyond float64 it is infinite, as text would be
        return float(value)
    except (ValueError, TypeError, OverflowError):
        bad.append((row, f"must be a number; got {show(value)}"))
        return math.nan


def _seconds(value: Any, format: str | None, missing: frozenset[str]) -> float:
    """Seconds since 1970; NaN if missing."""
    if isinstance(value, str):
        value = None if value in missing else _parse_time(value.strip(), format)
    if value is None or _is_nothing(value):
        return math.nan
    if isinstance(value, datetime.datetime):
        utc = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (utc - _EPOCH).total_seconds()
    if isinstance(value, datetime.date):
        return (value - _EPOCH.date()).total_seconds()
    if isinstance(value, bool):
        raise TypeError("a truth value")
    seconds = float(value)
    if not _FIRST <= seconds < _LAST:
        raise ValueError(
            "seconds since 1970 must be in the years 1 to 9999: divide milliseconds by "
            "1000"
        )
    return seconds


def _parse_time(text: str, format: str | None) -> datetime.datetime | float:
    if format not in (None, "epoch"):
        return datetime.datetime.strptime(text, format)
    try:
        seconds = float(text)
    except ValueError:
        if format == "epoch":
            raise
        return datetime.datetime.fromisoformat(text)
    if format is None and len(text) == 8 and text.isdecimal():
        raise ValueError(
            'seconds or a date? Give the column format="%Y%m%d" or format="epoch"'
        )
    return seconds


def _bag(
    value: Any, delimiter: str | None, missing: frozenset[str], row: int, bad: Bad
) -> list[str]:
    """The strings of one cell, a list or a text."""
    if not isinstance(value, _LISTS):
        return _split(_text(value, row, bad) or "", delimiter, missing)
    parts = [_text(part, row, bad) for part in value]
    return [part for part in parts if part and part not in missing]


def _split(text: str, delimiter: str | None, missing: frozenset[str]) -> list[str]:
    """The strings of one text; none where it is empty."""
    if delimiter is None:
        return [text] if text else []
    parts = map(str.strip, text.split(delimiter))
    return [part for part in parts if part and part not in missing]
