"""Users' own files of clicks and ratings: Criteo, Avazu, MovieLens, as fields of ids.

Each field of an example becomes one id, hashed from its value, and one weight. A name's
weight is 1; a number has the same id in all examples, and its logarithm as the weight.
The files are read a chunk at a time; those whose name ends in ``.gz`` are compressed.
"""

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsparse.data.dense_datasets import hash_values
from fsparse.data.rows import F32, I32

F64 = NDArray[np.float64]
_CHUNK_ROWS = 2**15
_LEAST_LIKED = 4.0  # stars
_ENCODING = "latin-1"  # any bytes
_SEPARATORS = ("::", "\t", ",")


class Clicks(NamedTuple):
    """Examples: row ``r`` of all three."""

    ids: I32  # i32[m, fields], in [0, num_features)
    weights: F32  # f32[m, fields]
    labels: I32  # i32[m], 0 or 1


class ClickFormat(NamedTuple):
    """The columns of a kind of file, in their order where it has no header."""

    columns: tuple[str, ...]
    label: str
    numbers: tuple[str, ...]
    names: tuple[str, ...]


def _numbered(letter: str, first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{letter}{i}" for i in range(first, last + 1))


_CRITEO = _numbered("I", 1, 13), _numbered("C", 1, 26)
_AVAZU = (
    *("hour", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
    *("app_id", "app_domain", "app_category", "device_id", "device_ip"),
    *("device_model", "device_type", "device_conn_type", *_numbered("C", 14, 21)),
)
_RATING = ("userId", "movieId", "rating", "timestamp")
FORMATS = {
    "criteo": ClickFormat(("label", *_CRITEO[0], *_CRITEO[1]), "label", *_CRITEO),
    "avazu": ClickFormat(("id", "click", *_AVAZU), "click", (), _AVAZU),
    "movielens": ClickFormat(_RATING, "rating", (), _RATING[:2]),
}


def stream_clicks(
    path: str | os.PathLike[str],
    kind: str,
    *,
    num_features: int = 2**20,
    seed: int = 0,
    chunk_rows: int = _CHUNK_ROWS,
) -> Iterator[Clicks]:
    r"""The examples of a file in parts, for files larger than memory.

    Columns are separated by commas, tabs or ``::``, as the first line has them, without
    quotes. A first line that names the label is a header: columns may then have any
    order, and others are ignored. Fields are the numbers, then the names:

    * ``"criteo"``: ``label``, ``I1`` to ``I13``, ``C1`` to ``C26``. A number is
      weighted by ``sign(x) log(1 + |x|)``.
    * ``"avazu"``: ``click``, and all but ``id``; of ``hour`` the hour of the day.
    * ``"movielens"``: ``userId`` and ``movieId`` of ratings; the label is 1 from four
      stars on.

    A missing number is a value of its own, with the weight 1; so is a missing name.

    Args:
      path: the file.
      kind: of :data:`FORMATS`.
      num_features: ids to hash to; equal values of different fields differ.
      seed: chooses another hash; in ``[0, 2**64)``.
      chunk_rows: examples in a part.

    Yields:
      :class:`Clicks`, in the file's order.

    Raises:
      ValueError: if an option is out of range, the file is empty, or a line is
        malformed: it is named by its number, its column and what to do.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "ratings.csv")
      ...     _ = path.write_text("userId,movieId,rating,timestamp\n7,9,4.5,0\n")
      ...     (part,) = stream_clicks(path, "movielens", num_features=100)
      >>> part.ids.shape, part.labels.tolist()
      ((1, 2), [1])
    """
    _require_options(kind, num_features, chunk_rows)
    with _reading(path) as file:
        numbered = enumerate(file, 1)
        reader = _Reader(Path(path), FORMATS[kind], num_features, seed)
        first = reader.open(next(numbered, (1, ""))[1])
        lines = itertools.chain(first, numbered)
        while chunk := list(itertools.islice(lines, chunk_rows)):
            yield reader.parse(chunk)


def load_clicks(
    path: str | os.PathLike[str],
    kind: str,
    *,
    num_rows: int | None = None,
    num_features: int = 2**20,
    seed: int = 0,
) -> Clicks:
    """The first examples of a file, with the logarithms of numbers standardised.

    That is, to a mean of 0 and a variance of 1 over the examples that have the number.

    Args:
      path: the file.
      kind: as for :func:`stream_clicks`, as are the other arguments.
      num_rows: so many examples at most; None for all.
      num_features: ids to hash to.
      seed: chooses another hash.

    Raises:
      ValueError: as :func:`stream_clicks`, and if ``num_rows`` is not positive.

    Example:
      >>> load_clicks("train.txt", "criteo", num_rows=1000)  # doctest: +SKIP
    """
    if num_rows is not None and num_rows < 1:
        raise ValueError(f"load_clicks: num_rows must be positive; got {num_rows}.")
    parts, left = [], num_rows
    chunk = min(_CHUNK_ROWS, num_rows or _CHUNK_ROWS)
    options = {"num_features": num_features, "seed": seed, "chunk_rows": chunk}
    for part in stream_clicks(path, kind, **options):
        ids, weights, labels = part
        parts.append(Clicks(ids[:left], weights[:left], labels[:left]))
        left = None if left is None else left - len(parts[-1].labels)
        if left == 0:
            break
    whole = Clicks(*map(np.concatenate, zip(*parts, strict=True)))
    for field in range(len(FORMATS[kind].numbers)):
        _standardise(whole, field, _ids_of_number(field, num_features, seed)[0])
    return whole


# ---- lines to fields ----------------------------------------------------------------


class _Reader:
    """Lines to examples; knows what to say where that fails."""

    def __init__(
        self, path: Path, form: ClickFormat, num_features: int, seed: int
    ) -> None:
        self.path, self.form = path, form
        self.num_features, self.seed = num_features, seed
        self.columns: Sequence[str] = form.columns
        self.separator = ","

    def open(self, line: str) -> list[tuple[int, str]]:
        """Takes the first line for a header, or gives it back as an example."""
        if not line:
            raise ValueError(
                f"stream_clicks: {self.path} must have lines; it is empty."
            )
        self.separator = next((s for s in _SEPARATORS if s in line), ",")
        found = line.rstrip("\r\n").split(self.separator)
        if self.form.label not in found:
            return [(1, line)]
        wanted = (self.form.label, *self.form.numbers, *self.form.names)
        if missing := [name for name in wanted if name not in found]:
            raise ValueError(
                f"stream_clicks: {self.path}:1 must name the columns "
                f"{', '.join(missing)}; got {', '.join(found)}. Rename them, or choose "
                f"another kind of {sorted(FORMATS)}."
            )
        self.columns = found
        return []

    def parse(self, lines: list[tuple[int, str]]) -> Clicks:
        """A part."""
        rows = [self.split(*line) for line in lines]
        at = {
            name: list(column)
            for name, column in zip(self.columns, zip(*rows, strict=True), strict=True)
        }
        numbers = [line[0] for line in lines]
        labels = self.labels(at[self.form.label], numbers)
        fields = [
            self.number(field, name, at[name], numbers)
            for field, name in enumerate(self.form.numbers)
        ]
        for field, name in enumerate(self.form.names, len(fields)):
            fields.append(self.name(field, name, at[name]))
        ids, weights = zip(*fields, strict=True)
        return Clicks(np.stack(ids, axis=1), np.stack(weights, axis=1), labels)

    def split(self, number: int, line: str) -> list[str]:
        """The columns of a line."""
        values = line.rstrip("\r\n").split(self.separator)
        if len(values) == len(self.columns):
            return values
        raise ValueError(
            f"stream_clicks: {self.path}:{number} must have {len(self.columns)} "
            f"columns ({self.columns[0]}, ..., {self.columns[-1]}), separated by "
            f"{self.separator!r}; got {len(values)}. Mend or remove the line."
        )

    def labels(self, values: list[str], numbers: list[int]) -> I32:
        """0 or 1; of ratings, whether it was liked."""
        is_rating = self.form.label == "rating"
        found = self.floats(self.form.label, values, numbers)
        is_fit = ~np.isnan(found) if is_rating else (found == 0) | (found == 1)
        if not is_fit.all():
            bad = int(np.argmin(is_fit))
            what = "a number" if is_rating else "0 or 1"
            raise self.flaw(numbers[bad], self.form.label, what, values[bad])
        return (found >= _LEAST_LIKED if is_rating else found).astype(np.int32)

    def number(
        self, field: int, name: str, values: list[str], numbers: list[int]
    ) -> tuple[I32, F32]:
        """One id, with the logarithm; another where it is missing."""
        found = self.floats(name, values, numbers)
        is_there = ~np.isnan(found)
        own, missing = _ids_of_number(field, self.num_features, self.seed)
        weights = np.where(is_there, np.sign(found) * np.log1p(np.abs(found)), 1)
        ids = np.where(is_there, own, missing)
        return ids.astype(np.int32), weights.astype(np.float32)

    def name(self, field: int, name: str, values: list[str]) -> tuple[I32, F32]:
        """An id for each value."""
        if name == "hour":
            values = [value[-2:] for value in values]
        each, place = np.unique(np.array(values), return_inverse=True)
        codes = [zlib.crc32(v.encode(_ENCODING)) for v in each.tolist()]
        keys = np.array(codes, np.int64)
        ids = hash_values(keys, field, self.num_features, self.seed)
        return ids[place], np.ones(len(values), np.float32)

    def floats(self, name: str, values: list[str], numbers: list[int]) -> F64:
        """Numbers; NaN where they are missing."""
        found = np.full(len(values), np.nan)
        for i, value in enumerate(values):
            try:
                found[i] = float(value) if value else np.nan
            except ValueError:
                raise self.flaw(numbers[i], name, "a number", value) from None
        is_fit = np.isfinite(found) | np.array([not value for value in values], bool)
        if not is_fit.all():
            bad = int(np.argmin(is_fit))
            raise self.flaw(numbers[bad], name, "finite", values[bad])
        return found

    def flaw(self, number: int, column: str, what: str, got: str) -> ValueError:
        return ValueError(
            f"stream_clicks: {self.path}:{number}, column {column}, must be {what}; "
            f"got {got!r}. Mend or remove the line."
        )


def _ids_of_number(field: int, num_features: int, seed: int) -> tuple[int, int]:
    """Of all its values, and of those that are missing."""
    own = int(hash_values(np.zeros(1, np.int64), field, num_features, seed)[0])
    return own, (own + 1) % num_features


def _standardise(clicks: Clicks, field: int, own: int) -> None:
    """In place, where the number is there."""
    is_there = clicks.ids[:, field] == own
    found = clicks.weights[is_there, field].astype(np.float64)
    if len(found):
        spread = found.std() or 1.0
        clicks.weights[is_there, field] = (found - found.mean()) / spread


def _reading(path: str | os.PathLike[str]) -> IO[str]:
    opened = gzip.open if os.fspath(path).endswith(".gz") else open
    return opened(path, "rt", encoding=_ENCODING, newline="\n")


def _require_options(kind: str, num_features: int, chunk_rows: int) -> None:
    if kind not in FORMATS:
        raise ValueError(
            f"stream_clicks: kind must be one of {sorted(FORMATS)}; got {kind!r}."
        )
    if num_features < 2 or chunk_rows < 1:
        raise ValueError(
            "stream_clicks: num_features must be at least 2 and chunk_rows positive; "
            f"got {num_features=}, {chunk_rows=}."
        )
