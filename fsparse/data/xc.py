"""The text format of the extreme classification repository, whole or in chunks.

The first line gives ``num_examples num_features num_labels``, every other line is one
example, ``label,label id:value id:value``. A line without labels starts with a space.
An empty line is no example. A file whose name ends in ``.gz`` is compressed.

Real files have flaws. A malformed line, which includes ids out of range and values that
are not finite, is left out, counted, and named in a :class:`Report` by file and number;
``strict=True`` raises at the first one instead.
"""

import contextlib
import dataclasses
import gzip
import os
import warnings
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from fsparse import _ffi
from fsparse.data.rows import (
    F32,
    Dataset,
    SparseRows,
    check_rows,
    concatenate,
    from_lists,
    take,
)

CHUNK_BYTES = 2**24
MAX_MESSAGES = 10
_MAX_HEADER_BYTES = 1024
_ROWS_PER_WRITE = 4096


class XcHeader(NamedTuple):
    """What a file says of itself in its first line."""

    num_examples: int
    num_features: int
    num_labels: int


@dataclasses.dataclass
class Report:
    """What was read of a file, and what was wrong with it; filled while reading.

    It tells of the whole file when the file has been read to its end. Several files may
    be read with one report.
    """

    num_declared: int = 0  # examples by the header
    num_examples: int = 0  # examples read
    num_malformed: int = 0  # lines left out
    messages: list[str] = dataclasses.field(default_factory=list)  # the first few

    @property
    def num_missing(self) -> int:
        """Lines that the file lacks by its header; negative if it has more."""
        return self.num_declared - self.num_examples - self.num_malformed

    @property
    def is_clean(self) -> bool:
        """Whether every line was read and the header told their number."""
        return not (self.num_malformed or self.num_missing)


def read_xc_header(path: str | os.PathLike[str]) -> XcHeader:
    """The sizes in the first line of a file.

    Raises:
      ValueError: if the file is empty, or its first line is something else.

    Example:
      >>> import tempfile
      >>> rows = from_lists([[0, 2], [1]], 3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_xc(f"{folder}/two.txt", Dataset(rows, rows))
      ...     read_xc_header(f"{folder}/two.txt")
      XcHeader(num_examples=2, num_features=3, num_labels=3)
    """
    with _reading(path) as file:
        return _parse_header(path, file.readline(_MAX_HEADER_BYTES))


def stream_xc(
    path: str | os.PathLike[str],
    *,
    chunk_bytes: int = CHUNK_BYTES,
    strict: bool = False,
    report: Report | None = None,
) -> Iterator[Dataset]:
    """The examples of a file in parts, for files larger than memory.

    Args:
      path: the file.
      chunk_bytes: about how much text makes one part.
      strict: raise at the first malformed line, and if the header tells another number
        of examples.
      report: filled while the file is read. Without one, flaws are told at the end in a
        ``UserWarning``.

    Yields:
      Parts of the data set in the file's order, with the columns the header declares.

    Raises:
      ValueError: if the header is malformed, compressed data is cut short or damaged,
        or, if ``strict``, at any flaw.

    Example:
      >>> import tempfile
      >>> rows = from_lists([[0, 2], [1]], 3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_xc(f"{folder}/two.txt", Dataset(rows, rows))
      ...     for part in stream_xc(f"{folder}/two.txt", chunk_bytes=1):
      ...         print(part.features.ids)
      [0 2]
      [1]
    """
    if chunk_bytes < 1:
        raise ValueError(f"stream_xc: chunk_bytes must be positive; got {chunk_bytes}.")
    header = read_xc_header(path)
    filled = Report() if report is None else report
    filled.num_declared += header.num_examples

    def generate() -> Iterator[Dataset]:
        for first_line, chunk in _read_chunks(path, chunk_bytes):
            yield _parse_chunk(path, chunk, first_line, header, strict, filled)
        if strict and filled.num_missing:
            raise ValueError(f"stream_xc: {_count_message(path, filled)}")
        if report is None and not filled.is_clean:
            warnings.warn(_summary(path, filled), stacklevel=2)

    return generate()


def load_xc(
    path: str | os.PathLike[str], *, strict: bool = False
) -> tuple[Dataset, Report]:
    """All examples of a file, and what was wrong with it.

    Args:
      path: the file.
      strict: raise at the first flaw.

    Raises:
      ValueError: as :func:`stream_xc` does.

    Example:
      >>> import tempfile
      >>> rows = from_lists([[0, 2], [1]], 3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_xc(f"{folder}/two.txt.gz", Dataset(rows, rows))
      ...     dataset, report = load_xc(f"{folder}/two.txt.gz")
      >>> dataset.labels.ids, report.is_clean
      (array([0, 2, 1], dtype=int32), True)
    """
    header, report = read_xc_header(path), Report()
    parts = list(stream_xc(path, strict=strict, report=report))
    features = [from_lists([], header.num_features), *(p.features for p in parts)]
    labels = [from_lists([], header.num_labels), *(p.labels for p in parts)]
    return Dataset(concatenate(features), concatenate(labels)), report


