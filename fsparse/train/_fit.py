"""Training from a model and data to parameters and a history."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.data import Dataset, column_counts
from fsparse.memory import use_huge_pages
from fsparse.metrics import find
from fsparse.optimizer import Optimizer, skip_nonfinite
from fsparse.train._arguments import (
    budget_of,
    candidates,
    check_choices,
    check_numbers,
    described,
    described_data,
    described_rate,
    fingerprint_of,
    in_order,
)
from fsparse.train._folder import Folder
from fsparse.train._history import History
from fsparse.train._judge import judge_of
from fsparse.train._keeper import Keeper
from fsparse.train._loop import Callback, Every, Loop, Run
from fsparse.train._progress import progress_of
from fsparse.train._sources import Data, Sizes, source_of
from fsparse.train._step import (
    Adaptive,
    Model,
    Rate,
    Step,
    default_optimizer,
    make_step,
    require_model,
)


class Fitted(NamedTuple):
    """A trained model."""

    model: Model
    params: Any
    state: Any  # the model's own
    history: History


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in :func:`fit`, after the step and a checkpoint; ``fitted`` is so far."""

    def __init__(self, message: str, fitted: Fitted) -> None:
        super().__init__(message)
        self.fitted = fitted


def fit(
    model: Model,
    train: Data,
    *,
    validation: Data | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    batch_size: int = 256,
    feature_capacity: int | None = None,
    label_capacity: int | None = None,
    learning_rate: Rate | None = None,
    optimizer: Optimizer | None = None,
    adaptive: Adaptive | None = None,
    initial: tuple[Any, Any] | None = None,
    metrics: Sequence[str] = ("loss", "p@1"),
    keep_best: str | None = None,
    patience: int | None = None,
    folder: str | PathLike[str] | None = None,
    resume: bool | str = "auto",
    every: Every = Every(),  # noqa: B008
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    seed: int = 0,
) -> Fitted:
    """Trains a model.

    Each step is that of :func:`fsparse.make_step`, on the next batch; steps whose loss
    or gradient is not finite are skipped, counted, and warned of.

    Args:
      model: three pure functions, see :class:`fsparse.train.Model`.
      train: a :class:`fsparse.data.Dataset`, shuffled by the seed and the number of the
        epoch; or a function from that number to an iterable of batches, pytrees of
        arrays ``[batch_size, ...]``. Shorter ones are filled up, and the padding does
        not count. What a stream has padded itself does, unless it gives each batch as
        a :class:`fsparse.adaptive.Pool`, which says which examples are valid. A list of
        batches is taken in order.
      validation: the same, to judge by.
      epochs: passes over ``train`` to end after; 1 if nothing else is given.
      steps: batches to end after.
      seconds: of training, validation and saving not counted, to end after.
      batch_size: examples of a step; may be more than there are.
      feature_capacity: room for the features of an example; None for the longest row.
      label_capacity: room for its labels; None for the longest row.
      learning_rate: of Adam, 1e-3 if not given: a number, or a schedule such as
        optax's, a function from the number of updates to one.
      optimizer: of :func:`fsparse.multi_transform`, in the place of Adam.
      adaptive: to choose what to train on, see :class:`fsparse.train.Adaptive`. An
        epoch then has so many candidates, and fewer steps.
      initial: parameters and state to start from, which are copied; None for those of
        ``model.init``, and its ``with_label_counts`` of the training set if it has one.
      metrics: of the validation set, names that :func:`fsparse.metrics.find` knows.
      keep_best: the metric by which the best parameters are kept, and returned at the
        end; None for the last ones.
      patience: validations without a better ``keep_best`` after which to stop.
      folder: for ``checkpoint.npz`` and ``best.npz``; None to save nothing. It is
        locked, since only one run may use it.
      resume: ``"auto"`` to go on from the checkpoint of the folder if there is one;
        True if there must be; False to start anew and lose it.
      every: how often to log, validate and save, see :class:`fsparse.train.Every`.
      callbacks: functions of each new record of the history and the
        :class:`fsparse.train.TrainState`, which the next step overwrites; one that
        returns True ends training. See :class:`fsparse.train.TensorBoard`.
      progress: whether to tell on stderr: by a bar on a terminal where rich is
        installed, else in lines.
      seed: of parameters, batches and all draws.

    Returns:
      A :class:`fsparse.train.Fitted`: ``(model, params, state, history)``.

    Raises:
      TypeError: if the model lacks a function, or an argument is of another type.
      ValueError: if a number is out of range; if ``train`` is empty, or ``validation``
        has other columns; if a metric is unknown, or cannot be had.
      CheckpointError: if the checkpoint is of a run with other settings, which it
        names, or damaged.
      FileNotFoundError: with ``resume=True``, if there is no checkpoint.
      OSError: if the folder cannot be written, or the disk is full.
      RuntimeError: if another run uses the folder.
      Interrupted: a KeyboardInterrupt, by Ctrl-C, once the step is done and saved.

    A run that was killed at any moment, while it saved too, goes on from its last
    checkpoint to the bits that it would have reached, history and best parameters
    included, but for the seconds. With ``seconds`` it ends at another step.

    Example:
      >>> import fsparse
      >>> from fsparse.data import Dataset, from_lists
      >>> class Linear:
      ...     def init(self, key):
      ...         return {"w": fsparse.Table(jnp.zeros((3, 3)))}, ()
      ...
      ...     def logits(self, params, batch):
      ...         return fsparse.embedding_bag(params["w"], batch.feature_ids)
      ...
      ...     def loss(self, params, state, batch, *, key=None, train=True):
      ...         logits, labels = self.logits(params, batch), batch.label_ids
      ...         active = jnp.ones(3, bool)
      ...         return fsparse.sampled_softmax_loss(logits, labels, active), state
      ...
      ...     def predict(self, params, state, batch, k):
      ...         return jax.lax.top_k(self.logits(params, batch), k)
      >>> rows = from_lists([[0], [1], [2]] * 10, 3)
      >>> examples = Dataset(rows, rows)
      >>> options = {"epochs": 5, "batch_size": 8, "learning_rate": 0.1}
      >>> fitted = fit(Linear(), examples, progress=False, **options)
      >>> fsparse.evaluate(*fitted[:3], examples, ["p@1"])
      {'p@1': 1.0}
    """
    fn = "fit"
    require_model(fn, model)
    check_numbers(fn, batch_size, seed, patience, every)
    check_choices(fn, optimizer, learning_rate, keep_best, patience, validation)
    budget = budget_of(fn, epochs, steps, seconds)
    sizes = Sizes(batch_size, feature_capacity, label_capacity)
    source = source_of(fn, "train", train, candidates(sizes, adaptive), seed)
    adaptive = in_order(adaptive, train)
    step = _make(model, optimizer, learning_rate, adaptive, initial)
    names = tuple(dict.fromkeys([*metrics, *([keep_best] if keep_best else [])]))
    judge = judge_of(fn, model, step, train, validation, sizes, names, initial)
    settings = {
        "model": described(model),
        "train": source.fingerprint,
        "learning_rate": described_rate(learning_rate, optimizer),
        "adaptive": adaptive and described(adaptive),
        "validation": described_data(validation, sizes),
        "initial": fingerprint_of(initial),
        "keep_best": keep_best,
        "seed": seed,
        **sizes._asdict(),
    }
    with _opened(fn, folder, resume, settings) as files:
        keeper = Keeper(find(keep_best), patience, files) if keep_best else None
        run = _start(step, files, seed, initial)
        if initial is None and run.step == 0:
            run = _with_label_counts(model, train, run)
        use_huge_pages(run.state)
        bar = progress_of(progress)
        loop = Loop(step, source, budget, every, judge, keeper, files, callbacks, bar)
        caught = loop.train(run)
        model_of_run = run.state.params, run.state.state
        params, state = keeper.best(model_of_run) if keeper else model_of_run
    fitted = Fitted(model, params, state, run.history)
    if caught is not None:
        _pass_on(caught, fitted, run.step, folder)
    return fitted


