"""A training step that drops what it learns little from, and batches what is left.

    candidates -> score -> keep by threshold -> queue -> a full batch -> the user's step

How many candidates are kept differs from call to call, so that the step trains when a
batch is full, and some calls only look at candidates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._carry import (
    CarryOver,
    carry_init,
    carry_pop,
    carry_push,
    threshold,
)
from fsparse.adaptive._exact_scorers import require_targets
from fsparse.adaptive._scorers import Batch, Scorer, num_examples
from fsparse.adaptive._step import TrainStep, validity

Array = jax.Array
Tau = float | Callable[[Array, Array], Array]


class ThresholdState(NamedTuple):
    """All that a run is: with it, a checkpoint goes on bit for bit."""

    train: Any  # the user's own
    scorer: Any
    key: Array
    carry: CarryOver  # of candidates with what the scorer keeps them by
    num_calls: Array  # i32[]


class ThresholdInfo(NamedTuple):
    """What there is to observe of a call."""

    aux: Any  # of the user's step; zeros where there was none
    is_trained: Array  # bool[], whether a batch was full
    weights: Array  # f32[M], of the candidates: 0 for those that were dropped
    num_waiting: Array  # i32[], kept and not trained on yet


class ThresholdStep(NamedTuple):
    """A pair of pure functions.

    ``init(key, train_state, candidates) -> ThresholdState``, of candidates like those
    to come; ``step(state, candidates, is_valid=None) -> (ThresholdState,
    ThresholdInfo)``.
    """

    init: Callable[[Array, Any, Batch], ThresholdState]
    step: Callable[..., tuple[ThresholdState, ThresholdInfo]]


def threshold_step(
    train_step: TrainStep,
    scorer: Scorer,
    *,
    size: int,
    tau: Tau,
    prob: float,
    always: Callable[[Batch], Array] | None = None,
    warmup: int = 0,
    until: int | None = None,
    frozen: bool = False,
) -> ThresholdStep:
    """Wraps a training step: high scores are kept, a share of the rest stands for it.

    A candidate is kept with weight 1 if ``score >= tau``, and otherwise with chance
    ``prob`` and weight ``1 / prob``. The kept wait, first in first out, and ``size`` of
    them at a time are trained on.

    Args:
      train_step: ``(train_state, batch, weights f32[size]) -> (train_state, targets
        f32[size], aux)``, as for :func:`fsparse.adaptive.adaptive_step`.
      scorer: what decides.
      size: examples of a batch, at least as many as candidates of a call: then a call
        fills one batch at most, and none is lost.
      tau: the threshold, or a function of ``(scores f32[M], is_valid bool[M])`` to it.
      prob: the chance of what is below it, in ``(0, 1]``.
      always: of candidates, ``bool[M]``: true for those that are kept in any case.
      warmup: calls at first that keep everything, and learn from it.
      until: the call from which on everything is kept again; None for never.
      frozen: whether the scorer learns during the warm-up only.

    Returns:
      A :class:`ThresholdStep`.

    Raises:
      TypeError: if ``scorer`` is none; by ``step``, if a dtype is another.
      ValueError: if a number is out of range; by ``init`` and ``step``, if shapes
        disagree or there are more candidates than ``size``.

    ``sum(weights * loss)`` over all that is kept estimates that over all candidates
    without bias. ``mean(weights * loss)`` over a batch is larger by one over the share
    that is kept: that is nothing to Adam, and a larger learning rate to SGD.

    All that the caller donates is overwritten in place. Not for data parallelism:
    devices would have full batches at different times.

    Example:
      >>> from fsparse import adaptive
      >>> def train_step(w, batch, weights):
      ...     loss = lambda w: 0.5 * (w - batch) ** 2
      ...     gradient = jax.grad(lambda w: jnp.mean(weights * loss(w)))(w)
      ...     return w - 0.5 * gradient, loss(w), ()
      >>> scorer = adaptive.exact(lambda w, batch: jnp.abs(w - batch))
      >>> init, step = threshold_step(train_step, scorer, size=2, tau=0.5, prob=1e-3)
      >>> candidates = jnp.array([0.0, 1.0])
      >>> state = init(jax.random.key(0), jnp.float32(0), candidates)
      >>> state, info = step(state, candidates)
      >>> info.weights, info.is_trained, info.num_waiting
      (Array([0., 1.], dtype=float32), Array(False, dtype=bool), Array(1, dtype=int32))
      >>> state, info = step(state, candidates)
      >>> info.is_trained, state.train
      (Array(True, dtype=bool), Array(0.5, dtype=float32))
    """
    fn = "threshold_step"
    _checks.require_type(fn, Scorer, scorer=scorer)
    _checks.require_count(fn, 1, size=size)
    _checks.require_between(fn, 2.0**-20, 1, prob=prob)
    _checks.require_count(fn, 0, warmup=warmup)
    last = 2**31 - 1 if until is None else until
    _checks.require_count(fn, 0, until=last)

    def init(key: Array, train_state: Any, candidates: Batch) -> ThresholdState:
        m = num_examples(fn, candidates)
        _require_room(fn, size, m)
        of_scorer, of_steps = jax.random.split(key)
        known = scorer.init(of_scorer)
        encoded = jax.eval_shape(scorer.encode, known, candidates)
        carry = carry_init((candidates, encoded), size + m)
        known, carry = jax.tree.map(jnp.array, (known, carry))  # a caller may donate
        zero = jnp.zeros((), jnp.int32)
        return ThresholdState(train_state, known, of_steps, carry, zero)

    def keep(key: Array, state: ThresholdState, *pool: Any) -> tuple[Any, Array]:
        candidates, is_valid = pool
        known, train = jax.lax.stop_gradient((state.scorer, state.train))
        encoded = scorer.encode(known, candidates)
        scores = scorer.score(known, encoded, train, candidates)
        bound = tau(scores, is_valid) if callable(tau) else tau
        is_whole = (state.num_calls < warmup) | (state.num_calls >= last)
        kept = jnp.broadcast_to(is_whole, is_valid.shape)
        kept = kept if always is None else kept | always(candidates)
        weights = threshold(key, scores, is_valid, tau=bound, prob=prob, always=kept)
        return encoded, weights

    def train(is_learning: Array, run: _Run, *lesson: Any) -> tuple[_Run, Any]:
        batch, encoded, weights = lesson
        new, targets, aux = train_step(run.train, batch, weights)
        targets = require_targets(fn, "train_step", targets, size)
        learn = lambda known: scorer.update(known, encoded, targets, weights)  # noqa: E731
        if not frozen:
            return _Run(new, learn(run.scorer)), aux
        known = jax.lax.cond(is_learning, learn, lambda known: known, run.scorer)
        return _Run(new, known), aux

    def step(
        state: ThresholdState, candidates: Batch, is_valid: Array | None = None
    ) -> tuple[ThresholdState, ThresholdInfo]:
        is_valid = validity(fn, candidates, is_valid)
        _require_room(fn, size, len(is_valid))
        key, of_draws = jax.random.split(state.key)
        encoded, weights = keep(of_draws, state, candidates, is_valid)
        carry = carry_push(state.carry, (candidates, encoded), weights)
        (batch, code), of_batch, is_full, carry = carry_pop(carry, size)
        run, aux = _if_full(
            is_full,
            train,
            state.num_calls < warmup,
            _Run(state.train, state.scorer),
            batch,
            code,
            of_batch,
        )
        new = ThresholdState(*run, key, carry, state.num_calls + 1)
        return new, ThresholdInfo(aux, is_full, weights, carry.count)

    return ThresholdStep(init, step)


class _Run(NamedTuple):
    """What a full batch changes."""

    train: Any
    scorer: Any


def _if_full(
    is_full: Array, train: Callable[..., Any], is_learning: Array, run: _Run, *rest: Any
) -> tuple[_Run, Any]:
    _, aux = jax.eval_shape(train, is_learning, run, *rest)

    def wait(is_learning: Array, run: _Run, *rest: Any) -> tuple[_Run, Any]:
        del is_learning, rest
        return run, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), aux)

    return jax.lax.cond(is_full, train, wait, is_learning, run, *rest)


def _require_room(fn: str, size: int, num_candidates: int) -> None:
    if num_candidates > size:
        raise ValueError(
            f"{fn}: size must be at least the number of candidates, or a call could "
            f"fill several batches; got size={size} and {num_candidates} candidates. "
            "Split them into several calls."
        )
