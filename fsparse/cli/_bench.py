"""Measures a model, or what was exported of one: size, cold start, latency, throughput.

The cold start is that of a new process, from its start to the first answer.

Examples:
  fsparse bench model.fsparse rows.csv --search sparse
  fsparse bench compiled.fsparse rows.csv --json bench.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fsparse.cli._arguments import positive_int, require_folder
from fsparse.cli._reading import add_reading, reader_of
from fsparse.cli._search import add_search, with_search

_LARGEST_BATCH = 256
_STARTS = 3
_CHILD = "from fsparse.cli._bench import answer; answer()"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, rows, and how often."""
    add = parser.add_argument
    add("model", type=Path, help="what `fsparse train` or `fsparse export` wrote")
    add("data", help="rows to predict, a CSV (.csv, .csv.gz) or .parquet file")
    add_reading(parser)
    add("--k", type=positive_int, default=5, help="predictions of each row")
    add("--queries", type=positive_int, default=1000)
    add("--json", type=Path, help="file for the figures")
    add_search(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the figures, of calls of ``predict``, which encode their rows."""
    require_folder(arguments.json)
    model, k = _load(arguments)
    rows = _rows(model, arguments)
    single = _times(model, [[row] for row in rows], k, arguments.queries)
    batches = _times(model, [rows], k, max(3, arguments.queries // 100))
    starts = [_cold_start(arguments, rows[0]) for _ in range(_STARTS)]
    figures = {
        "file_bytes": arguments.model.stat().st_size,
        "cold_start_seconds": statistics.median(starts),
        "single_p50_seconds": statistics.median(single),
        "single_p99_seconds": single[int(0.99 * (len(single) - 1))],
        "rows_per_batch": len(rows),
        "rows_per_second": len(rows) / statistics.median(batches),
    }
    print(_text(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def answer() -> None:
    """In a process of its own: one answer to what stands in its input."""
    request = json.load(sys.stdin)
    model, k = _load(argparse.Namespace(**request["arguments"]))
    model.predict([request["row"]], k)
    print("answered", flush=True)


def _load(arguments: argparse.Namespace) -> tuple[Any, int]:
    """A model, and how many predictions it can give of those asked for."""
    from fsparse.cli._models import load, max_k

    model = with_search(load(Path(arguments.model)), arguments, arguments.k)
    return model, min(arguments.k, max_k(model))


def _rows(model: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    part: Any = next(iter(reader_of(arguments, arguments.data)), None)
    if part is None:
        raise ValueError(f"{arguments.data} must have at least one row; got none.")
    names = model.schema.schema.sources(has_target=False)
    columns = {name: part.columns[name] for name in names if name in part.columns}
    found = islice(zip(*columns.values(), strict=True), _LARGEST_BATCH)
    return [dict(zip(columns, values, strict=True)) for values in found]


def _cold_start(arguments: argparse.Namespace, row: dict[str, Any]) -> float:
    """Seconds from the start of a process to its first answer."""
    names = "model", "k", "search", "scored", "probes"
    given = {name: getattr(arguments, name) for name in names}
    request = json.dumps({"arguments": given, "row": row}, default=str)
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(request)
        child.stdin.close()
        is_answered = child.stdout.readline() == "answered\n"
        seconds = time.perf_counter() - began
    if not is_answered:
        raise RuntimeError(f"bench: a new process ended with {child.returncode}.")
    return seconds


def _times(model: Any, batches: list[Any], k: int, count: int) -> list[float]:
    """Seconds of each call, rising; a first one compiles and does not count."""
    model.predict(batches[0], k)
    spent = []
    for batch in islice(cycle(batches), count):
        began = time.perf_counter()
        model.predict(batch, k)
        spent.append(time.perf_counter() - began)
    return sorted(spent)


def _text(figures: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"file: {figures['file_bytes'] / 1e6:,.1f} MB",
            f"cold start, to the first answer: {figures['cold_start_seconds']:.2f} s",
            f"single row: p50 {1e3 * figures['single_p50_seconds']:.3f} ms, "
            f"p99 {1e3 * figures['single_p99_seconds']:.3f} ms",
            f"batches of {figures['rows_per_batch']}: "
            f"{figures['rows_per_second']:,.0f} rows/s",
        ]
    )