# ---- where a run begins and ends ---------------------------------------------------


def _make(
    model: Model,
    optimizer: Optimizer | None,
    learning_rate: Rate | None,
    adaptive: Adaptive | None,
    initial: tuple[Any, Any] | None,
) -> Step:
    if optimizer is None:
        params = jax.eval_shape(partial(_initial, model, initial), jax.random.key(0))[0]
        rate = 1e-3 if learning_rate is None else learning_rate
        optimizer = default_optimizer(params, rate)
    _checks.require_type("fit", Optimizer, optimizer=optimizer)
    return make_step(model, _skipping(optimizer), adaptive=adaptive)


_skipping = lru_cache(maxsize=64)(skip_nonfinite)  # so that a step is compiled once


def _initial(model: Model, initial: tuple[Any, Any] | None, key: Any) -> Any:
    return model.init(key) if initial is None else initial


@contextmanager
def _opened(
    fn: str,
    folder: str | PathLike[str] | None,
    resume: bool | str,
    settings: dict[str, Any],
) -> Iterator[Folder | None]:
    """The folder, cleared if there is nothing to go on from."""
    if resume not in (True, False, "auto"):
        raise ValueError(f"{fn}: resume must be True, False or 'auto'; got {resume!r}.")
    if folder is None:
        if resume is True:
            raise ValueError(f"{fn}: resume=True must have a folder; got None.")
        yield None
        return
    with closing(Folder(folder, settings)) as files:
        exists = files.checkpoint.exists()
        if resume is True and not exists:
            raise FileNotFoundError(
                f"{fn}: resume=True must have a checkpoint; there is no "
                f"{files.checkpoint}. Pass resume='auto' to start where there is none."
            )
        if resume is False or not exists:
            files.clear()
        yield files


def _start(
    step: Step, files: Folder | None, seed: int, initial: tuple[Any, Any] | None
) -> Run:
    """A new run, or the one of the checkpoint."""
    key = jax.random.key(seed)
    if files is None or not files.checkpoint.exists():
        return Run(step.init(key, jax.tree.map(jnp.array, initial)))
    like = jax.eval_shape(partial(step.init, initial=initial), key)
    state, progress = files.load(like)
    history = History(progress.pop("history"))
    return Run(state, history=history, **progress)


def _with_label_counts(model: Any, train: Data, run: Run) -> Run:
    """Tells a model that asks for it how often each label is seen in training."""
    if not hasattr(model, "with_label_counts") or not isinstance(train, Dataset):
        return run
    state = model.with_label_counts(run.state.state, column_counts(train.labels))
    return replace(run, state=run.state._replace(state=state))


def _pass_on(number: int, fitted: Fitted, step: int, folder: Any) -> None:
    """What the signal would have done."""
    if number != signal.SIGINT:
        signal.raise_signal(number)
    saved = "not saved; pass a folder next time" if folder is None else "saved"
    raise Interrupted(f"fit: stopped at step {step}, and {saved}.", fitted)
