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
_WIDTH = 190  # characters of a table, at least


def interval(values: Sequence[float | None]) -> float:
    """Half the width of the 95 % interval of the mean; NaN of one value."""
    n = len(values)
    if n < 2:
        return float("nan")
    # From 11 degrees of freedom on, the quantile is this to three digits.
    t = _T[n - 2] if n - 2 < len(_T) else _NORMAL + 2.4 / (n - 1) + 3 / (n - 1) ** 2
    return float(t * np.std(numbers(values), ddof=1) / np.sqrt(n))


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
        level = float(np.mean(numbers(ends)))
        row["seconds_to_uniform_final"] = first_above(row["curve"], level)


def first_above(curve: list[dict[str, float]], level: float) -> float | None:
    """Seconds at which a curve first reaches a level; None if it never does."""
    before = None
    for point in curve:
        if point["accuracy"] is None:  # it diverged
            return None
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
            "- uniform",
            "seconds",
            "to uniform's",
            "trained",
            "variance /",
            "on",
            title=f"{name}, {setting}: means of {seeds} seeds, 95 % intervals",
        )
        uniform = {row["seed"]: row for row in own if row["method"] == "uniform"}
        for (method,), runs in groups(own, "method").items():
            table.add_row(method, *cells(runs, uniform))
        width = max(rich.console.Console().width, _WIDTH)
        rich.console.Console(width=width).print(table)


def cells(runs: list[Row], uniform: dict[int, Row]) -> list[str]:
    """One line of the table."""
    reached = [r["seconds_to_uniform_final"] for r in runs]
    times = [seconds for seconds in reached if seconds is not None]
    median = f"{np.median(times):.2f} " if times else ""
    return [
        f"{runs[0]['lr']:.1e}",
        spread([r["accuracy"] for r in runs]),
        against(runs, uniform, "accuracy", 1),
        spread([r["loss"] for r in runs]),
        against(runs, uniform, "loss", -1),
        f"{np.mean([r['seconds'] for r in runs]):.2f}",
        f"{median}({len(times)}/{len(runs)})",
        f"{np.mean([r['examples_trained'] for r in runs]):,.0f}",
        " ".join(mean_of(runs, f"variance_reduction_{at}") for at in ("middle", "end")),
        f"{np.mean([r['share_of_steps_on'] for r in runs]):.0%}",
    ]


def against(runs: list[Row], uniform: dict[int, Row], field: str, good: int) -> str:
    """The difference to uniform sampling with the same seed, and what it says.

    `good` is the sign of what is better. A difference is called one if its interval
    does not hold 0.
    """
    pairs = [
        numbers([run[field], uniform[run["seed"]][field]])
        for run in runs
        if run["seed"] in uniform
    ]
    differences = [float(ours - theirs) for ours, theirs in pairs]
    if not np.any(differences):  # of itself
        return ""
    mean, half = np.mean(differences), interval(differences)
    verdict = "better" if good * mean > 0 else "worse"
    return spread(differences, "+") + (f" {verdict}" if abs(mean) > half else "")


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """NaN in place of the null of a run that diverged."""
    return np.array(values, float)


def spread(values: Sequence[float | None], sign: str = "") -> str:
    """Mean and interval."""
    half = interval(values)
    mean = format(np.mean(numbers(values)), f"{sign}.4f")
    return mean if np.isnan(half) else f"{mean} ± {half:.4f}"


def mean_of(runs: list[Row], field: str) -> str:
    """Of the runs that have it."""
    values = [r[field] for r in runs if r[field] is not None]
    return f"{np.mean(values):.2f}" if values else "-"


# ---- the picture --------------------------------------------------------------------


def plot(path: Path, rows: list[Row]) -> None:
    """A line of panels for each data set: the metric by seconds and by examples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = groups(rows, "data")
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    columns = [(s, x) for s in settings for x in ("seconds", "examples_trained")]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(
        len(lines),
        len(columns),
        figsize=(1 + 3.6 * len(columns), 2.8 * len(lines)),
        layout="constrained",
        squeeze=False,
    )
    for axes_of_line, ((name,), own) in zip(axes, lines.items(), strict=True):
        by_setting = groups(own, "setting")
        for ax, (setting, x) in zip(axes_of_line, columns, strict=True):
            runs = by_setting.get((setting,), [])
            panel(ax, runs, x, methods)
            ax.set_title(f"{name}, {setting}", fontsize=9)
    handles = {}
    for ax in axes.flat:
        handles |= {h.get_label(): h for h in ax.get_legend_handles_labels()[0]}
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=2 * len(columns)
    )
    figure.savefig(path, dpi=80)
    plt.close(figure)


def panel(ax: Any, rows: list[Row], x: str, methods: list[str]) -> None:
    """One data set in one setting."""
    if not rows:
        ax.axis("off")
        return
    for (method,), runs in groups(rows, "method").items():
        draw(ax, runs, x, f"C{methods.index(method) % 10}", method)
    ax.set_xlabel(x.replace("_", " "), fontsize=8)
    ax.set_ylabel(f"test {rows[0]['metric'].replace('_', ' ')}", fontsize=8)
    ax.tick_params(labelsize=7)
    zoom(ax, rows)


def draw(ax: Any, runs: list[Row], x: str, color: str, method: str) -> None:
    """The mean curve of a method, with a band of its interval."""
    curves = [run["curve"] for run in runs]
    at = np.mean([[p[x] for p in curve] for curve in curves], axis=0)
    values = np.array([numbers([p["accuracy"] for p in curve]) for curve in curves])
    mean = values.mean(axis=0)
    half = np.nan_to_num([interval(column) for column in values.T])
    style = "--" if method.startswith("uniform") else "-"
    ax.plot(at, mean, style, color=color, label=method, lw=1.2)
    ax.fill_between(at, mean - half, mean + half, color=color, alpha=0.12, lw=0)


def zoom(ax: Any, rows: list[Row]) -> None:
    """The upper part, where the methods differ."""
    values = numbers([p["accuracy"] for row in rows for p in row["curve"]])
    low, high = np.nanquantile(values, 0.3), np.nanmax(values)
    room = 0.1 * (high - low) or 0.01
    ax.set_ylim(low - room, high + room)
