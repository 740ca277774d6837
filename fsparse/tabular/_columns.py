"""Kinds of columns: what one reads of a table, and which features it makes of it.

Every kind has ``sources``, the columns of the table that it reads, ``read``, which
parses them, and ``features``, which hashes what was parsed. A feature's id is a
function of the column's name, the value and ``num_features`` alone: a value that the
fit never saw has a feature like any other.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from fsparse.data.features import hash_char_ngrams, hash_words
from fsparse.data.rows import I64, SparseRows, normalize
from fsparse.tabular._bags import marked, masked, ragged
from fsparse.tabular._hashing import (
    U64,
    combine,
    feature_id,
    feature_ids,
    hash_strings,
    seed_of,
)
from fsparse.tabular._rows import Rows
from fsparse.tabular._values import (
    F64,
    Bad,
    Bags,
    Texts,
    read_bags,
    read_numbers,
    read_texts,
    read_times,
)

_MISSING = np.uint64(seed_of("missing"))
_MAX_DEVIATIONS = 5.0
PARTS = ("hour", "weekday", "day", "month", "year")


class NumericStats(NamedTuple):
    """What the fit finds of a numerical column."""

    mean: float = 0.0
    scale: float = 1.0
    edges: tuple[float, ...] = ()  # between the bins, rising


@dataclasses.dataclass(frozen=True)
class categorical:
    """One feature for each value. It is hashed as it is written, case and spaces too.

    Numbers are read as text: ``7``, ``7.0`` of a float column and ``"7"`` are one
    value, ``"07"`` is another. A missing value is a value of its own.

    Example:
      >>> categorical()
      categorical()
    """

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return (name,)

    def read(self, name: str, rows: Rows, missing: frozenset[str]) -> tuple[Texts, Bad]:
        """Texts."""
        return read_texts(rows.columns[name], missing)

    def features(
        self, name: str, value: Texts, stats: NumericStats, num_features: int
    ) -> list[SparseRows]:
        """One entry a row."""
        ids = feature_ids(hash_texts(value), seed_of(name), num_features)
        return [ragged(np.ones(len(ids), np.int64), ids, num_features)]


@dataclasses.dataclass(frozen=True)
class numerical:
    """A number, standardised, as a weight; and which of ``bins`` quantiles it is in.

    Mean, deviation and quantiles are those of the data of the fit, or of 65,536 rows of
    it. A value that more rows have than a bin should, such as 0, bounds a bin, and the
    others have the quantiles to themselves. The weight is cut at 5 deviations, so that
    infinity has one, too. NaN is a missing value, which has a feature of its own.
    ``bins=0`` leaves the weight alone.

    Raises:
      ValueError: if ``bins`` is negative.

    Example:
      >>> numerical(bins=4)
      numerical(bins=4)
    """

    bins: int = 10

    def __post_init__(self) -> None:
        require("numerical", self.bins >= 0, "bins must not be negative", self.bins)

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return (name,)

    def read(self, name: str, rows: Rows, missing: frozenset[str]) -> tuple[F64, Bad]:
        """Numbers, NaN where missing."""
        return read_numbers(rows.columns[name], missing)

    def room(self, value: F64) -> I64:
        """How many features each number has."""
        return 1 + (~np.isnan(value) & (self.bins > 0))

    def features(
        self, name: str, value: F64, stats: NumericStats, num_features: int
    ) -> list[SparseRows]:
        """A weight and a bin, or the feature of what is missing."""
        is_missing = np.isnan(value)
        with np.errstate(over="ignore"):
            weight = (value - stats.mean) / stats.scale
        weight = np.clip(weight, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
        weight_id, missing_id = (
            feature_id(seed_of(name, part), num_features)
            for part in ("weight", "missing")
        )
        bin = np.searchsorted(np.array(stats.edges), value, side="right")
        bin_ids = feature_ids(_unsigned(bin), seed_of(name, "bin"), num_features)
        ids = np.stack([np.where(is_missing, missing_id, weight_id), bin_ids], axis=1)
        values = np.stack([np.where(is_missing, 1, weight), np.ones(len(value))], 1)
        is_there = np.ones((len(value), 2), bool)
        is_there[:, 1] = ~is_missing & (self.bins > 0)
        floats = values.astype(np.float32)
        return [masked(ids.astype(np.int32), floats, is_there, num_features)]


@dataclasses.dataclass(frozen=True)
class text:
    """N-grams of words, or of characters with ``ngrams="char"``.

    Counts as of :func:`fsparse.data.hash_words` (1 to ``max_n`` words, 2 by default) or
    :func:`fsparse.data.hash_char_ngrams` (``min_n`` to ``max_n`` characters, 2 to 5).
    With ``normalize`` the weights of a text have the Euclidean length 1. A missing or
    empty text has a feature of its own.

    Raises:
      ValueError: if ``ngrams`` is something else, or a number is out of range.

    Example:
      >>> text(ngrams="char", max_n=4)
      text(ngrams='char', min_n=2, max_n=4, normalize=True)
    """

    ngrams: Literal["word", "char"] = "word"
    min_n: int | None = None
    max_n: int | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        known = self.ngrams in ("word", "char")
        require("text", known, "ngrams must be 'word' or 'char'", self.ngrams)
        smallest, largest = (1, 2) if self.ngrams == "word" else (2, 5)
        min_n = smallest if self.min_n is None else self.min_n
        max_n = max(largest, min_n) if self.max_n is None else self.max_n
        require("text", 1 <= min_n <= max_n, "min_n <= max_n is required", self)
        if self.ngrams == "word":
            require("text", min_n == 1, "min_n must be 1 for words", min_n)
        object.__setattr__(self, "min_n", min_n)
        object.__setattr__(self, "max_n", max_n)

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return (name,)

    def read(self, name: str, rows: Rows, missing: frozenset[str]) -> tuple[Texts, Bad]:
        """Texts."""
        return read_texts(rows.columns[name], missing)

    def features(
        self, name: str, value: Texts, stats: NumericStats, num_features: int
    ) -> list[SparseRows]:
        """The n-grams, and the feature of a missing text."""
        sizes: dict[str, Any] = {"max_n": self.max_n, "num_features": num_features}
        if self.ngrams == "word":
            rows = hash_words(value.texts, seed=seed_of(name), **sizes)
        else:
            sizes["min_n"] = self.min_n
            rows = hash_char_ngrams(value.texts, seed=seed_of(name), **sizes)
        nothing = feature_id(seed_of(name, "missing"), num_features)
        return [
            normalize(rows) if self.normalize else rows,
            marked(value.is_missing, nothing, num_features),
        ]


@dataclasses.dataclass(frozen=True)
class multi_label:
    """A bag of categories: ``"red;blue"``, or a list of values; counted if repeated.

    Spaces around a category are not part of it. A missing bag has a feature of its own.

    Raises:
      ValueError: if the delimiter is empty.

    Example:
      >>> multi_label(delimiter="|")
      multi_label(delimiter='|')
    """

    delimiter: str = ";"

    def __post_init__(self) -> None:
        good = len(self.delimiter) > 0
        require("multi_label", good, "delimiter must not be empty", self.delimiter)

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return (name,)

    def read(self, name: str, rows: Rows, missing: frozenset[str]) -> tuple[Bags, Bad]:
        """Bags of texts."""
        return read_bags(rows.columns[name], self.delimiter, missing)

    def features(
        self, name: str, value: Bags, stats: NumericStats, num_features: int
    ) -> list[SparseRows]:
        """One entry for each category, and the feature of a missing bag."""
        ids = feature_ids(hash_strings(value.texts), seed_of(name), num_features)
        nothing = feature_id(seed_of(name, "missing"), num_features)
        return [
            ragged(value.lengths, ids, num_features),
            marked(value.is_missing, nothing, num_features),
        ]


@dataclasses.dataclass(frozen=True)
class timestamp:
    """Parts of a time in UTC, each a category.

    ISO 8601, such as ``2024-05-01`` or ``2024-05-01T12:30:00+02:00`` (UTC where no
    offset is written), seconds since 1970, Python's ``date`` and ``datetime``, or a
    ``format`` of ``strptime``; ``format="epoch"`` for seconds alone.

    Raises:
      ValueError: if a part is none of ``hour``, ``weekday``, ``day``, ``month``,
        ``year``.

    Example:
      >>> timestamp(parts=("weekday",))
      timestamp(format=None, parts=('weekday',))
    """

    format: str | None = None
    parts: tuple[str, ...] = ("hour", "weekday", "month")

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        good = bool(self.parts) and set(self.parts) <= set(PARTS)
        require("timestamp", good, f"parts must be among {PARTS}", self.parts)

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return (name,)

    def read(self, name: str, rows: Rows, missing: frozenset[str]) -> tuple[F64, Bad]:
        """Seconds since 1970, NaN where missing."""
        return read_times(rows.columns[name], self.format, missing)

    def features(
        self, name: str, value: F64, stats: NumericStats, num_features: int
    ) -> list[SparseRows]:
        """One entry for each part, or the feature of what is missing."""
        is_missing = np.isnan(value)
        numbers = time_parts(np.where(is_missing, 0, value))
        ids = np.stack(
            [
                feature_ids(_unsigned(numbers[part]), seed_of(name, part), num_features)
                for part in self.parts
            ],
            axis=1,
        )
        is_there = np.broadcast_to(~is_missing[:, None], ids.shape)
        ones = np.ones(ids.shape, np.float32)
        nothing = feature_id(seed_of(name, "missing"), num_features)
        return [
            masked(ids, ones, is_there, num_features),
            marked(is_missing, nothing, num_features),
        ]


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class cross:
    """One feature for each combination of the values of several columns.

    The columns are read as categories; they need not be in the schema themselves.

    Raises:
      ValueError: if fewer than two columns are named, or one twice.

    Example:
      >>> cross("store", "product")
      cross('store', 'product')
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        good = len(set(names)) == len(names) > 1
        require("cross", good, "two or more distinct columns are required", names)
        object.__setattr__(self, "names", names)

    def __repr__(self) -> str:
        return f"cross({', '.join(map(repr, self.names))})"

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns of the table that are read."""
        return self.names

    def read(
        self, name: str, rows: Rows, missing: frozenset[str]
    ) -> tuple[list[Texts], Bad]:
        """Texts of each column."""
        found = {s: read_texts(rows.columns[s], missing) for s in self.names}
        bad = {source: bad for source, (_, bad) in found.items()}
        return [texts for texts, _ in found.values()], bad_sources(bad)

    def features(
        self, name: str, value: list[Texts], stats: NumericStats, num_features: int
    ) -> list[SparseRows]:
        """One entry a row."""
        hashes = hash_texts(value[0])
        for texts in value[1:]:
            hashes = combine(hashes, hash_texts(texts))
        ids = feature_ids(hashes, seed_of(name), num_features)
        return [ragged(np.ones(len(ids), np.int64), ids, num_features)]


def hash_texts(value: Texts) -> U64:
    """One number for each text; that of a missing one is no text's."""
    return np.where(value.is_missing, _MISSING, hash_strings(value.texts))


def bad_sources(bad: Mapping[str, Bad]) -> Bad:
    """What is wrong with the columns that one is made of, by their names."""
    return [(i, f"(its {s!r}) {what}") for s, found in bad.items() for i, what in found]


def time_parts(seconds: F64) -> dict[str, Any]:
    """The parts of times in UTC: ``i64[m]`` each; Monday is the weekday 0."""
    days = np.floor(seconds / 86_400).astype(np.int64)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return {
        "hour": (np.floor(seconds).astype(np.int64) - days * 86_400) // 3600,
        "weekday": (days + 3) % 7,
        "day": (dates - months).astype(np.int64) + 1,
        "month": months.astype(np.int64) % 12 + 1,
        "year": dates.astype("datetime64[Y]").astype(np.int64) + 1970,
    }


def _unsigned(numbers: Any) -> U64:
    return np.asarray(numbers).astype(np.uint64)


def require(kind: str, good: bool, requirement: str, got: Any) -> None:
    if not good:
        raise ValueError(f"{kind}: {requirement}; got {got!r}.")
