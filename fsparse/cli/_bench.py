"""Measures the latency of single queries and the throughput of batches.

Example:
  fsparse bench model.fsparse rows.csv --search sparse
"""

import argparse
import statistics
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fsparse.cli._arguments import positive_int
from fsparse.cli._search import add_search, with_search


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, rows, and how often."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` wrote")
    add("data", help="rows to predict, a CSV (.csv, .csv.gz) or .parquet file")
    add("--k", type=positive_int, default=5, help="predictions of each row")
    add("--queries", type=positive_int, default=1000)
    add_search(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints cold start, p50 and p99 of single rows, and rows a second of batches."""
    began = time.perf_counter()
    from fsparse.pipeline import Pipeline
    from fsparse.pipeline._rows import reader_of

    pipeline = with_search(Pipeline.load(arguments.model), arguments, arguments.k)
    part: Any = next(iter(reader_of(arguments.data)), None)
    if part is None:
        raise ValueError(f"{arguments.data} must have at least one row; got none.")
    names = pipeline.schema.schema.sources(has_target=False)
    columns = {name: part.columns[name] for name in names if name in part.columns}
    rows = [
        dict(zip(columns, values, strict=True))
        for values in islice(zip(*columns.values(), strict=True), 256)
    ]
    k = min(arguments.k, pipeline.schema.num_labels)
    pipeline.predict(rows[:1], k)
    print(f"cold start, to the first answer: {time.perf_counter() - began:.2f} s")
    single = _times(pipeline, [[row] for row in rows], k, arguments.queries)
    print(f"single row: p50 {1e3 * statistics.median(single):.3f} ms, ", end="")
    print(f"p99 {1e3 * single[int(0.99 * (len(single) - 1))]:.3f} ms")
    batch = _times(pipeline, [rows], k, max(3, arguments.queries // 100))
    print(f"batches of {len(rows)}: {len(rows) / statistics.median(batch):,.0f} rows/s")


def _times(pipeline: Any, batches: list[Any], k: int, count: int) -> list[float]:
    """Seconds of each call, rising; a first one compiles and does not count."""
    pipeline.predict(batches[0], k)
    spent = []
    for batch in islice(cycle(batches), count):
        began = time.perf_counter()
        pipeline.predict(batch, k)
        spent.append(time.perf_counter() - began)
    return sorted(spent)
