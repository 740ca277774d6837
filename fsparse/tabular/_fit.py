"""One pass over the data: labels, statistics, room for an example, histories."""

from collections.abc import Iterable, Sequence

import numpy as np

from fsparse.data.rows import I64, SparseRows
from fsparse.tabular._columns import numerical
from fsparse.tabular._encode import Parsed, State, features, no_state, parse
from fsparse.tabular._fitted import FittedSchema
from fsparse.tabular._history import history
from fsparse.tabular._report import Report
from fsparse.tabular._rows import Table, parts_of
from fsparse.tabular._sample import SAMPLE_ROWS, Sample, extend, no_sample, statistics
from fsparse.tabular._schema import Schema
from fsparse.tabular._targets import fit_labels


class _Found:
    """What was found up to some row."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.num_rows = 0
        self.state: State = no_state(schema)
        self.labels: set[str] = set()
        self.label_capacity = 1
        self.lengths: I64 = np.zeros(1, np.int64)  # rows of each length
        self.samples: dict[str, Sample] = {
            name: no_sample()
            for name, column in schema.columns.items()
            if isinstance(column, numerical)
        }

    def add(self, parsed: Parsed, report: Report) -> None:
        """Takes some rows in."""
        self.state, parts = features(self.schema, {}, self.state, parsed, report)
        lengths = sum(self._room(name, part) for name, part in parts.items())
        self._count(np.bincount(lengths))
        for name, sample in self.samples.items():
            values = parsed.columns[name]
            self.samples[name] = extend(sample, values, self.num_rows, SAMPLE_ROWS)
        assert parsed.labels is not None
        self.labels.update(parsed.labels.texts)
        longest = int(parsed.labels.lengths.max(initial=1))
        self.label_capacity = max(self.label_capacity, longest)
        self.num_rows += parsed.num_rows

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

    def capacity(self, quantile: float) -> int:
        """The least room that is enough for this share of the rows."""
        enough = np.cumsum(self.lengths) >= quantile * self.num_rows
        return max(1, int(np.argmax(enough)))


def fit(
    schema: Schema,
    data: Table | Iterable[Table],
    capacity_quantile: float,
    strict: bool,
    report: Report,
) -> FittedSchema:
    """The schema, fitted: see :meth:`Schema.fit`."""
    if not 0 < capacity_quantile <= 1:
        raise ValueError(
            f"fit: capacity_quantile must be in (0, 1]; got {capacity_quantile}."
        )
    found = _Found(schema)
    for rows in parts_of(data):
        parsed = parse(
            "fit", schema, rows, has_target=True, strict=strict, report=report
        )
        found.add(parsed, report)
    if not found.num_rows:
        raise ValueError(
            "fit: at least one good row is required; got none, and "
            f"{report.num_malformed} bad ones. {' '.join(report.messages)}"
        )
    return FittedSchema(
        schema,
        {
            name: statistics(found.samples[name], column.bins)
            for name, column in schema.columns.items()
            if isinstance(column, numerical)
        },
        fit_labels(schema.labels, schema.target, found.labels),
        found.capacity(capacity_quantile),
        found.label_capacity,
        found.num_rows,
        found.state,
    )