def write_xc(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Writes a file that :func:`load_xc` reads back bit for bit.

    Raises:
      ValueError: if the data set breaks the promises of its rows, or if a label has a
        value other than 1, which the format has no room for.

    Example:
      >>> import pathlib, tempfile
      >>> rows = from_lists([[0, 2], [1]], 3)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "two.txt")
      ...     write_xc(path, Dataset(rows, rows))
      ...     path.read_text().splitlines()
      ['2 3 3', '0,2 0:1.0 2:1.0', '1 1:1.0']
    """
    features = check_rows("write_xc", dataset.features)
    labels = check_rows("write_xc", dataset.labels)
    if features.num_rows != labels.num_rows or np.any(labels.values != 1):
        raise ValueError(
            "write_xc: labels must have as many rows as features and the value 1; got "
            f"{labels.num_rows} and {features.num_rows} rows, "
            f"{np.count_nonzero(labels.values != 1)} labels of another value."
        )
    m = features.num_rows
    with _open(path, "wb") as file:
        file.write(f"{m} {features.num_columns} {labels.num_columns}\n".encode())
        for start in range(0, m, _ROWS_PER_WRITE):
            index = np.arange(start, min(start + _ROWS_PER_WRITE, m))
            file.write(_format(take(features, index), take(labels, index)))


def _open(path: str | os.PathLike[str], mode: str = "rb") -> IO[bytes]:
    if os.fspath(path).endswith(".gz"):
        return gzip.open(path, mode, compresslevel=6)  # type: ignore[return-value]
    return open(path, mode)


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    with _open(path) as file:
        try:
            yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise ValueError(
                f"xc: {path} must hold gzip data to its end; got the error {e!r}. "
                "Fetch the file again."
            ) from e


def _parse_header(path: str | os.PathLike[str], line: bytes) -> XcHeader:
    if not line:
        raise ValueError(f"read_xc_header: {path} must not be empty.")
    fields = line.split()
    if len(fields) != 3 or not all(field.isdigit() for field in fields):
        raise ValueError(
            f"read_xc_header: {path}:1 must be 'num_examples num_features num_labels'; "
            f"got {line[:60]!r}. Put that line before the examples."
        )
    header = XcHeader(*map(int, fields))
    if max(header.num_features, header.num_labels) >= 2**31 - 1:
        raise ValueError(
            f"read_xc_header: {path}:1 must have num_features and num_labels in "
            f"[0, 2**31 - 1), as ids are int32; got {header.num_features} and "
            f"{header.num_labels}."
        )
    return header


def _read_chunks(
    path: str | os.PathLike[str], chunk_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Whole lines of at least ``chunk_bytes``, and the number of the first one."""
    with _reading(path) as file:
        line = 1 + file.readline().count(b"\n")
        while chunk := file.read(chunk_bytes) + file.readline():
            yield line, chunk
            line += chunk.count(b"\n")


def _parse_chunk(
    path: str | os.PathLike[str],
    chunk: bytes,
    first_line: int,
    header: XcHeader,
    strict: bool,
    report: Report,
) -> Dataset:
    """The examples of some lines; what is wrong with them is added to the report."""
    label_indptr, label_ids, indptr, ids, values, errors = _ffi.parse_xc(
        chunk, header.num_features, header.num_labels, first_line
    )
    messages = [f"{path}:{line}: {message}" for line, message in errors]
    if strict and messages:
        raise ValueError(f"stream_xc: {messages[0]}.")
    report.num_examples += len(indptr) - 1
    report.num_malformed += len(messages)
    report.messages += messages[: MAX_MESSAGES - len(report.messages)]
    ones = np.ones(len(label_ids), np.float32)
    return Dataset(
        SparseRows(indptr, ids, values, header.num_features),
        SparseRows(label_indptr, label_ids, ones, header.num_labels),
    )


def _count_message(path: str | os.PathLike[str], report: Report) -> str:
    return (
        f"{path}:1 must declare the number of examples; got {report.num_declared} for "
        f"{report.num_examples + report.num_malformed} lines."
    )


def _summary(path: str | os.PathLike[str], report: Report) -> str:
    lines = [f"stream_xc: {report.num_malformed} malformed lines are left out."]
    lines += report.messages
    if report.num_missing:
        lines.append(_count_message(path, report))
    return "\n".join(lines)


def _format(features: SparseRows, labels: SparseRows) -> bytes:
    entries = [
        f"{i}:{v}"
        for i, v in zip(features.ids.tolist(), _shortest(features.values), strict=True)
    ]
    names = list(map(str, labels.ids.tolist()))
    ends = features.indptr.tolist()
    label_ends = labels.indptr.tolist()
    lines = [
        ",".join(names[label_ends[r] : label_ends[r + 1]])
        + " "
        + " ".join(entries[ends[r] : ends[r + 1]])
        + "\n"
        for r in range(features.num_rows)
    ]
    return "".join(lines).encode()


def _shortest(values: F32) -> list[str]:
    """The fewest digits from which each value is read back."""
    texts = values.astype("U")
    # Readers round to float64 first: where that misses by one, all digits are needed.
    missed = np.flatnonzero(texts.astype(np.float64).astype(np.float32) != values)
    found: list[str] = texts.tolist()
    for i in missed.tolist():
        found[i] = repr(float(values[i]))
    return found
