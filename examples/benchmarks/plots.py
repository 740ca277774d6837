"""Pictures of rows: ratios, growth with labels and batches, shares of the roofline."""

from pathlib import Path
from typing import Any

import matplotlib
import report

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Rows = list[dict[str, Any]]
_OURS, _OTHERS = "#c0392b", "#7f8c8d"
_MEMORY = "times the peak memory of fsparse"
_SUMMARY = "train-amazon670k", "train-wikilshtc325k", "train-50k", "train-polish-lemmas"
_ELSEWHERE = *_SUMMARY, "scaling", "batch-size", "memory", "rooflines"


def draw(rows: Rows, folder: Path) -> list[Path]:
    """A PNG file of each picture that the rows suffice for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "training_ratios": ratios([r for r in rows if r["case"] in _SUMMARY]),
        "other_ratios": ratios([r for r in rows if r["case"] not in _ELSEWHERE]),
        "memory": ratios([r for r in rows if r["case"] == "memory"], _MEMORY),
        "scaling": curve(rows, "scaling", "labels", "labels"),
        "batch_size": curve(rows, "batch-size", "batch", "examples in a batch"),
        "rooflines": fractions(rows),
    }
    paths = []
    for name, figure in made.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=120, bbox_inches="tight")
            plt.close(figure)
    return paths


def ratios(rows: Rows, axis: str = "times as long as fsparse") -> Any:
    """A bar for each peer: how many times as much as fsparse it takes."""
    rows = [r for r in rows if r["ratio_to_fsparse"] is not None]
    rows = [r for r in rows if not r["system"].startswith("fsparse")]
    return bars(rows, "ratio_to_fsparse", axis, log=True)


def fractions(rows: Rows) -> Any:
    """A bar for each of our systems: least possible time over time taken."""
    rows = [r for r in rows if r["system"].startswith("fsparse")]
    rows = [r for r in rows if r["roofline_fraction"] is not None]
    return bars(rows, "roofline_fraction", "share of the machine's limit", log=False)


def bars(rows: Rows, field: str, axis: str, *, log: bool) -> Any:
    """Bars with their values, labelled by case, what differs in shape, and system."""
    if not rows:
        return None
    figure, ax = plt.subplots(figsize=(9, 0.8 + 0.24 * len(rows)))
    values = [row[field] for row in rows]
    colors = [color(row) for row in rows]
    drawn = ax.barh([label(row, rows) for row in rows], values, color=colors)
    texts = [f"{v:.3g}" if log else f"{v:.0%}" for v in values]
    ax.bar_label(drawn, texts, padding=3, fontsize=7)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log" if log else "linear")
    ax.invert_yaxis()
    ax.margins(y=0.01, x=0.1)
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlabel(f"{axis}\n{caption(rows)}")
    return figure


def curve(rows: Rows, case: str, along: str, name: str) -> Any:
    """Milliseconds of a step of each system, on logarithmic axes."""
    rows = [row for row in rows if row["case"] == case]
    if not rows:
        return None
    figure, ax = plt.subplots(figsize=(6.5, 4.2))
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        xs = [row["shape"][along] for row in own]
        ys = [1e3 * row["median_seconds"] for row in own]
        ax.plot(xs, ys, marker="o", label=system)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(alpha=0.3, which="both")
    ax.set_ylabel("ms a step, median")
    ax.set_xlabel(f"{name}\n{caption(rows)}")
    ax.legend(fontsize=7)
    return figure


def color(row: dict[str, Any]) -> str:
    """Ours stand out."""
    return _OURS if row["system"].startswith("fsparse") else _OTHERS


def label(row: dict[str, Any], rows: Rows) -> str:
    """Case, the parts of the shape that differ within it, and system."""
    own = [each for each in rows if each["case"] == row["case"]]
    shared, _ = report.split_shapes(own)
    differs = {k: v for k, v in row["shape"].items() if k not in shared}
    parts = [row["case"], report.words(differs), row["system"]]
    return " | ".join(part for part in parts if part)


def caption(rows: Rows) -> str:
    """The machine and versions, in a line."""
    row = rows[-1]
    versions = ", ".join(
        f"{name} {row['versions'][name]}"
        for name in ("fsparse", "jax", "torch")
        if row["versions"][name]
    )
    return f"{row['cpu']}, {row['threads']} threads; {versions}"
