"""A fitted schema encodes rows, is saved with the model, and goes on after the fit."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fsparse.data.rows import I64, Dataset, SparseRows, clip, concatenate
from fsparse.tabular import _json
from fsparse.tabular._bags import add_rows, ragged
from fsparse.tabular._columns import NumericStats
from fsparse.tabular._encode import Parsed, State, features, no_state, parse
from fsparse.tabular._report import Report, reporting
from fsparse.tabular._rows import Table, parts_of
from fsparse.tabular._schema import Schema
from fsparse.tabular._targets import Labels, encode_labels
from fsparse.tabular._user_items import UserItems, is_whole, no_items


@dataclasses.dataclass(frozen=True, eq=False)
class FittedSchema:
    """What :meth:`Schema.fit` found.

    ``label_counts`` says how many rows of the fit have each label, and ``num_features``
    how many columns the features have. ``feature_capacity`` and ``label_capacity`` are
    the room that an example needs in a batch. ``state`` holds what each user met up to
    the last row of the fit, for ``history`` columns: pass it to encode rows that come
    after those; without it the history begins with the rows given.
    """

    schema: Schema
    statistics: Mapping[str, NumericStats]
    labels: Labels
    label_counts: I64  # i64[num_labels]
    num_features: int
    feature_capacity: int
    label_capacity: int
    num_rows: int
    state: State

    @property
    def num_labels(self) -> int:
        """Columns of the labels."""
        return self.labels.num_labels

    @functools.cached_property
    def label_names(self) -> tuple[str, ...]:
        """The name of each label, in the order of their ids."""
        return self.labels.names or tuple(map(str, range(self.num_labels)))

    def encode(
        self,
        rows: Table,
        *,
        state: State | None = None,
        strict: bool = True,
        report: Report | None = None,
    ) -> Dataset:
        """The examples of some rows.

        Features are hashed, so that no value is unknown. Labels that the fit did not
        see are dropped, their rows kept, and both counted. Features beyond
        ``feature_capacity`` are dropped, those of the smallest weight first.

        Args:
          rows: a list of dicts, a dict of columns, or a part of a reader.
          state: what users met before; nothing where it is left out.
          strict: raise at the first bad row; otherwise such rows are left out.
          report: filled with counts. Without one, flaws are told in a ``UserWarning``.

        Raises:
          ValueError: if a column is missing, or a row is bad and ``strict``; the
            message names column, row and remedy.
        """
        before = no_state(self.schema) if state is None else state
        with reporting("encode", report) as filled:
            return self._encode("encode", before, rows, strict, filled)[1]

    def encode_with(
        self,
        state: State,
        rows: Table,
        *,
        strict: bool = True,
        report: Report | None = None,
    ) -> tuple[State, Dataset]:
        """The state after the rows, and their examples; otherwise as :meth:`encode`.

        The state that is given stays what it is. ``fitted.state`` is the one after the
        rows of the fit.
        """
        with reporting("encode_with", report) as filled:
            return self._encode("encode_with", state, rows, strict, filled)

    def encode_stream(
        self,
        data: Table | Iterable[Table],
        *,
        state: State | None = None,
        strict: bool = True,
        report: Report | None = None,
    ) -> Iterator[Dataset]:
        """The examples of a reader, part by part, for files larger than memory.

        They do not depend on how the reader parts its rows. Otherwise as
        :meth:`encode`; a warning is given at the end.
        """
        held = no_state(self.schema) if state is None else state
        with reporting("encode_stream", report) as filled:
            for rows in parts_of(data):
                held, dataset = self._encode(
                    "encode_stream", held, rows, strict, filled
                )
                yield dataset

    def encode_features(
        self,
        data: Table | Iterable[Table],
        *,
        state: State | None = None,
        report: Report | None = None,
    ) -> SparseRows:
        """The features of rows without a target, for serving; one for each row given.

        Args:
          data: rows, as for :meth:`encode`, or a reader. The target is not read, nor
            are the items of a history.
          state: what users met before; that after the fit where it is left out.
          report: as for :meth:`encode`.

        Raises:
          ValueError: as :meth:`encode` does; a bad row is never left out.
        """
        before = self.state if state is None else state
        found = [ragged([], np.zeros(0, np.int32), self.num_features)]
        with reporting("encode_features", report) as filled:
            for rows in parts_of(data):
                parsed = self._parse("encode_features", rows, filled)
                found.append(self._features(before, parsed, filled)[1])
        return concatenate(found)

    def encode_without_each(
        self, row: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], SparseRows]:
        """The features of a row, and of the same row without each of the columns.

        Returns:
          The names of the ``c`` columns, and ``1 + c`` rows: first that of
          :meth:`encode_features`, then those without the first column, the second...
        """
        n, report = self.num_features, Report()
        parsed = self._parse("encode_without_each", [row], report)
        _, parts = features(self.schema, self.statistics, self.state, parsed, report)
        flat = [(name, rows) for name, part in parts.items() for rows in part]
        kept = [[rows for name, rows in flat if name != out] for out in (None, *parts)]
        every = concatenate([add_rows(rows, 1, n) for rows in kept])
        return tuple(parts), clip(every, self.feature_capacity)[0]

    def check_model(self, *, num_features: int, num_labels: int) -> None:
        """Nothing, if a model of these sizes can have been trained on these examples.

        Raises:
          ValueError: with the first size that differs.
        """
        sizes = {"num_features": num_features, "num_labels": num_labels}
        for name, got in sizes.items():
            mine = getattr(self, name)
            if got != mine:
                raise ValueError(
                    f"FittedSchema: the model must have {name}={mine}; got {got}. Load "
                    "the schema that was saved with the model, or train another model."
                )

    def to_json(self) -> str:
        """Text with a version and a checksum, for :meth:`from_json`."""
        return _json.seal(self._body())

    @property
    def fingerprint(self) -> str:
        """A checksum: equal for schemas that encode alike."""
        return _json.checksum(self._body())

    @classmethod
    def from_json(cls, text: str) -> "FittedSchema":
        """What :meth:`to_json` wrote; it encodes the same rows to the same examples.

        Raises:
          ValueError: if the text is something else, of another version, or damaged.
        """
        try:
            return cls._from_body(_json.unseal(text))
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(
                "FittedSchema.from_json: the body must be that of a fitted schema; got "
                f"the error {e!r}."
            ) from e

    @classmethod
    def _from_body(cls, body: Mapping[str, Any]) -> "FittedSchema":
        return cls(
            Schema.from_dict(body["schema"]),
            {
                name: NumericStats(mean, scale, tuple(edges))
                for name, (mean, scale, edges) in body["statistics"].items()
            },
            Labels(tuple(body["names"]), body["num_labels"], tuple(body["negatives"])),
            _json.array_from_text(body["label_counts"], np.int64),
            body["num_features"],
            body["feature_capacity"],
            body["label_capacity"],
            body["num_rows"],
            {name: _state_from_dict(found) for name, found in body["state"].items()},
        )

    def _body(self) -> dict[str, Any]:
        return {
            "schema": self.schema.to_dict(),
            "statistics": {n: list(found) for n, found in self.statistics.items()},
            "names": list(self.labels.names),
            "num_labels": self.num_labels,
            "negatives": list(self.labels.negatives),
            "label_counts": _json.array_to_text(self.label_counts),
            "num_features": self.num_features,
            "feature_capacity": self.feature_capacity,
            "label_capacity": self.label_capacity,
            "num_rows": self.num_rows,
            "state": {n: _state_to_dict(items) for n, items in self.state.items()},
        }

    def _encode(
        self, function: str, state: State, rows: Table, strict: bool, report: Report
    ) -> tuple[State, Dataset]:
        parsed = parse(
            function, self.schema, rows, has_target=True, strict=strict, report=report
        )
        assert parsed.labels is not None
        later, found = self._features(state, parsed, report)
        labels, unseen = encode_labels(self.schema.labels, self.labels, parsed.labels)
        report.num_unseen_labels += unseen
        lost = (labels.lengths == 0) & (parsed.labels.lengths > 0)
        report.num_unlabelled += int(lost.sum())
        return later, Dataset(found, labels)

    def _parse(self, function: str, rows: Table, report: Report) -> Parsed:
        """Rows without a target, none of which is left out."""
        return parse(
            function, self.schema, rows, has_target=False, strict=True, report=report
        )

    def _features(
        self, state: State, parsed: Parsed, report: Report
    ) -> tuple[State, SparseRows]:
        later, parts = features(self.schema, self.statistics, state, parsed, report)
        flat = [rows for column in parts.values() for rows in column]
        added = add_rows(flat, parsed.num_rows, self.num_features)
        rows, clipped = clip(added, self.feature_capacity)
        report.num_clipped += clipped.entries
        return later, rows


def _state_to_dict(items: UserItems) -> dict[str, str]:
    return {n: _json.array_to_text(a) for n, a in items._asdict().items()}


def _state_from_dict(found: Mapping[str, str]) -> UserItems:
    state = UserItems(
        **{
            name: _json.array_from_text(found[name], array.dtype)
            for name, array in no_items()._asdict().items()
        }
    )
    if not is_whole(state):
        raise ValueError(
            "FittedSchema.from_json: the state must hold sorted users and their "
            "items; got another one. Take the text from the model anew."
        )
    return state
