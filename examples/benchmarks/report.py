"""Rows of figures, from what the turns gave: as a table, and as JSON."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import rich.box
import rich.console
import rich.table
import roofline
from jobs import Job, reference
from turns import Found

Row = dict[str, Any]
Group = list[tuple[Job, Found]]  # what those who took turns found
Pairs = list[tuple[Found, Found]]
PACKAGES = ("jax", "jaxlib", "optax", "torch", "numpy")


def rows(case: str, found: list[Group], rates: roofline.Rates, facts: Row) -> list[Row]:
    """One for each job, and one for its tail if it has one."""
    every = [job for group in found for job, _ in group]
    jobs = [job for i, job in enumerate(every) if job not in every[:i]]
    made = []
    for job in jobs:
        own = [result for group in found for each, result in group if each == job]
        pairs = _pairs(job, reference(jobs, job), found)
        made.append(_row(job, own, pairs, rates))
        if job.has_tail:
            made.append(_tail_row(job, own, pairs))
    return [{"case": case, **row, **facts} for row in made]


def _pairs(job: Job, against: Job | None, found: list[Group]) -> Pairs:
    """What the job and its reference found in the groups that both were in."""

    def of(group: Group, wanted: Job | None) -> list[Found]:
        return [result for each, result in group if each == wanted]

    return [
        pair
        for group in found
        for pair in zip(of(group, job), of(group, against), strict=False)
    ]


def _row(job: Job, own: list[Found], pairs: Pairs, rates: roofline.Rates) -> Row:
    every = [s for part in own for turn in part.seconds for s in turn]
    median = statistics.median(every)
    least = roofline.least_seconds(job.work, rates)
    ratio = _ratio(pairs, statistics.median)
    amount = roofline.amount(job.work)
    if job.of_memory:
        amount = max(part.peak_bytes for part in own)
        ratio = _median(a.peak_bytes / b.peak_bytes for a, b in pairs)
    return {
        "shape": job.shape,
        "system": job.system,
        "median_seconds": median,
        "min_seconds": min(every),
        "ratio_to_fsparse": ratio,
        "bytes_or_flops": amount,
        "roofline_fraction": None if least is None else least / median,
    }


def _tail_row(job: Job, own: list[Found], pairs: Pairs) -> Row:
    tails = [p99(turn) for part in own for turn in part.seconds]
    return {
        "shape": job.shape | {"statistic": "p99"},
        "system": job.system,
        "median_seconds": statistics.median(tails),
        "min_seconds": min(tails),
        "ratio_to_fsparse": _ratio(pairs, p99),
        "bytes_or_flops": roofline.amount(job.work),
        "roofline_fraction": None,
    }


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return float(np.quantile(seconds, 0.99))


def _ratio(pairs: Pairs, of_turn: Any) -> float | None:
    """The median of the rounds' ratios."""
    return _median(
        of_turn(a) / of_turn(b)
        for own, other in pairs
        for a, b in zip(own.seconds, other.seconds, strict=True)
    )


def _median(values: Iterable[float]) -> float | None:
    """None if fsparse itself has failed, so that there is nothing to compare with."""
    known = list(values)
    return statistics.median(known) if known else None


def of_machine(level: str) -> Row:
    """The fields that all rows share."""
    return {
        "versions": machine.versions(*PACKAGES),
        "threads": machine.cores(),
        "cpu": f"{machine.cpu_model()} ({level})",
    }


# ---- for people ---------------------------------------------------------------------


def show(title: str, some: list[Row]) -> None:
    """A table of a case."""
    shared, own = split_shapes(some)
    title = f"{title}\n{words(shared)}" if shared else title
    table = rich.table.Table(title=title, box=rich.box.SIMPLE)
    for name in ("shape", "system"):
        table.add_column(name, overflow="fold")
    for name in ("median", "min", "x fsparse", "MB or Mflop", "of roofline"):
        table.add_column(name, justify="right")
    for row, shape in zip(some, own, strict=True):
        table.add_row(words(shape), *cells(row))
    width = None if rich.console.Console().is_terminal else 120
    rich.console.Console(width=width).print(table)


def cells(row: Row) -> list[str]:
    """A row but for its shape, as text."""
    amount, fraction = row["bytes_or_flops"], row["roofline_fraction"]
    ratio = row["ratio_to_fsparse"]
    return [
        row["system"],
        duration(row["median_seconds"]),
        duration(row["min_seconds"]),
        "" if ratio is None else f"{ratio:.3g}",
        "" if amount is None else f"{amount / 1e6:,.4g}",
        "" if fraction is None else f"{fraction:.0%}",
    ]


def split_shapes(some: list[Row]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the shapes of all rows have in common, and what each has beside it."""
    shapes = [row["shape"] for row in some]
    shared = {
        name: value
        for name, value in (shapes[0] if shapes else {}).items()
        if all(shape.get(name) == value for shape in shapes)
    }
    own = [{k: v for k, v in shape.items() if k not in shared} for shape in shapes]
    return shared, own


def words(shape: dict[str, Any]) -> str:
    """A shape as text."""
    parts = (
        f"{name.replace('_', ' ')} {value:,}"
        if isinstance(value, int)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in shape.items()
    )
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """With a unit in which it is no tiny number."""
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def write(path: Path, every: list[Row]) -> None:
    """All rows, as a list."""
    path.write_text(json.dumps(every, indent=1) + "\n")


def read(path: Path) -> list[Row]:
    """Rows that were written."""
    return json.loads(path.read_text())
