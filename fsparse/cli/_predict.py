"""Predicts the labels of rows: a CSV with a line for each row and place.

Example:
  fsparse predict model.fsparse rows.csv --k 3 > predictions.csv
"""

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from fsparse.cli._arguments import positive_int, require_folder
from fsparse.cli._reading import add_reading, reader_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, data, and how many."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` or `fsparse export` wrote")
    add("data", help="a CSV (.csv, .csv.gz) or .parquet file")
    add("--k", type=positive_int, default=1, help="predictions of each row")
    add("--out", type=Path, help="file to write; default: standard output")
    add_reading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Streams: rows are read, predicted and written part by part."""
    from fsparse.cli._models import load

    require_folder(arguments.out)
    model, reader = load(arguments.model), reader_of(arguments, arguments.data)
    found = (model.predict(part, arguments.k) for part in reader)
    first: Any = next(found, [])  # errors of the arguments come before the header
    with _opened(arguments.out) as file:
        table, row = csv.writer(file, lineterminator="\n"), 0
        table.writerow(["row", "rank", "label", "score"])
        for part in chain([first], found):
            for best in part:
                row += 1
                for rank, (label, score) in enumerate(best, start=1):
                    table.writerow([row, rank, label, f"{score:.6g}"])


@contextmanager
def _opened(path: Path | None) -> Iterator[Any]:
    """A file that is there once all is written; or standard output."""
    if path is None:
        yield sys.stdout
        return
    is_special = path.exists() and not path.is_file()  # such as a pipe
    part = path if is_special else path.with_name(f"{path.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            yield file
        if not is_special:
            os.replace(part, path)
    except BaseException:
        if not is_special:
            part.unlink(missing_ok=True)
        raise
