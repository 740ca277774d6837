"""Predicts the labels of rows: a CSV with a line for each row and place.

Example:
  fsparse predict model.fsparse rows.csv --k 3 > predictions.csv
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from fsparse.cli._arguments import positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, data, and how many."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` or `fsparse export` wrote")
    add("data", help="a CSV (.csv, .csv.gz) or .parquet file")
    add("--k", type=positive_int, default=1, help="predictions of each row")
    add("--out", type=Path, help="file to write; default: standard output")


def run(arguments: argparse.Namespace) -> None:
    """Streams: rows are read, predicted and written part by part."""
    from fsparse.cli._models import load
    from fsparse.pipeline._rows import reader_of

    model, reader = load(arguments.model), reader_of(arguments.data)
    if arguments.out is None:
        _write(sys.stdout, model, reader, arguments.k)
        return
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        _write(file, model, reader, arguments.k)


def _write(file: Any, model: Any, reader: Any, k: int) -> None:
    table, row = csv.writer(file, lineterminator="\n"), 0
    table.writerow(["row", "rank", "label", "score"])
    for part in reader:
        for best in model.predict(part, k):
            row += 1
            for rank, (label, score) in enumerate(best, start=1):
                table.writerow([row, rank, label, f"{score:.6g}"])
