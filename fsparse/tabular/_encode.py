"""Rows of a table to features and labels, by a schema and what its fit found."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fsparse.data.rows import SparseRows
from fsparse.tabular._columns import NumericStats, numerical
from fsparse.tabular._history import history
from fsparse.tabular._report import Report
from fsparse.tabular._rows import Rows, Table, as_rows
from fsparse.tabular._targets import read_target
from fsparse.tabular._user_items import UserItems, advance, look, no_items
from fsparse.tabular._values import Bags

if TYPE_CHECKING:
    from fsparse.tabular._schema import Schema

State = Mapping[str, UserItems]  # of each history column
_OF_ROWS = "Correct the value, or leave such rows out with strict=False"
_REMEDY = f"{_OF_ROWS} (in the shell, --skip-bad-rows)."
_REMEDY_EACH = "Correct the value, or give none: None, or in a file an empty field."


class Parsed(NamedTuple):
    """Values as their columns read them."""

    columns: dict[str, Any]
    labels: Bags | None
    num_rows: int


def parse(
    function: str,
    schema: "Schema",
    table: Table,
    *,
    has_target: bool,
    strict: bool,
    report: Report,
) -> Parsed:
    """All columns of some rows, read; bad rows are left out if not ``strict``.

    Raises:
      ValueError: in the name of ``function``, at the first bad row, if ``strict``.
    """
    rows = as_rows(function, table, schema.sources(has_target=has_target))
    ignored = {*rows.columns}.difference(schema.sources(has_target=True))
    report.ignored_columns = tuple(sorted(ignored.union(report.ignored_columns)))
    parsed, bad = _read(schema, rows, has_target)
    bad.sort(key=lambda error: error[0])
    messages = [f"{rows.place(i)}: column {n!r} {what}" for i, n, what in bad]
    if strict and messages:
        remedy = _REMEDY if has_target else _REMEDY_EACH
        raise ValueError(f"{function}: {messages[0]}. {remedy}")
    if bad:
        dropped = {i for i, _, _ in bad}
        report.num_malformed += len(dropped)
        for message in messages:
            report.add(message)
        parsed, _ = _read(schema, rows.drop(dropped), has_target)
    report.num_examples += parsed.num_rows
    return parsed


def _read(
    schema: "Schema", rows: Rows, has_target: bool
) -> tuple[Parsed, list[tuple[int, str, str]]]:
    columns: dict[str, Any] = {}
    missing, errors = frozenset(schema.missing), []
    for name, column in schema.columns.items():
        columns[name], bad = column.read(name, rows, missing)
        errors += [(i, name, what) for i, what in bad]
    labels = None
    if has_target:
        labels, bad = read_target(schema.labels, schema.target, rows, missing)
        errors += [(i, schema.target, what) for i, what in bad]
    return Parsed(columns, labels, rows.num_rows), errors


def no_state(schema: "Schema") -> State:
    """The state before the first row."""
    return {n: no_items() for n, c in schema.columns.items() if isinstance(c, history)}


def features(
    schema: "Schema",
    statistics: Mapping[str, NumericStats],
    state: State,
    parsed: Parsed,
    report: Report,
) -> tuple[State, dict[str, list[SparseRows]]]:
    """The features of each column, and the state after the rows.

    Without labels, as in serving, no row sees another and the state stays.
    """
    later, parts = unscaled(schema, state, parsed, report)
    return later, parts | scaled(schema, statistics, parsed.columns)


def unscaled(
    schema: "Schema", state: State, parsed: Parsed, report: Report
) -> tuple[State, dict[str, list[SparseRows]]]:
    """Those of the columns that need no statistics."""
    later = dict(state)
    parts: dict[str, list[SparseRows]] = {}
    late = np.zeros(parsed.num_rows, bool)
    for name, column in schema.columns.items():
        value = parsed.columns[name]
        if isinstance(column, numerical):
            continue
        if isinstance(column, history):
            if parsed.labels is None:
                seen = look(state[name], value, column.last)
            else:
                later[name], seen = advance(state[name], value, column.last)
            late |= seen.is_late
            parts[name] = column.features(name, seen, schema.hashed_to)
        else:
            nothing = NumericStats()
            parts[name] = column.features(name, value, nothing, schema.hashed_to)
    report.num_late += int(np.count_nonzero(late))
    return later, parts


def scaled(
    schema: "Schema",
    statistics: Mapping[str, NumericStats],
    columns: Mapping[str, Any],
) -> dict[str, list[SparseRows]]:
    """The features of numerical columns."""
    return {
        name: column.features(name, columns[name], statistics[name], schema.hashed_to)
        for name, column in schema.columns.items()
        if isinstance(column, numerical)
    }
