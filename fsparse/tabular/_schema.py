"""A schema: which columns of a table are features, and which one is the target."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fsparse.data.rows import Dataset
from fsparse.tabular import _json
from fsparse.tabular._columns import (
    categorical,
    cross,
    multi_label,
    numerical,
    require,
    text,
    timestamp,
)
from fsparse.tabular._history import history
from fsparse.tabular._report import Report, reporting
from fsparse.tabular._rows import Table
from fsparse.tabular._targets import Target, binary, integer

if TYPE_CHECKING:
    from fsparse.tabular._fitted import FittedSchema

MAX_FEATURES = 2**18  # of a schema that leaves their number to the fit

Column = categorical | numerical | text | multi_label | timestamp | cross | history
KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (categorical, numerical, text, multi_label, timestamp, cross, history)
}
TARGETS: dict[str, Any] = {
    kind.__name__: kind for kind in (categorical, multi_label, binary, integer)
}


@dataclasses.dataclass(frozen=True)
class Schema:
    """How rows of a table become examples.

    Args:
      columns: the kind of each column that makes features. The name is that of a column
        of the table; for ``cross`` and ``history`` it is any name.
      target: the column of the labels.
      labels: their kind: ``categorical()``, ``multi_label()``, ``binary(positive)`` or
        ``integer()``.
      num_features: features are hashed to so many columns. None leaves it to the fit:
        a power of two, at least 8 times the features that it sees, from 2**12 to 2**18.
      missing: strings that mean that there is no value, beside None and NaN.

    Raises:
      TypeError: if a kind is none of those above.
      ValueError: if there is no column, the target is among the features, or
        ``num_features`` is out of range.

    Example:
      >>> schema = Schema({"color": categorical(), "size": numerical()}, target="kind")
      >>> rows = [
      ...     {"color": "red", "size": 2.5, "kind": "apple"},
      ...     {"color": "green", "size": None, "kind": "pear"},
      ... ]
      >>> fitted = schema.fit(rows)
      >>> fitted.label_names, fitted.encode(rows).features.lengths.tolist()
      (('apple', 'pear'), [3, 2])
    """

    columns: Mapping[str, Column]
    target: str
    labels: Target = dataclasses.field(default_factory=categorical)
    num_features: int | None = None
    missing: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "missing", tuple(self.missing))
        object.__setattr__(self, "columns", dict(self.columns))
        _require_kinds(self)
        require("Schema", bool(self.columns), "a column is required", self.columns)
        good = self.num_features is None or 1 <= self.num_features < 2**31 - 1
        size = "num_features must be in [1, 2**31 - 1)"
        require("Schema", good, size, self.num_features)
        for name, column in self.columns.items():
            if self.target in column.sources(name):
                raise ValueError(
                    f"Schema: features must not be made of the target {self.target!r}; "
                    f"got it in the column {name!r}. Take that column out."
                )

    @property
    def hashed_to(self) -> int:
        """The columns that features are hashed to, before the fit folds them."""
        return MAX_FEATURES if self.num_features is None else self.num_features

    def sources(self, *, has_target: bool) -> tuple[str, ...]:
        """The columns of a table that are read, each once; those of labels or not."""
        found: dict[str, None] = {}
        for name, column in self.columns.items():
            found |= dict.fromkeys(column.sources(name))
            if has_target and isinstance(column, history):
                found[column.item] = None
        return (*found, self.target) if has_target else tuple(found)

    def fit(
        self,
        data: Table | Iterable[Table],
        *,
        capacity_quantile: float = 1.0,
        strict: bool = True,
        report: Report | None = None,
    ) -> "FittedSchema":
        """Goes through the data once and finds what encoding needs.

        That is the labels, statistics of numerical columns, how much room an example
        needs, and the history of each user after the last row.

        Args:
          data: rows, as a list of dicts or a dict of columns, or a reader of a file:
            any iterable of such parts that is no list of dicts.
          capacity_quantile: the share of the examples that ``feature_capacity`` must
            have room for; the features that others have beyond it are dropped by
            encoding, and counted.
          strict: raise at the first bad row; otherwise such rows are left out.
          report: filled with counts. Without one, flaws are told in a ``UserWarning``.

        Returns:
          The fitted schema.

        Raises:
          ValueError: if there is no row, a column is missing, a row is bad and
            ``strict``, or an argument is out of range.
        """
        # The module needs this one: it can be imported only when this one is there.
        from fsparse.tabular._fit import fit

        with reporting("fit", report) as filled:
            return fit(self, data, capacity_quantile, strict, filled)

    def fit_encode(
        self,
        data: Table | Iterable[Table],
        *,
        capacity_quantile: float = 1.0,
        strict: bool = True,
        report: Report | None = None,
    ) -> tuple["FittedSchema", Dataset]:
        """The fitted schema, and the examples that it was fitted on, in one pass.

        As :meth:`fit`, and then :meth:`FittedSchema.encode_stream` of the same data, to
        the bit; but the data are read once, and all examples are held in memory.
        """
        from fsparse.tabular._fit import fit_encode

        with reporting("fit_encode", report) as filled:
            return fit_encode(self, data, capacity_quantile, strict, filled)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return {
            "target": self.target,
            "labels": _json.kind_to_dict(self.labels),
            "columns": {n: _json.kind_to_dict(c) for n, c in self.columns.items()},
            "num_features": self.num_features,
            "missing": list(self.missing),
        }

    def to_json(self) -> str:
        """Text to edit, for :meth:`from_json`."""
        lines = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        return f"{lines}\n"

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Schema":
        """The schema of a dict.

        Raises:
          ValueError: if a kind or a field is unknown, or the schema is a wrong one.
        """
        given = dict(found)
        columns = given.get("columns")
        if not isinstance(columns, dict):
            raise ValueError(
                "Schema.from_json: the key 'columns' must map names to kinds; got "
                f"{columns!r}."
            )
        given["columns"] = {
            name: _json.kind_from_dict(f"the column {name!r}", kind, KINDS)
            for name, kind in columns.items()
        }
        if "labels" in given:
            kind = given["labels"]
            given["labels"] = _json.kind_from_dict("labels", kind, TARGETS)
        _json.require_fields("the schema", given, cls)
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> "Schema":
        """The schema that :meth:`to_json` wrote, or somebody by hand.

        Raises:
          ValueError: if the text is no JSON, or says something that no schema does.
        """
        return cls.from_dict(_json.parse("Schema.from_json", text))


def _require_kinds(schema: Schema) -> None:
    for name, column in schema.columns.items():
        if not isinstance(column, Column):
            raise TypeError(
                f"Schema: the column {name!r} must have a kind, one of "
                f"{', '.join(KINDS)}; got {column!r}."
            )
    if not isinstance(schema.labels, Target):
        raise TypeError(
            f"Schema: labels must have a kind, one of {', '.join(TARGETS)}; got "
            f"{schema.labels!r}."
        )
