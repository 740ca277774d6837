"""What may be called with each record of figures."""

import os
import weakref
from importlib import import_module
from typing import Any

from fsparse.train._history import Record


class TensorBoard:
    """A callback of :func:`fsparse.fit` that writes all figures for TensorBoard.

    Args:
      folder: for its event files, which are whole after ``close()``, or when the object
        or the program ends.

    Raises:
      ImportError: if neither tensorboardX nor tensorboard is installed.

    Example:
      >>> from fsparse import train
      >>> callbacks = [train.TensorBoard("runs/one")]  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._writer = _writer(os.fspath(folder))
        self.close = weakref.finalize(self, self._writer.close)

    def __call__(self, record: Record, state: Any) -> None:
        """Each figure is a curve; those of validation are in a group of their own."""
        del state
        for name, value in record.items():
            if name != "step":
                tag = f"validation/{name[4:]}" if name.startswith("val_") else name
                tag = tag.replace("@", "_at_")
                self._writer.add_scalar(tag, float(value), record["step"])
        self._writer.flush()


def _writer(folder: str) -> Any:
    for module, name in (
        ("tensorboardX", "SummaryWriter"),
        ("tensorboard.summary", "Writer"),
    ):
        try:
            return getattr(import_module(module), name)(folder)
        except ImportError:
            continue
    raise ImportError(
        "train.TensorBoard: tensorboardX or tensorboard must be installed; there is "
        "neither. Run pip install tensorboardX."
    )
