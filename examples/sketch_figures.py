"""The rows of sketch_error.py as a picture."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """Sketches of one size on one data set."""

    data: str
    rows: int
    bits: int
    bytes: int
    rmse: float
    p99: float
    rmse_subsample: float
    sd: float
    eps: float
    failure: float
    failure_median: float
    bound_local: float
    bound: float
    rate_local: float
    rate: float
    sketches: int


def plot(path: Path, rows: list[Row]) -> None:
    """Errors by rows and by bytes, their tail, its bounds: a line for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row.data for row in rows))
    figure, axes = plt.subplots(
        len(names),
        4,
        figsize=(17, 3.6 * len(names)),
        layout="constrained",
        squeeze=False,
    )
    for line, name in zip(axes, names, strict=True):
        own = [row for row in rows if row.data == name]
        for ax, draw in zip(line, (by_rows, by_bytes, tail, bounds), strict=True):
            draw(ax, own)
            ax.set_title(name)
            place = "center" if draw is bounds else "best"
            ax.legend(fontsize=7, loc=place)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def by_bits(rows: list[Row]) -> dict[int, list[Row]]:
    """In rising order of rows."""
    ordered = sorted(rows, key=lambda row: row.rows)
    return {
        b: [r for r in ordered if r.bits == b] for b in sorted({r.bits for r in rows})
    }


def by_rows(ax: Any, rows: list[Row]) -> None:
    """Falls as 1 / sqrt(R), drawn through the first point."""
    for i, (bits, line) in enumerate(by_bits(rows).items()):
        r = np.array([row.rows for row in line])
        rmse, p99 = (
            np.array([getattr(x, f) / x.sd for x in line]) for f in ("rmse", "p99")
        )
        ax.loglog(r, rmse, "o-", color=f"C{i}", label=f"{bits} bits")
        ax.loglog(r, p99, ":", color=f"C{i}", label=f"{bits} bits, p99")
        ax.loglog(r, rmse[0] * np.sqrt(r[0] / r), "--", color="grey", lw=0.8)
    ax.set(
        xlabel="rows R (dashed: 1 / sqrt R)", ylabel="error / sd of the exact estimate"
    )


def by_bytes(ax: Any, rows: list[Row]) -> None:
    """Beside a uniform subsample that takes as many."""
    for i, (bits, line) in enumerate(by_bits(rows).items()):
        size = [row.bytes for row in line]
        ax.loglog(
            size,
            [r.rmse / r.sd for r in line],
            "o-",
            color=f"C{i}",
            label=f"{bits} bits",
        )
        other = [max(r.rmse_subsample / r.sd, 1e-4) for r in line]
        ax.loglog(
            size, other, "x--", color=f"C{i}", label=f"subsample, kernel of {bits} bits"
        )
    ax.set(xlabel="bytes", ylabel="RMSE / sd of the exact estimate")


def tail(ax: Any, rows: list[Row]) -> None:
    """The chance of an error beyond eps: a straight line falls exponentially."""
    for i, (bits, line) in enumerate(by_bits(rows).items()):
        r = np.array([row.rows for row in line], float)
        for field, style in (("failure", "o-"), ("failure_median", "x:")):
            share = np.array([getattr(row, field) for row in line])
            label = f"{bits} bits{', medians' if 'median' in field else ''}"
            ax.plot(r[share > 0], share[share > 0], style, color=f"C{i}", label=label)
    ax.set(yscale="log", xlabel="rows R", ylabel="P(|error| > eps)")


def bounds(ax: Any, rows: list[Row]) -> None:
    """The same beside what bounds promise at the median query, with more rows."""
    tail(ax, rows)
    for i, (bits, line) in enumerate(by_bits(rows).items()):
        promised = (
            ("local", line[0].rate_local, 1, "--"),
            ("bound", line[0].rate, 2, "-."),
        )
        for name, rate, factor, style in promised:
            r = np.geomspace(line[0].rows, 9 / max(rate, 1e-12), 200)
            chance = np.minimum(factor * np.exp(-rate * r), 1)
            ax.plot(
                r, chance, style, color=f"C{i}", lw=0.8, label=f"{bits} bits, {name}"
            )
    ax.set(xscale="log")
