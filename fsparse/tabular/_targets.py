"""Kinds of targets: which labels a row has, and how they are numbered.

``categorical`` and ``multi_label`` columns serve as targets, too; ``binary`` and
``integer`` are targets alone. A :class:`Labels` holds what the fit found.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np

from fsparse.data.rows import I64, SparseRows, column_counts
from fsparse.tabular._bags import ragged
from fsparse.tabular._columns import categorical, multi_label, require
from fsparse.tabular._rows import Rows
from fsparse.tabular._values import Bad, Bags, read_bags, show

_MAX_LABELS = 2**31 - 2


@dataclasses.dataclass(frozen=True)
class binary:
    """Two labels: 1 for the value ``positive``, 0 for any other that the fit saw.

    Example:
      >>> binary("yes")
      binary(positive='yes')
    """

    positive: str = "1"

    def __post_init__(self) -> None:
        good = isinstance(self.positive, str)
        require("binary", good, "positive must be written as a string", self.positive)


@dataclasses.dataclass(frozen=True)
class integer:
    """Labels that are numbers from 0 on already; several, if there is a ``delimiter``.

    A row with an id from ``num_labels`` on is a bad one. Where that is left out, it is
    one more than the largest id of the fit, and what comes later is an unseen label.

    Raises:
      ValueError: if ``num_labels`` is out of range.

    Example:
      >>> integer(num_labels=1000)
      integer(num_labels=1000, delimiter=None)
    """

    num_labels: int | None = None
    delimiter: str | None = None

    def __post_init__(self) -> None:
        good = self.num_labels is None or 1 <= self.num_labels <= _MAX_LABELS
        range_ = f"num_labels must be in [1, {_MAX_LABELS}]"
        require("integer", good, range_, self.num_labels)


Target = categorical | multi_label | binary | integer


class Labels(NamedTuple):
    """What the fit found of the target."""

    names: tuple[str, ...]  # of each label; empty for integers
    num_labels: int
    negatives: tuple[str, ...] = ()  # of a binary target: the values of label 0


def read_target(
    kind: Target, name: str, rows: Rows, missing: frozenset[str]
) -> tuple[Bags, Bad]:
    """The labels of each row as text; without one a row is good in a bag only."""
    delimiter = kind.delimiter if isinstance(kind, multi_label | integer) else None
    bags, bad = read_bags(rows.columns[name], delimiter, missing)
    if delimiter is None:
        bad += [
            (i, f"must have one label; got {show(rows.columns[name][i])}")
            for i in np.flatnonzero(bags.lengths != 1).tolist()
        ]
    if isinstance(kind, integer):
        bad += _not_ids(bags, kind.num_labels or _MAX_LABELS)
    return bags, bad


def fit_labels(kind: Target, name: str, found: Iterable[str]) -> Labels:
    """Labels in order: numbers by value, if all are whole numbers, others by name."""
    if isinstance(kind, integer):
        largest = max(map(int, found), default=0)
        return Labels((), kind.num_labels or largest + 1)
    names = _in_order(found)
    if not isinstance(kind, binary):
        return Labels(names, len(names))
    negatives = tuple(n for n in names if n != kind.positive)
    if kind.positive not in names:
        raise ValueError(
            f"fit: the target {name!r} must have the value {kind.positive!r}, which is "
            f"positive; got {', '.join(map(repr, names[:10]))}. Choose another value "
            "with binary(positive)."
        )
    other = negatives[0] if len(negatives) == 1 else f"not {kind.positive}"
    return Labels((other, kind.positive), 2, negatives)


def encode_labels(kind: Target, labels: Labels, bags: Bags) -> tuple[SparseRows, int]:
    """Rows of label ids, each once, rising; and how many labels the fit did not see."""
    ids = label_ids(kind, labels, bags.texts)
    rows = distinct_labels(ids, bags.lengths, labels.num_labels)
    return rows, int(np.sum(ids < 0))


def label_ids(kind: Target, labels: Labels, texts: Sequence[str]) -> I64:
    """The id of each label; -1 for those that the fit did not see."""
    if isinstance(kind, integer):
        ids = np.fromiter(map(int, texts), np.int64, len(texts))
        ids[ids >= labels.num_labels] = -1
        return ids
    index = {name: i for i, name in enumerate(labels.names)}
    if isinstance(kind, binary):
        index = dict.fromkeys(labels.negatives, 0) | {kind.positive: 1}
    return np.fromiter(map(index.get, texts, repeat(-1)), np.int64, len(texts))


class LabelCodes:
    """Labels by the order in which they come, and how many rows have each."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.counts: I64 = np.zeros(0, np.int64)

    def add(self, bags: Bags) -> I64:
        """The code of each label of some rows."""
        seen = self.codes
        codes = (seen.setdefault(text, len(seen)) for text in bags.texts)
        found = np.fromiter(codes, np.int64, len(bags.texts))
        counts = column_counts(distinct_labels(found, bags.lengths, len(seen)))
        counts[: len(self.counts)] += self.counts
        self.counts = counts
        return found


def distinct_labels(ids: I64, lengths: I64, num_labels: int) -> SparseRows:
    """Rows of ids, each once, rising; negative ones are left out."""
    row = np.repeat(np.arange(len(lengths)), lengths)[ids >= 0]
    key = np.unique(row * num_labels + ids[ids >= 0])
    counts = np.bincount(key // max(num_labels, 1), minlength=len(lengths))
    ids = key % max(num_labels, 1)  # before the first label there is none
    return ragged(counts, ids.astype(np.int32), num_labels)


def _not_ids(bags: Bags, bound: int) -> Bad:
    row = np.repeat(np.arange(len(bags.lengths)), bags.lengths).tolist()
    return [
        (r, f"must hold label ids in [0, {bound}); got {show(text)}")
        for r, text in zip(row, bags.texts, strict=True)
        if not _is_id(text, bound)
    ]


def _is_id(text: str, bound: int) -> bool:
    is_short = text.isascii() and text.isdecimal() and len(text) < 11
    return is_short and int(text) < bound


def _in_order(found: Iterable[str]) -> tuple[str, ...]:
    names = list(found)
    if all(_is_whole(name) for name in names):
        return tuple(sorted(names, key=lambda n: (int(n), n)))
    return tuple(sorted(names))


def _is_whole(name: str) -> bool:
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 40
