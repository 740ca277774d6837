"""One step of training, as a compiled function of one explicit state."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive import (
    AdaptiveState,
    AdaptiveStep,
    Scorer,
    Selector,
    adaptive_step,
    systematic,
)
from fsparse.adaptive._scorers import num_examples
from fsparse.adaptive._step import Plain, validity
from fsparse.differentiate import is_table, value_and_grad
from fsparse.optimizer import Optimizer, multi_transform
from fsparse.rows import ExactAdamState
from fsparse.rows import adam as row_adam

Array = jax.Array
Rate = float | Array | Callable[[Array], Any]


@runtime_checkable
class Model(Protocol):
    """What can be trained: three pure functions. A batch is any pytree of arrays.

    A model must be hashable, as a frozen dataclass is: compiled functions depend on it.
    """

    def init(self, key: Array) -> tuple[Any, Any]:
        """Parameters, with wide tables as :class:`fsparse.Table`, and other state."""

    def loss(
        self,
        params: Any,
        state: Any,
        batch: Any,
        *,
        key: Array | None = None,
        train: bool = True,
    ) -> tuple[Array, Any]:
        """The loss of each example, ``f32[b]``, and the new state."""

    def predict(
        self, params: Any, state: Any, batch: Any, k: int
    ) -> tuple[Array, Array]:
        """Scores ``f32[b, k]``, the largest first, and their labels, ``i32[b, k]``."""


class TrainState(NamedTuple):
    """All that a step needs and changes: with it, a checkpoint goes on bit for bit."""

    params: Any
    state: Any  # the model's own
    moments: Any  # the optimizer's
    key: Array
    step: Array  # i32[], steps so far
    sampling: Any = ()  # scorer, key, gain and steps of adaptive sampling


class StepInfo(NamedTuple):
    """What there is to observe of a step."""

    loss: Array  # f32[], the mean over the batch, as it was minimised
    losses: Array  # f32[b], of the examples that were trained on
    weights: Array  # f32[b], theirs, with mean 1; 0 for padding


class Step(NamedTuple):
    """A pair of functions.

    ``init(key, initial=None) -> TrainState``; ``step(state, batch, is_valid=None) ->
    (TrainState, StepInfo)``, which is compiled, once for equal models, optimizers and
    shapes, and overwrites the state it is given.
    """

    init: Callable[..., TrainState]
    step: Callable[..., tuple[TrainState, StepInfo]]


@dataclass(frozen=True)
class Adaptive:
    """Adaptive sampling: of each ``pool`` batches of candidates, one is trained on.

    Args:
      scorer: how much a candidate matters, such as :func:`fsparse.adaptive.sketched`.
        What it is shown as the state of training is a :class:`TrainState`.
      pool: candidates for each example that is trained on.
      selector: from a number of examples to a :data:`fsparse.adaptive.Selector`.
      min_gain: see :func:`fsparse.adaptive.adaptive_step`, as for the others.
      warmup: steps of uniform batches at first.
      probe_every: steps between evaluations of scores that are not followed.
      when_off: which candidates uniform batches take; :func:`fsparse.fit` chooses
        ``"first"`` for a data set, which it orders by
        :func:`fsparse.adaptive.pool_order`.

    Example:
      >>> from fsparse import adaptive
      >>> Adaptive(adaptive.uniform(), pool=2).pool
      2
    """

    scorer: Scorer
    pool: int = 4
    selector: Callable[[int], Selector] = systematic
    min_gain: float | None = 1.1
    warmup: int = 0
    probe_every: int = 8
    when_off: Plain = "random"


def default_optimizer(params: Any, learning_rate: Rate = 1e-3) -> Optimizer:
    """Adam: by rows, lazily, for tables, and optax's for all else.

    Args:
      params: what it is to train; only its structure is used.
      learning_rate: a number, or a schedule: from the number of updates to one.

    Raises:
      ImportError: if there are parameters beside tables, and optax is missing.

    Example:
      >>> from fsparse import Table
      >>> params = {"t": Table(jnp.ones((2, 1)))}
      >>> sorted(default_optimizer(params, 0.1).init(params))
      ['tables']
    """
    is_wide = [is_table(x) for x in jax.tree.leaves(params, is_leaf=is_table)]
    rate = learning_rate if callable(learning_rate) else float(learning_rate)
    return _adam(rate, any(is_wide), not all(is_wide))


@lru_cache(maxsize=64)
def _adam(rate: Any, has_tables: bool, has_arrays: bool) -> Optimizer:
    """The same object for the same rate, so that a step is compiled once."""
    transforms: dict[str, Any] = {}
    if has_tables:
        transforms["tables"] = row_adam(rate)
    if has_arrays:
        transforms["dense"] = _optax_adam(rate)
    return multi_transform(transforms)


def _optax_adam(learning_rate: Rate) -> Any:
    try:
        import optax
    except ImportError as e:
        raise ImportError(
            "train: optax must be installed to train parameters that are no tables; "
            f"got {e}. Run pip install optax, or pass an optimizer."
        ) from e
    return optax.adam(learning_rate)


def make_step(
    model: Model, optimizer: Optimizer, *, adaptive: Adaptive | None = None
) -> Step:
    """The step that :func:`fsparse.fit` takes, for loops of your own.

    It minimises ``mean(weights * losses)`` of the model's losses, by ``optimizer``.
    The weights are 0 for padding, and alike for all else; with ``adaptive``, they are
    those of the selection.

    Args:
      model: see :class:`fsparse.train.Model`.
      optimizer: of :func:`fsparse.multi_transform`, perhaps in
        :func:`fsparse.skip_nonfinite`.
      adaptive: to choose what to train on; batches are then pools of candidates, of
        ``adaptive.pool`` times as many examples.

    Returns:
      A :class:`fsparse.train.Step`. Its ``init(key, initial=None)`` gives a
      :class:`fsparse.train.TrainState`, of the model's own parameters and state or of
      the pair ``initial``; its ``step(state, batch, is_valid=None)`` the next one, in
      place, and a :class:`fsparse.train.StepInfo`. ``batch`` is any pytree of arrays
      ``[b, ...]``, and ``is_valid`` is ``bool[b]``, false for padding. Step ``t`` draws
      from ``jax.random.fold_in(state.key, t)``.

    Raises:
      TypeError: if ``model`` lacks a function, or ``optimizer`` is another thing; by
        ``step``, if the losses are not float32.
      ValueError: for :func:`fsparse.rows.exact_adam`, which must be told what a step
        will read; by ``step``, if shapes disagree.

    Example:
      >>> import fsparse
      >>> from fsparse import Table, rows
      >>> class Mean:
      ...     def init(self, key):
      ...         return {"w": Table(jnp.zeros((1, 1)))}, ()
      ...
      ...     def loss(self, params, state, batch, *, key=None, train=True):
      ...         w = fsparse.take_rows(params["w"], jnp.array([0]))[0, 0]
      ...         return (w - batch) ** 2, state
      ...
      ...     def predict(self, params, state, batch, k): ...
      >>> sgd = fsparse.multi_transform({"tables": rows.sgd(0.5)})
      >>> init, step = make_step(Mean(), sgd)
      >>> state, info = step(init(jax.random.key(0)), jnp.array([1.0, 3.0]))
      >>> state.params["w"].value, info.loss
      (Array([[2.]], dtype=float32), Array(5., dtype=float32))
    """
    fn = "make_step"
    require_model(fn, model)
    _checks.require_type(fn, Optimizer, optimizer=optimizer)

    def init(key: Array, initial: tuple[Any, Any] | None = None) -> TrainState:
        of_model, of_steps, of_sampling = jax.random.split(key, 3)
        params, state = _strong(model.init(of_model) if initial is None else initial)
        moments = _strong(optimizer.init(params))
        _require_lazy(fn, moments)
        zero = jnp.zeros((), jnp.int32)
        new = TrainState(params, state, moments, of_steps, zero)
        if adaptive is None:
            return new
        wrapped = _wrapped(partial(_descend, model, optimizer), adaptive, 1)
        return _packed(wrapped.init(of_sampling, new))

    return Step(init, partial(_step, model, optimizer, adaptive))


def require_model(fn: str, model: Any) -> None:
    """Something with the functions of a model, by which programs can be told apart."""
    lacking = [n for n in ("init", "loss", "predict") if not hasattr(model, n)]
    if lacking:
        raise TypeError(
            f"{fn}: model must have the functions init, loss and predict; got "
            f"{type(model).__name__}, which lacks {', '.join(lacking)}."
        )
    try:
        hash(model)
    except TypeError as e:
        raise TypeError(
            f"{fn}: model must be hashable; got {e}. Make {type(model).__name__} a "
            "frozen dataclass, with tuples in the place of lists."
        ) from e


# ---- what a step does --------------------------------------------------------------


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _step(
    model: Model,
    optimizer: Optimizer,
    adaptive: Adaptive | None,
    old: TrainState,
    batch: Any,
    is_valid: Array | None = None,
) -> tuple[TrainState, StepInfo]:
    is_valid = validity("make_step", batch, is_valid)
    descend = partial(_descend, model, optimizer)
    if adaptive is None:
        weights = _alike(is_valid)
        new, losses, loss = descend(old, batch, weights)
        return new, StepInfo(loss, losses, weights)
    size = max(num_examples("make_step", batch) // adaptive.pool, 1)
    wrapped = _wrapped(descend, adaptive, size)
    packed, info = wrapped.step(_unpacked(old), batch, is_valid)
    loss, losses = info.aux
    return _packed(packed), StepInfo(loss, losses, info.selection.weights)


def _descend(
    model: Model, optimizer: Optimizer, old: TrainState, batch: Any, weights: Array
) -> tuple[TrainState, Array, Array]:
    """One update, with the loss of each example and what was minimised."""
    key = jax.random.fold_in(old.key, old.step)

    def loss_fn(params: Any) -> tuple[Array, Any]:
        losses, state = model.loss(params, old.state, batch, key=key, train=True)
        losses = _checked(losses, weights)
        weighted = jnp.where(weights > 0, weights * losses, 0)
        return jnp.mean(weighted), (losses, state)

    (loss, (losses, state)), grads = value_and_grad(loss_fn, has_aux=True)(old.params)
    params, moments = optimizer.step(old.params, old.moments, grads)
    new = old._replace(params=params, state=state, moments=moments, step=old.step + 1)
    return new, losses, loss


def _checked(losses: Any, weights: Array) -> Array:
    (losses,) = _checks.as_arrays("model.loss", losses=losses)
    _checks.require_f32("model.loss", losses=losses)
    requirement = f"losses must be f32[{weights.shape[0]}], one for each example"
    _checks.require(
        "model.loss", losses.shape == weights.shape, requirement, losses=losses
    )
    return losses


def _alike(is_valid: Array) -> Array:
    """Weights with mean 1 for what is valid."""
    num = jnp.sum(is_valid, dtype=jnp.float32)
    return is_valid * (is_valid.shape[0] / jnp.maximum(num, 1))


def _wrapped(descend: Callable[..., Any], options: Adaptive, size: int) -> AdaptiveStep:
    """The step, of ``size`` examples chosen from the candidates."""

    def train_step(old: TrainState, batch: Any, weights: Array) -> Any:
        new, losses, loss = descend(old, batch, weights)
        return new, losses, (loss, losses)

    return adaptive_step(
        train_step,
        options.scorer,
        options.selector(size),
        min_gain=options.min_gain,
        warmup=options.warmup,
        probe_every=options.probe_every,
        when_off=options.when_off,
    )


def _packed(state: AdaptiveState) -> TrainState:
    """The one state, with that of the sampling inside."""
    return state.train._replace(sampling=state._replace(train=()))


def _unpacked(state: TrainState) -> AdaptiveState:
    return state.sampling._replace(train=state._replace(sampling=()))


def _strong(tree: Any) -> Any:
    """Arrays whose types do not change from the first step to the second."""

    def strong(x: Any) -> Array:
        dtype = jnp.result_type(x)
        return (
            x if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jnp.asarray(x, dtype)
        )

    return jax.tree.map(strong, tree)


def _require_lazy(fn: str, moments: Any) -> None:
    is_exact = lambda x: isinstance(x, ExactAdamState)  # noqa: E731
    if any(map(is_exact, jax.tree.leaves(moments, is_leaf=is_exact))):
        raise ValueError(
            f"{fn}: an optimizer must not need to know which rows a step will read; "
            "got rows.exact_adam. Use rows.adam, or write a step that calls catch_up."
        )
