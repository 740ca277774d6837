"""How far training is, for the eye: a bar by rich on a terminal, else plain lines."""

import sys
from typing import Any, Protocol

from fsparse.train._history import Record


class Progress(Protocol):
    """Where to tell of training."""

    def advance(self, share: float, loss: float) -> None:
        """After each step: the share that is done, from 0 to 1."""

    def tell(self, record: Record) -> None:
        """After each record of figures."""

    def close(self) -> None:
        """At the end."""


def progress_of(wanted: bool) -> Progress:
    """A bar on a terminal, lines in a file; nothing if it is not wanted."""
    if not wanted:
        return _Silent()
    if sys.stderr.isatty():
        try:
            return _Bar()
        except ImportError:
            pass
    return _Lines()


def line_of(record: Record) -> str:
    """All figures of a record, in a line."""
    return "  ".join(f"{name} {_shown(value)}" for name, value in record.items())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Silent:
    def advance(self, share: float, loss: float) -> None:
        pass

    def tell(self, record: Record) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines(_Silent):
    def tell(self, record: Record) -> None:
        print(line_of(record), file=sys.stderr)


class _Bar(_Silent):
    def __init__(self) -> None:
        import rich.console
        import rich.progress

        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("training"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("loss {task.fields[loss]:.4f}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=rich.console.Console(stderr=True),
        )
        self._task = self._bar.add_task("training", total=1.0, loss=float("nan"))
        self._bar.start()

    def advance(self, share: float, loss: float) -> None:
        self._bar.update(self._task, completed=share, loss=loss)

    def tell(self, record: Record) -> None:
        self._bar.console.print(line_of(record), highlight=False, markup=False)

    def close(self) -> None:
        self._bar.stop()
