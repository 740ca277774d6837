"""Rows of results, one for each model: as a table, a JSON file and a picture.

A row is a dict with ``model``, then its figures: ``{"model": "ours", "p@1": 0.4}``.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table

Row = dict[str, Any]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line with ``--json``, ``--plot`` and ``--quick``; add yours."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=doc, formatter_class=raw)
    made.add_argument("--json", type=Path, help="file for the rows of the table")
    made.add_argument("--plot", type=Path, help="PNG of the rows as bars")
    made.add_argument("--quick", action="store_true", help="a small part of the data")
    return made


def report(
    args: argparse.Namespace, title: str, rows: list[Row], metrics: Sequence[str]
) -> None:
    """Prints the rows, and writes what ``--json`` and ``--plot`` ask for."""
    show(title, rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    if args.plot:
        plot(args.plot, title, rows, metrics)


def show(title: str, rows: list[Row]) -> None:
    """A table of all figures; a row that lacks one has a dash."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = rich.table.Table(title=title)
    for name in columns:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*(_shown(row.get(name, "-")) for name in columns))
    rich.console.Console().print(table)


def plot(path: Path, title: str, rows: list[Row], metrics: Sequence[str]) -> None:
    """A group of bars for each metric, a bar for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    width = 0.8 / len(rows)
    for i, row in enumerate(rows):
        shift = (i - (len(rows) - 1) / 2) * width
        heights = [row.get(name, 0.0) for name in metrics]
        places = [j + shift for j in range(len(metrics))]
        bars = ax.bar(places, heights, 0.95 * width, label=row["model"])
        ax.bar_label(bars, [_shown(height) for height in heights], fontsize=7)
    ax.set_xticks(range(len(metrics)), metrics)
    ax.set_title(title)
    ax.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
