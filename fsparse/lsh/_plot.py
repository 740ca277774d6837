"""A picture of the figures of an index."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fsparse.lsh._diagnostics import Diagnostics
from fsparse.lsh._warn import LIMITS, Limit, figures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHARES = (
    "padding",
    "stale",
    "empty",
    "never_found",
    "never_visited",
    "label_hit_rate",
    "recall",
)


def plot_diagnostics(diagnostics: Diagnostics, path: str | os.PathLike[str]) -> None:
    """Draws the loads of the buckets, and the shares beside their limits, as a PNG.

    Args:
      diagnostics: from :func:`diagnose`, outside of ``jit``.
      path: file to write; what is there is replaced.

    Raises:
      ImportError: without matplotlib, which ``pip install 'fsparse[examples]'`` brings.
      OSError: if the file cannot be written.
      TypeError: if ``diagnostics`` are of another type, or traced.
      ValueError: if they are of more than one index.

    A share that is NaN has no bar. Bars are red beyond a limit of :func:`warn`.

    Example:
      >>> from fsparse import lsh
      >>> diagnostics = lsh.diagnose(index, x, table, size=64)  # doctest: +SKIP
      >>> lsh.plot_diagnostics(diagnostics, "index.png")  # doctest: +SKIP
    """
    fn = "lsh.plot_diagnostics"
    d = figures_of(fn, diagnostics)
    figure = _empty_figure(fn)
    left, right = figure.subplots(1, 2)
    _draw_loads(left, d)
    _draw_shares(right, d)
    figure.savefig(path, dpi=120, format="png")


def _empty_figure(fn: str) -> "Figure":
    """Without pyplot, whose backend and open figures are those of the caller."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(
            f"{fn}: matplotlib must be installed; got {e}. Run pip install "
            "'fsparse[examples]'."
        ) from e
    return Figure(figsize=(11, 4.2), layout="constrained")


def _draw_loads(axes: Any, d: Diagnostics) -> None:
    counts = np.trim_zeros(d.load_histogram, "b")
    names = ["0", "1", *(f"{2**i}-{2 ** (i + 1) - 1}" for i in range(1, 31))]
    axes.bar(names[: len(counts)], counts)
    axes.tick_params(axis="x", rotation=90)
    axes.set(
        yscale="symlog",
        xlabel="rows in a bucket",
        ylabel="buckets",
        title=f"loads: mean {d.mean_load:.3g}, most {d.max_load} of {d.num_rows} rows",
    )


def _draw_shares(axes: Any, d: Diagnostics) -> None:
    limits = {limit.figure: limit for limit in LIMITS}
    for place, name in enumerate(_SHARES):
        share, limit = float(getattr(d, name)), limits.get(name)
        axes.barh(place, share, color=_color(limit, d))
        text = f"{share:.3f}"
        if limit is not None:
            bound = limit.value(d)
            axes.plot([bound, bound], [place - 0.45, place + 0.45], "k")
            text += f", should be {limit.side} {bound:.3g}"
        axes.text(1.03, place, text, va="center")
    axes.set_yticks(range(len(_SHARES)), _SHARES)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share", title=f"for {d.size} candidates")


def _color(limit: Limit | None, d: Diagnostics) -> str:
    if limit is None:
        return "tab:gray"
    return "tab:red" if limit.is_broken(d) else "tab:green"
