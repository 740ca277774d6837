"""Rows of a table, column by column, and where each of them stands in its source."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np

from fsparse.data.rows import I64


class Rows(NamedTuple):
    """``m`` rows of a table."""

    columns: Mapping[str, Sequence[Any]]  # m values each
    numbers: I64  # i64[m], where each row stands
    source: str = "rows"
    unit: str = "row"  # what the numbers count

    @property
    def num_rows(self) -> int:
        """``m``."""
        return len(self.numbers)

    def place(self, index: int) -> str:
        """The place of a row, for messages."""
        return f"{self.source}, {self.unit} {self.numbers[index]}"

    def drop(self, index: Iterable[int]) -> "Rows":
        """The rows that are not at ``index``."""
        dropped = set(index)
        kept = [i for i in range(self.num_rows) if i not in dropped]
        columns = {n: [v[i] for i in kept] for n, v in self.columns.items()}
        return self._replace(columns=columns, numbers=self.numbers[kept])


Table = Rows | Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]


def as_rows(function: str, table: Table, names: Sequence[str]) -> Rows:
    """The rows of a chunk, of a mapping of columns, or of a list of mappings.

    Raises:
      TypeError: if it is none of them.
      ValueError: in the name of ``function``, if a column of ``names`` is missing, or
        columns differ in their length.
    """
    if isinstance(table, Rows):
        rows = table
    elif isinstance(table, Mapping):
        rows = _from_columns(function, table)
    elif isinstance(table, Sequence) and not isinstance(table, str | bytes):
        rows = _from_mappings(function, cast(Sequence[Any], table), names)
    else:
        raise TypeError(
            f"{function}: rows must be a list of dicts, a dict of columns, or a part "
            f"of a reader; got {type(table).__name__}."
        )
    require_columns(function, rows.source, list(rows.columns), names)
    return rows


def require_columns(
    function: str, source: str, found: Sequence[str], names: Sequence[str]
) -> None:
    """Nothing, if all ``names`` are among the columns found.

    Raises:
      ValueError: in the name of ``function``, with the first that is not.
    """
    for name in names:
        if name not in found:
            close = difflib.get_close_matches(name, list(found), 1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"{function}: {source} must have the column {name!r}; got "
                f"{', '.join(map(repr, found)) or 'no column'}. {hint}Rename the "
                "column, or take it out of the schema."
            )


def _from_columns(function: str, table: Mapping[str, Sequence[Any]]) -> Rows:
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{function}: columns must have one value for each row; got the lengths "
            f"{lengths}."
        )
    count = next(iter(lengths.values()), 0)
    columns = {name: _to_list(values) for name, values in table.items()}
    return Rows(columns, np.arange(count))


def _from_mappings(
    function: str, table: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Rows:
    for i, row in enumerate(table):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"{function}: row {i} must map columns to values; got "
                f"{type(row).__name__}."
            )
        for name in names:
            if name not in row:
                raise ValueError(
                    f"{function}: row {i} must have the column {name!r}; got "
                    f"{', '.join(map(repr, row)) or 'no column'}. Give it the value "
                    "None where it is not known."
                )
    found = dict.fromkeys(chain(names, chain.from_iterable(table)))
    columns = {name: [row.get(name) for row in table] for name in found}
    return Rows(columns, np.arange(len(table)))


def _to_list(values: Sequence[Any]) -> list[Any]:
    """Python's own values: those of numpy and its kin do not hash and print as they."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def parts_of(data: Table | Iterable[Table]) -> Iterable[Table]:
    """The parts of a reader; one table is one part."""
    if isinstance(data, Rows | Mapping):
        return [data]
    if isinstance(data, Sequence) and all(isinstance(d, Mapping) for d in data[:1]):
        return [cast(Table, data)]
    return cast(Iterable[Table], data)
