"""The course of training: records of figures, and files of them."""

import csv
import json
import os
from math import isfinite, isnan, nan
from typing import Any

from fsparse.metrics import find

Record = dict[str, Any]


class History(list[Record]):
    """Records in the order of steps, dicts of numbers.

    Each has ``step``, ``epoch`` (of whole passes), ``seconds`` of training and
    ``skipped``, the steps so far that were not finite; then what was measured there:
    ``loss``, the mean since the last record; ``val_`` and a name for each metric of the
    validation set; ``variance_reduction`` of adaptive sampling.

    Example:
      >>> history = History([{"step": 1, "loss": 0.5}, {"step": 2, "val_p@1": 0.9}])
      >>> history.column("val_p@1")
      ([2], [0.9])
    """

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of the records that have a figure of that name."""
        having = [record for record in self if name in record]
        return [r["step"] for r in having], [r[name] for r in having]

    @property
    def names(self) -> list[str]:
        """All figures, in the order of their first records."""
        return list(dict.fromkeys(name for record in self for name in record))

    def validated(self, keep_best: str | None = None) -> dict[str, float]:
        """Metrics of the best validation by one of them, or of the last; by name.

        They are those of the parameters that :func:`fsparse.fit` returns, if
        ``keep_best`` is what it was given. Nothing, if there was no validation.
        """
        judged = [r for r in self if any(name.startswith("val_") for name in r)]
        found = judged[-1] if judged else {}
        if keep_best is not None:
            best = best_of(self, f"val_{keep_best}", find(keep_best).sign)
            found = found if best is None else best
        return {n[4:]: x for n, x in found.items() if n.startswith("val_")}

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """A line a record, with nothing where it has no such figure."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.names)
            writer.writeheader()
            writer.writerows(self)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """A list of objects; NaN and infinities are null, which JSON has."""
        finite = [
            {name: x if isfinite(x) else None for name, x in record.items()}
            for record in self
        ]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(finite, file, indent=1, allow_nan=False)
            file.write("\n")


def best_of(history: History, name: str, sign: int) -> Record | None:
    """The first of the best records, by one figure; NaN is never the best."""
    known = [record for record in history if not isnan(record.get(name, nan))]
    return max(known, key=lambda record: sign * record[name], default=None)


def plot(history: History, path: str | os.PathLike[str]) -> None:
    """Draws losses and metrics over steps, as a PNG.

    Args:
      history: of :func:`fsparse.fit`.
      path: file to write; what is there is replaced.

    Raises:
      ImportError: without matplotlib, which ``pip install 'fsparse[examples]'`` brings.
      OSError: if the file cannot be written.
      ValueError: if there is nothing to draw.

    Losses are on the left, all other metrics on the right.

    Example:
      >>> from fsparse import train
      >>> train.plot(fitted.history, "curve.png")  # doctest: +SKIP
    """
    names = [n for n in history.names if n not in _NO_CURVES]
    if not names:
        raise ValueError("train.plot: history must have figures to draw; got none.")
    is_loss = {name: "loss" in name for name in names}
    sides = [[n for n in names if is_loss[n] == side] for side in (True, False)]
    sides = [side for side in sides if side]
    figure = _empty_figure(len(sides))
    every = figure.subplots(1, len(sides), squeeze=False)[0]
    for axes, side in zip(every, sides, strict=True):
        for name in side:
            axes.plot(*history.column(name), ".-", label=name)
        axes.set(xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")


_NO_CURVES = {"step", "epoch", "seconds", "skipped"}


def _empty_figure(num_columns: int) -> Any:
    """Without pyplot, whose backend and open figures are those of the caller."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(
            f"train.plot: matplotlib must be installed; got {e}. Run pip install "
            "'fsparse[examples]'."
        ) from e
    return Figure(figsize=(5.5 * num_columns, 4), layout="constrained")
