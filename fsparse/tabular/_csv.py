"""CSV files in parts, by Python's own parser: every value is text as it stands.

No type is guessed, so that a part does not depend on what other parts hold, and every
row has the number of the line that it begins on.
"""

import csv
import dataclasses
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice

import numpy as np

from fsparse.tabular._report import Report, reporting
from fsparse.tabular._rows import Rows

CHUNK_ROWS = 2**14


@dataclasses.dataclass(frozen=True)
class CsvReader:
    """A CSV file, read anew by each iteration; :func:`read_csv` makes one."""

    path: str | os.PathLike[str]
    columns: tuple[str, ...]  # of the header
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    chunk_rows: int = CHUNK_ROWS
    strict: bool = True
    report: Report | None = None

    def __iter__(self) -> Iterator[Rows]:
        """Parts of ``chunk_rows`` rows; the last one may have fewer."""
        with (
            reporting("read_csv", self.report) as report,
            _reading(self.path, self.encoding) as lines,
        ):
            _, _, _, first = next(_records(lines, self.delimiter, 1))
            while block := list(islice(lines.file, self.chunk_rows)):
                records = self._plain(block)
                if records is None:
                    break
                yield self._part(records, range(first, first + len(block)))
                first += len(block)
            yield from self._any(lines.after(block), first, report)

    def _plain(self, block: list[str]) -> list[list[str]] | None:
        """The records of lines that are one good record each; None of any others."""
        try:
            if not all(map(str.isascii, block)):
                "".join(block).encode("utf-8")
            records = list(csv.reader(block, delimiter=self.delimiter, strict=True))
        except (csv.Error, UnicodeEncodeError):
            return None
        is_plain = len(records) == len(block)
        return records if is_plain and {*map(len, records)} == {self._width} else None

    def _any(self, lines: "_Lines", first: int, report: Report) -> Iterator[Rows]:
        """The records of any lines, one by one: slower, but it knows where each is."""
        held: list[list[str]] = []
        numbers: list[int] = []
        for line, fields, error, _ in _records(lines, self.delimiter, first):
            if error or len(fields) != self._width:
                error = error or f"must have {self._width} fields; got {len(fields)}"
                self._leave_out(line, error, report)
                continue
            held.append(fields)
            numbers.append(line)
            if len(held) == self.chunk_rows:
                yield self._part(held, numbers)
                held, numbers = [], []
        if held:
            yield self._part(held, numbers)

    @property
    def _width(self) -> int:
        return len(self.columns)

    def _leave_out(self, line: int, error: str, report: Report) -> None:
        message = f"{os.fspath(self.path)}, line {line}: {error}"
        if self.strict:
            raise ValueError(f"read_csv: {message}. {_REMEDY}")
        report.num_malformed += 1
        report.add(message)

    def _part(self, records: list[list[str]], numbers: Sequence[int]) -> Rows:
        values = map(list, zip(*records, strict=True))
        named = dict(zip(self.columns, values, strict=True))
        return Rows(named, np.array(numbers), os.fspath(self.path), "line")


def read_csv(
    path: str | os.PathLike[str],
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    chunk_rows: int = CHUNK_ROWS,
    strict: bool = True,
    report: Report | None = None,
) -> CsvReader:
    r"""A reader of a CSV file with a header, for :meth:`Schema.fit` and its kin.

    Values are text; an empty one is missing for most schemas. A field with delimiters,
    quotes or line ends in it stands between double quotes. Empty lines are no rows. A
    file whose name ends in ``.gz`` is compressed.

    Args:
      path: the file.
      delimiter: between fields.
      encoding: of the text; a mark of the byte order is left out.
      chunk_rows: rows of a part. What is read does not depend on it.
      strict: raise at the first malformed row: one with too few or too many fields, bad
        quotes or bytes; otherwise such rows are left out.
      report: filled by each iteration. Without one, flaws are told in a
        ``UserWarning``.

    Raises:
      ValueError: if the file is empty or two columns have one name; while reading, at
        malformed rows, if ``strict``, and if compressed data is damaged.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "fruit.csv")
      ...     _ = path.write_text("color,kind\nred,apple\ngreen,pear\n")
      ...     [dict(rows.columns) for rows in read_csv(path)]
      [{'color': ['red', 'green'], 'kind': ['apple', 'pear']}]
    """
    if chunk_rows < 1:
        raise ValueError(f"read_csv: chunk_rows must be positive; got {chunk_rows}.")
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    with _reading(path, encoding) as lines:
        first = next(_records(lines, delimiter, 1), (1, [], None, 1))
    _, header, error, _ = first
    if error or not header:
        problem = error or "an empty file"
        raise ValueError(
            f"read_csv: {os.fspath(path)} must begin with the names of its columns; "
            f"got {problem}."
        )
    _require_distinct(path, header)
    names = tuple(header)
    return CsvReader(path, names, delimiter, encoding, chunk_rows, strict, report)


_REMEDY = "Correct the row, or leave such rows out with read_csv(..., strict=False)."


def _records(
    lines: "_Lines", delimiter: str, first: int
) -> Iterator[tuple[int, list[str], str | None, int]]:
    """Line, fields, what is wrong and the next line, of records that are not empty."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = first + reader.line_num
        try:
            for fields in reader:
                later = first + reader.line_num
                if fields:
                    yield line, fields, lines.take_error(), later
                line = later
            return
        except csv.Error as e:
            yield line, [], str(e), first + reader.line_num


class _Lines:
    """Lines of text; one with bytes that are none leaves an error behind."""

    def __init__(self, file: Iterator[str], encoding: str) -> None:
        self.file, self._encoding = file, encoding
        self._error: str | None = None

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            if not line.isascii():
                self._check(line)
            yield line

    def after(self, block: list[str]) -> "_Lines":
        """The same lines, with some before them."""
        return _Lines(chain(block, self.file), self._encoding)

    def take_error(self) -> str | None:
        """What was wrong since the last call."""
        error, self._error = self._error, None
        return error

    def _check(self, line: str) -> None:
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as e:
            byte = ord(line[e.start]) & 0xFF
            self._error = (
                f"must be text in {self._encoding}; got the byte 0x{byte:02x}. Pass "
                "the encoding of the file, such as encoding='latin-1'"
            )


@contextmanager
def _reading(path: str | os.PathLike[str], encoding: str) -> Iterator[_Lines]:
    open_text = gzip.open if os.fspath(path).endswith(".gz") else open
    options = {"encoding": encoding, "errors": "surrogateescape", "newline": ""}
    with open_text(path, "rt", **options) as file:  # type: ignore[call-overload]
        try:
            yield _Lines(file, encoding)
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise ValueError(
                f"read_csv: {os.fspath(path)} must hold gzip data to its end; got the "
                f"error {e!r}. Fetch the file again."
            ) from e
        except UnicodeError as e:
            raise ValueError(
                f"read_csv: {os.fspath(path)} must be text in {encoding}; got the "
                f"error {e}. Pass the encoding of the file."
            ) from e


def _require_distinct(path: str | os.PathLike[str], names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            places = [i + 1 for i, other in enumerate(names) if other == name]
            raise ValueError(
                f"read_csv: {os.fspath(path)} must have distinct names of columns; got "
                f"{name!r} for the columns {places}. Rename all but one."
            )
