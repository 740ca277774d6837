"""Trains a classifier of the rows of a CSV or parquet file.

Examples:
  fsparse train train.csv --target label --out model.fsparse
  fsparse train train.csv --schema schema.json --epochs 10 --validation valid.csv
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fsparse.cli._arguments import (
    finite,
    fraction_or_path,
    positive_float,
    positive_int,
    require_folder,
    seed,
)
from fsparse.cli._reading import add_reading, reader_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Data, then training, then results."""
    add = parser.add_argument
    add("data", help="a CSV (.csv, .csv.gz) or .parquet file")
    add("--target", help="column of the labels; the kinds of the others are inferred")
    add("--schema", type=Path, help="JSON of the schema, in place of --target")
    add("--validation", type=fraction_or_path, default=0.1, metavar="FILE|FRACTION")
    add_reading(parser, skips=True)
    add("--epochs", type=positive_int, default=5)
    add("--batch-size", type=positive_int, help="default: 256, or less for small data")
    add("--learning-rate", type=positive_float, default=1e-3)
    add("--width", type=positive_int, default=128, help="units of the hidden layer")
    add("--seed", type=seed, default=0)
    add("--patience", type=positive_int, help="validations without a lower loss")
    add("--folder", type=Path, help="of checkpoints, from which a killed run resumes")
    add("--out", type=Path, default=Path("model.fsparse"), help="file of the model")
    add("--json", type=Path, help="file for the figures and the history")
    add("--plot", type=Path, help="PNG of the training curves")
    add("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Trains, saves, prints the figures."""
    from fsparse import train
    from fsparse.pipeline import train_table
    from fsparse.tabular import Schema

    schema = arguments.schema and Schema.from_json(arguments.schema.read_text("utf-8"))
    records: list[dict[str, Any]] = []

    def record(found: Any, _: Any) -> None:
        records.append(dict(found))

    for path in (arguments.out, arguments.json, arguments.plot):
        require_folder(path)
    chosen = {"batch_size": arguments.batch_size, "patience": arguments.patience}
    validation = arguments.validation
    if isinstance(validation, str):
        validation = reader_of(arguments, validation)
    pipeline = train_table(
        reader_of(arguments, arguments.data),
        arguments.target,
        schema=schema,
        width=arguments.width,
        validation=validation,
        strict=not arguments.skip_bad_rows,
        seed=arguments.seed,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        folder=arguments.folder,
        callbacks=[record],
        progress=not arguments.quiet,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    pipeline.save(arguments.out)
    if arguments.json:
        figures = {
            "figures": finite(pipeline.figures),
            "history": [finite(found) for found in records],
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.plot:
        train.plot(train.History(records), arguments.plot)
    for name, value in pipeline.figures.items():
        print(f"{name}: {value:.4f}")
    print(f"saved: {arguments.out}", file=sys.stderr)
