"""The loop around the step: what is measured, told and saved on the way."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from fsparse._warnings import NonFiniteWarning
from fsparse.adaptive import variance_reduction
from fsparse.data import prefetch
from fsparse.train._folder import Folder
from fsparse.train._history import History, Record
from fsparse.train._interrupts import interrupts
from fsparse.train._keeper import Keeper
from fsparse.train._progress import Progress
from fsparse.train._sources import Source
from fsparse.train._step import Step, TrainState

Callback = Callable[[Record, TrainState], bool | None]


@dataclass(frozen=True)
class Every:
    """How often :func:`fsparse.fit` does what it does beside training.

    Args:
      log: steps from one record of the loss to the next.
      validation: steps from one validation to the next; None for once an epoch.
      checkpoint: seconds from one checkpoint to the next.

    Example:
      >>> Every(checkpoint=60.0)
      Every(log=100, validation=None, checkpoint=60.0)
    """

    log: int = 100
    validation: int | None = None
    checkpoint: float = 300.0


@dataclass
class Run:
    """Where training stands. A checkpoint holds all of it."""

    state: TrainState
    step: int = 0
    epoch: int = 0  # whole passes over the data
    batch: int = 0  # of the pass that is under way
    seconds: float = 0.0  # without validation and saving
    loss_sum: float = 0.0  # since the last record
    num_losses: int = 0
    history: History = field(default_factory=History)

    def progress(self) -> dict[str, Any]:
        """All but the state, for JSON."""
        return {name: getattr(self, name) for name in _PROGRESS}


_PROGRESS = [f.name for f in fields(Run) if f.name != "state"]


class Budget(NamedTuple):
    """When training ends; one of them is set."""

    epochs: int | None
    steps: int | None
    seconds: float | None

    def is_spent(self, run: Run) -> bool:
        """Whether training ends here."""
        if self.steps is not None:
            return run.step >= self.steps
        if self.seconds is not None:
            return run.seconds >= self.seconds
        return self.epochs is not None and run.epoch >= self.epochs

    def share(self, run: Run, num_batches: int | None) -> float:
        """How much is spent, as far as it is known."""
        if self.steps is not None:
            return run.step / max(self.steps, 1)
        if self.seconds is not None:
            return min(run.seconds / self.seconds, 1.0)
        part = run.batch / num_batches if num_batches else 0.0
        return (run.epoch + part) / max(self.epochs or 1, 1)


@dataclass
class Loop:
    """What a run is done with."""

    step: Step
    source: Source
    budget: Budget
    every: Every
    judge: Callable[[Any, Any], Mapping[str, float]] | None  # of params and state
    keeper: Keeper | None
    folder: Folder | None
    callbacks: Sequence[Callback]
    bar: Progress
    is_stopped: bool = False  # by a callback, or for want of progress
    saved_at: float = 0.0

    def train(self, run: Run) -> int | None:
        """Trains until the budget is spent, or to a signal, which it returns."""
        self._out_of_patience(run)
        self.saved_at = time.perf_counter()
        with interrupts() as caught, closing(self.bar):
            while not (caught or self._is_over(run)):
                self._pass(run, caught)
            if not caught and not _is_recorded(run, judged=self.judge is not None):
                self._record(run, judged=True)
            self._save(run)
        return caught[0] if caught else None

    def _is_over(self, run: Run) -> bool:
        return self.is_stopped or self.budget.is_spent(run)

    def _pass(self, run: Run, caught: list[int]) -> None:
        """One epoch, or what is left of it."""
        clock = time.perf_counter()
        with closing(prefetch(self.source.batches(run.epoch, run.batch))) as batches:
            for batch, is_valid in batches:
                self._step(run, batch, is_valid)
                run.seconds += time.perf_counter() - clock
                self._after_step(run)
                clock = time.perf_counter()
                if caught or self._is_over(run):
                    return
        if not run.batch:
            raise ValueError(
                f"fit: train must give at least 1 batch in each epoch; epoch "
                f"{run.epoch} gave none."
            )
        run.epoch, run.batch = run.epoch + 1, 0
        self._record(run, judged=self.every.validation is None)

    def _step(self, run: Run, batch: Any, is_valid: np.ndarray) -> None:
        run.state, info = self.step.step(run.state, batch, is_valid)
        loss = float(info.loss)
        run.step, run.batch = run.step + 1, run.batch + 1
        if isfinite(loss):
            run.loss_sum, run.num_losses = run.loss_sum + loss, run.num_losses + 1
        self.bar.advance(self.budget.share(run, self.source.num_batches), loss)

    def _after_step(self, run: Run) -> None:
        period = self.every.validation
        judged = period is not None and run.step % period == 0
        if judged or run.step % self.every.log == 0:
            self._record(run, judged=judged)
        if time.perf_counter() - self.saved_at >= self.every.checkpoint:
            self._save(run)

    def _record(self, run: Run, *, judged: bool) -> None:
        """Figures of this moment, on the validation set too if ``judged``."""
        before = run.history[-1]["skipped"] if run.history else 0
        record = _figures(run)
        if judged and self.judge is not None:
            figures = self.judge(run.state.params, run.state.state)
            record |= {f"val_{name}": value for name, value in figures.items()}
        _add(run.history, record)
        _warn_of_skipped(record, before)
        self.bar.tell(record)
        if judged and self.judge is not None:
            self._keep(run, record)
        stops = [callback(dict(record), run.state) for callback in self.callbacks]
        self.is_stopped |= any(stop is True for stop in stops)

    def _keep(self, run: Run, record: Record) -> None:
        if self.keeper is not None:
            model = run.state.params, run.state.state
            self.keeper.offer(model, record[self.keeper.name])
            self._out_of_patience(run)

    def _out_of_patience(self, run: Run) -> None:
        if self.keeper is not None and self.keeper.is_out_of_patience(run.history):
            self.is_stopped = True

    def _save(self, run: Run) -> None:
        if self.folder is not None:
            self.folder.save(run.state, run.progress())
        self.saved_at = time.perf_counter()


def _figures(run: Run) -> Record:
    """Those of training, since the last record."""
    record: Record = {"step": run.step, "epoch": run.epoch, "seconds": run.seconds}
    record["skipped"] = int(run.state.moments.skipped)
    if run.num_losses:
        record["loss"] = run.loss_sum / run.num_losses
        run.loss_sum, run.num_losses = 0.0, 0
    if run.state.sampling:
        gain = variance_reduction(run.state.sampling.gain)
        record["variance_reduction"] = float(gain)
    return record


def _add(history: History, record: Record) -> None:
    """As a record, or to the one of the same step."""
    if history and history[-1]["step"] == record["step"]:
        history[-1].update(record)
    else:
        history.append(dict(record))


def _is_recorded(run: Run, *, judged: bool) -> bool:
    """Whether the last record is of this moment."""
    if not run.history or run.history[-1]["step"] != run.step:
        return False
    return not judged or any(name.startswith("val_") for name in run.history[-1])


def _warn_of_skipped(record: Record, before: int) -> None:
    if (skipped := record["skipped"] - before) > 0:
        warnings.warn(
            f"fit: losses and gradients must be finite; {skipped} steps before step "
            f"{record['step']} were not, and were skipped ({record['skipped']} of the "
            "run). Lower the learning rate, or look for NaN in the data.",
            NonFiniteWarning,
            stacklevel=2,
        )
