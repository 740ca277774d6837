"""The rows of adaptive_sampling.py as a table and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table

Row = dict[str, Any]
# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.96
_WIDTH = 150  # characters of a table, at least


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean; NaN of one value."""
    n = len(values)
    if n < 2:
        return float("nan")
    # From 11 degrees of freedom on, the quantile is this to three digits.
    t = _T[n - 2] if n - 2 < len(_T) else _NORMAL + 2.4 / (n - 1) + 3 / (n - 1) ** 2
    return float(t * np.std(values, ddof=1) / np.sqrt(n))


def groups(rows: list[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that are alike in some fields, in the order they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def add_seconds_to_uniform(rows: list[Row]) -> None:
    """When each run reached what uniform ends with on average.

    The rows are those of one data set and setting. A curve is taken as linear between
    its points.
    """
    ends = [row["accuracy"] for row in rows if row["method"] == "uniform"]
    for row in rows if ends else []:
        row["seconds_to_uniform_final"] = first_above(
            row["curve"], float(np.mean(ends))
        )


def first_above(curve: list[dict[str, float]], level: float) -> float | None:
    """Seconds at which a curve first reaches a level; None if it never does."""
    before = None
    for point in curve:
        if point["accuracy"] >= level:
            if before is None:
                return point["seconds"]
            rise = point["accuracy"] - before["accuracy"]
            share = (level - before["accuracy"]) / rise
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


# ---- the table ----------------------------------------------------------------------


def show(rows: list[Row]) -> None:
    """A table for each data set and setting: means over the seeds."""
    for (name, setting), own in groups(rows, "data", "setting").items():
        metric = own[0]["metric"]
        seeds = len({row["seed"] for row in own})
        table = rich.table.Table(
            "method",
            "lr",
            metric,
            "- uniform",
            "loss",
            "seconds",
            "to uniform's",
            "trained",
            "variance /",
            "on",
            title=f"{name}, {setting}: means of {seeds} seeds, 95 % intervals",
        )
        uniform = {r["seed"]: r["accuracy"] for r in own if r["method"] == "uniform"}
        for (method,), runs in groups(own, "method").items():
            table.add_row(method, *cells(runs, uniform))
        width = max(rich.console.Console().width, _WIDTH)
        rich.console.Console(width=width).print(table)


def cells(runs: list[Row], uniform: dict[int, float]) -> list[str]:
    """One line of the table."""
    pairs = [r["accuracy"] - uniform[r["seed"]] for r in runs if r["seed"] in uniform]
    reached = [r["seconds_to_uniform_final"] for r in runs]
    times = [seconds for seconds in reached if seconds is not None]
    median = f"{np.median(times):.2f} " if times else ""
    return [
        f"{runs[0]['lr']:.1e}",
        spread([r["accuracy"] for r in runs]),
        spread(pairs, "+"),
        spread([r["loss"] for r in runs]),
        f"{np.mean([r['seconds'] for r in runs]):.2f}",
        f"{median}({len(times)}/{len(runs)})",
        f"{np.mean([r['examples_trained'] for r in runs]):,.0f}",
        " ".join(mean_of(runs, f"variance_reduction_{at}") for at in ("middle", "end")),
        f"{np.mean([r['share_of_steps_on'] for r in runs]):.0%}",
    ]


def spread(values: list[float], sign: str = "") -> str:
    """Mean and interval."""
    if not values:
        return ""
    half = interval(values)
    mean = format(np.mean(values), f"{sign}.4f")
    return mean if np.isnan(half) else f"{mean} ± {half:.4f}"


def mean_of(runs: list[Row], field: str) -> str:
    """Of the runs that have it."""
    values = [r[field] for r in runs if r[field] is not None]
    return f"{np.mean(values):.2f}" if values else "-"


# ---- the picture --------------------------------------------------------------------


def plot(path: Path, rows: list[Row]) -> None:
    """The metric against seconds and examples: a line of panels for each setting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parts = groups(rows, "data", "setting")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(
        len(parts),
        2,
        figsize=(11, 3.8 * len(parts)),
        layout="constrained",
        squeeze=False,
    )
    for line, ((name, setting), own) in zip(axes, parts.items(), strict=True):
        for ax, x in zip(line, ("seconds", "examples_trained"), strict=True):
            for method, runs in groups(own, "method").items():
                draw(ax, runs, x, f"C{methods.index(method[0]) % 10}", method[0])
            label = f"test {own[0]['metric']}"
            ax.set(title=f"{name}, {setting}", xlabel=x.replace("_", " "), ylabel=label)
            zoom(ax, own)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw(ax: Any, runs: list[Row], x: str, color: str, method: str) -> None:
    """The mean curve of a method, with a band of its interval."""
    curves = [run["curve"] for run in runs]
    at = np.mean([[p[x] for p in curve] for curve in curves], axis=0)
    values = np.array([[p["accuracy"] for p in curve] for curve in curves])
    mean = values.mean(axis=0)
    half = np.nan_to_num([interval(column) for column in values.T])
    style = "--" if method.startswith("uniform") else "-"
    ax.plot(at, mean, style, marker=".", color=color, label=method)
    ax.fill_between(at, mean - half, mean + half, color=color, alpha=0.15, lw=0)


def zoom(ax: Any, rows: list[Row]) -> None:
    """The upper part, where the methods differ."""
    values = [p["accuracy"] for row in rows for p in row["curve"]]
    low, high = np.quantile(values, 0.2), max(values)
    room = 0.1 * (high - low) or 0.01
    ax.set_ylim(low - room, high + room)
