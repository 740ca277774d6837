"""One pass over the data: labels, statistics, room for an example, histories."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from fsparse.data.rows import I64, Dataset, SparseRows, clip, concatenate
from fsparse.tabular._bags import add_rows, beside
from fsparse.tabular._columns import numerical
from fsparse.tabular._encode import Parsed, State, no_state, parse, scaled, unscaled
from fsparse.tabular._fitted import FittedSchema
from fsparse.tabular._history import history
from fsparse.tabular._report import Report
from fsparse.tabular._rows import Table, parts_of
from fsparse.tabular._sample import SAMPLE_ROWS, Sample, extend, no_sample, statistics
from fsparse.tabular._schema import MAX_FEATURES, Schema
from fsparse.tabular._targets import LabelCodes, distinct_labels, fit_labels, label_ids
from fsparse.tabular._values import F64

_MIN_FEATURES = 2**12
_ROOM = 8  # columns for each feature that was seen, so that few share one


class Held(NamedTuple):
    """Of some rows, what their examples are made of once the fit is done."""

    features: SparseRows  # of all columns but the numerical ones
    numbers: dict[str, F64]
    codes: I64  # of labels
    lengths: I64  # labels of each row


class _Found:
    """What was found up to some row."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.num_rows = 0
        self.state: State = no_state(schema)
        self.labels = LabelCodes()
        self.label_capacity = 1
        self.lengths: I64 = np.zeros(1, np.int64)  # rows of each length
        self.is_seen = np.zeros(MAX_FEATURES, bool)
        self.numbers = {
            n: c for n, c in schema.columns.items() if isinstance(c, numerical)
        }
        self.samples: dict[str, Sample] = dict.fromkeys(self.numbers, no_sample())

    def add(self, parsed: Parsed, report: Report) -> Held:
        """Takes some rows in."""
        self.state, parts = unscaled(self.schema, self.state, parsed, report)
        numbers = {name: parsed.columns[name] for name in self.numbers}
        rooms = [self._room(name, part) for name, part in parts.items()]
        rooms += [self.numbers[name].room(x) for name, x in numbers.items()]
        self._count(np.bincount(np.sum(rooms, axis=0)))
        for name, x in numbers.items():
            sample = self.samples[name]
            self.samples[name] = extend(sample, x, self.num_rows, SAMPLE_ROWS)
        bags, m = parsed.labels, parsed.num_rows
        assert bags is not None
        self.label_capacity = max(self.label_capacity, bags.lengths.max(initial=1))
        self.num_rows += m
        flat = [*chain.from_iterable(parts.values())]
        features = beside(flat, m, self.schema.hashed_to)
        if self.schema.num_features is None:
            self.is_seen[features.ids] = True
        return Held(features, numbers, self.labels.add(bags), bags.lengths)

    def _room(self, name: str, parts: Sequence[SparseRows]) -> I64:
        """What each row needs for a column; for a history, what it may need one day."""
        column = self.schema.columns[name]
        if isinstance(column, history):
            return np.full(parts[0].num_rows, column.last)
        return np.add.reduce([part.lengths for part in parts])

    def _count(self, lengths: I64) -> None:
        size = max(len(lengths), len(self.lengths))
        both = (np.pad(a, (0, size - len(a))) for a in (lengths, self.lengths))
        self.lengths = sum(both, np.zeros(size, np.int64))

    def fitted(self, capacity_quantile: float) -> FittedSchema:
        """The schema, and all that was found."""
        schema = self.schema
        labels = fit_labels(schema.labels, schema.target, self.labels.codes)
        ids = label_ids(schema.labels, labels, [*self.labels.codes])
        counts = np.bincount(ids, self.labels.counts, labels.num_labels)
        enough = np.cumsum(self.lengths) >= capacity_quantile * self.num_rows
        return FittedSchema(
            schema,
            {n: statistics(self.samples[n], c.bins) for n, c in self.numbers.items()},
            labels,
            counts.astype(np.int64),
            schema.num_features or self._num_features(),
            max(1, int(np.argmax(enough))),
            int(self.label_capacity),
            self.num_rows,
            self.state,
        )

    def _num_features(self) -> int:
        """A power of two with room for more features than were seen."""
        count = np.count_nonzero(self.is_seen)
        count += sum(2 + column.bins for column in self.numbers.values())
        wanted = 1 << int(_ROOM * count - 1).bit_length()
        return min(max(wanted, _MIN_FEATURES), MAX_FEATURES)


def fit(
    schema: Schema,
    data: Table | Iterable[Table],
    capacity_quantile: float,
    strict: bool,
    report: Report,
) -> FittedSchema:
    """The schema, fitted: see :meth:`Schema.fit`."""
    _require_share("fit", capacity_quantile)
    found = _Found(schema)
    for _ in _gone_through("fit", found, data, strict, report):
        pass
    return found.fitted(capacity_quantile)


def fit_encode(
    schema: Schema,
    data: Table | Iterable[Table],
    capacity_quantile: float,
    strict: bool,
    report: Report,
) -> tuple[FittedSchema, Dataset]:
    """The same, and the examples: see :meth:`Schema.fit_encode`."""
    _require_share("fit_encode", capacity_quantile)
    found = _Found(schema)
    parts = [*_gone_through("fit_encode", found, data, strict, report)]
    fitted = found.fitted(capacity_quantile)
    features = []
    for part in parts:
        numbers = scaled(schema, fitted.statistics, part.numbers)
        flat = [part.features, *chain.from_iterable(numbers.values())]
        added = add_rows(flat, part.features.num_rows, fitted.num_features)
        rows, clipped = clip(added, fitted.feature_capacity)
        report.num_clipped += clipped.entries
        features.append(rows)
    ids = label_ids(schema.labels, fitted.labels, [*found.labels.codes])
    codes = np.concatenate([part.codes for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    labels = distinct_labels(ids[codes], lengths, fitted.num_labels)
    return fitted, Dataset(concatenate(features), labels)


def _gone_through(
    function: str,
    found: _Found,
    data: Table | Iterable[Table],
    strict: bool,
    report: Report,
) -> Iterator[Held]:
    """What is held of each part; an error at the end if there was no row."""
    for rows in parts_of(data):
        parsed = parse(
            function, found.schema, rows, has_target=True, strict=strict, report=report
        )
        yield found.add(parsed, report)
    if not found.num_rows:
        raise ValueError(
            f"{function}: at least one good row is required; got none, and "
            f"{report.num_malformed} bad ones. {' '.join(report.messages)}"
        )


def _require_share(function: str, capacity_quantile: float) -> None:
    if not 0 < capacity_quantile <= 1:
        raise ValueError(
            f"{function}: capacity_quantile must be in (0, 1]; got {capacity_quantile}."
        )
