"""Writes a model as compiled functions for inference on CPUs.

Example:
  fsparse export model.fsparse served.fsparse --k 10
"""

import argparse
from pathlib import Path

from fsparse.cli._arguments import positive_int, require_folder
from fsparse.cli._search import add_search, with_search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, file, and what is compiled."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` wrote")
    add("out", type=Path, help="file to write")
    add("--k", type=positive_int, default=10, help="predictions of each row")
    add("--batch-sizes", type=positive_int, nargs="+", default=[1, 16, 256])
    add_search(parser)


def run(arguments: argparse.Namespace) -> None:
    """Exports; ``k`` is at most the number of labels."""
    from fsparse.pipeline import Pipeline, export

    require_folder(arguments.out)
    pipeline = with_search(Pipeline.load(arguments.model), arguments, arguments.k)
    k = min(arguments.k, pipeline.schema.num_labels)
    export(pipeline, arguments.out, k=k, batch_sizes=arguments.batch_sizes)
