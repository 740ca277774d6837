"""The rows of compare_samplers.py as a table and as a picture."""

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.table


class Row(NamedTuple):
    """A point of a run."""

    data: str
    sampler: str
    scope: str
    budget: float
    seed: int
    examples: int
    seconds: float
    p_at_1: float


def last_points(rows: list[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The end of each run, by data and method."""
    last: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        last[*row[:5],] = row
    by_method = defaultdict(list)
    for row in last.values():
        by_method[*row[:4],].append(row)
    return by_method


def show(rows: list[Row]) -> None:
    """A table of the ends of the runs, means over the seeds."""
    columns = "data", "sampler", "scope", "budget", "examples", "seconds", "P@1", "+-"
    table = rich.table.Table(*columns, title="ends of the runs, means of the seeds")
    for method, runs in last_points(rows).items():
        scores = [run.p_at_1 for run in runs]
        examples = np.mean([run.examples for run in runs])
        seconds = np.mean([run.seconds for run in runs])
        figures = f"{examples:,.0f}", f"{seconds:.1f}", f"{np.mean(scores):.4f}"
        table.add_row(*map(str, method), *figures, f"{np.std(scores):.4f}")
    rich.console.Console().print(table)


def plot(path: Path, rows: list[Row]) -> None:
    """P@1 against examples and seconds: a row of panels for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row.data for row in rows))
    budgets = sorted({row.budget for row in rows if row.scope != "dense"})
    budgets = budgets or [1.0]
    panels = list(itertools.product(budgets, ("examples", "seconds")))
    figure, axes = plt.subplots(
        len(names),
        len(panels),
        figsize=(4.2 * len(panels), 3.2 * len(names)),
        layout="constrained",
        squeeze=False,
    )
    for line, name in zip(axes, names, strict=True):
        for ax, (budget, x) in zip(line, panels, strict=True):
            shown = [r for r in rows if r.data == name and r.budget in (budget, 1.0)]
            draw(ax, shown, x)
            ax.set(title=f"{name}, {budget:.1%}", xlabel=x, ylabel="test P@1")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw(ax: Any, rows: list[Row], x: str) -> None:
    """One line a method, through the means of its points."""
    names = sorted({row.sampler for row in rows} - {"dense"})
    colors = {name: f"C{i}" for i, name in enumerate(names)} | {"dense": "black"}
    for method in dict.fromkeys(row[1:4] for row in rows):
        points = defaultdict(list)
        place: dict[int, int] = defaultdict(int)
        for row in rows:
            if row[1:4] == method:
                points[place[row.seed]].append((getattr(row, x), row.p_at_1))
                place[row.seed] += 1
        mean = np.array([np.mean(p, axis=0) for p in points.values()])
        style = "--" if method[1] == "per_example" else "-"
        label = method[0] if method[1] == "dense" else f"{method[0]}, {method[1]}"
        ax.plot(*mean.T, style, marker=".", color=colors[method[0]], label=label)
    if x == "examples":
        ax.set_xscale("log")
