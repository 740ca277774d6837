"""Sparse inference, as an option of subcommands."""

import argparse
from typing import Any

from fsparse.cli._arguments import positive_float, positive_int


def add_search(parser: argparse.ArgumentParser) -> None:
    """How labels are found."""
    add = parser.add_argument
    add("--search", choices=["saved", "exact", "sparse"], default="saved")
    add("--scored", type=positive_float, default=0.01, help="fraction, for sparse")
    add("--probes", type=positive_int, default=3, help="buckets a table, for sparse")


def with_search(pipeline: Any, arguments: argparse.Namespace, k: int) -> Any:
    """The pipeline with the search that was asked for; it scores at least ``k``."""
    from fsparse.pipeline import Search

    if arguments.search == "saved":
        return pipeline
    if arguments.search == "exact":
        return pipeline.with_search(None)
    n = pipeline.schema.num_labels
    size = max(min(k, n), round(arguments.scored * n))
    return pipeline.with_search(Search(size, arguments.probes))
