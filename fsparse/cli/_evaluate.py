"""Measures a model on labelled rows.

Example:
  fsparse evaluate model.fsparse test.csv --metrics p@1 hit@10
"""

import argparse
import json
from pathlib import Path

from fsparse.cli._arguments import finite, require_folder
from fsparse.cli._reading import add_reading, reader_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, data, and what to measure."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` wrote")
    add("data", help="a CSV (.csv, .csv.gz) or .parquet file")
    add("--metrics", nargs="+", help="such as p@1, hit@10, ndcg@5, auc, log_loss")
    add("--json", type=Path, help="file for the figures")
    add_reading(parser, skips=True)


def run(arguments: argparse.Namespace) -> None:
    """Prints a figure a line."""
    from fsparse.pipeline import Pipeline

    require_folder(arguments.json)
    pipeline = Pipeline.load(arguments.model)
    reader = reader_of(arguments, arguments.data)
    strict = not arguments.skip_bad_rows
    figures = pipeline.evaluate(reader, arguments.metrics, strict=strict)
    if arguments.json:
        arguments.json.write_text(json.dumps(finite(figures), indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name}: {value:.4f}")
