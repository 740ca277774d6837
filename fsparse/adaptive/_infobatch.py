"""InfoBatch's rule: half of what is easier than the mean, with twice the weight.

Qin et al., InfoBatch: lossless training speed up by unbiased dynamic data pruning,
ICLR 2024. The same rule for a pass over the data, for a stream, and for pools.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._carry import threshold
from fsparse.adaptive._scorers import Batch, cache, ratio
from fsparse.adaptive._selection import Selection, Selector, priority
from fsparse.adaptive._step import TrainStep
from fsparse.adaptive._threshold_step import ThresholdStep, threshold_step

Array = jax.Array


def infobatch_epoch(
    key: Array,
    scores: Array,
    epoch: Array | int,
    num_epochs: int,
    *,
    prune_ratio: float = 0.5,
    delta: float = 0.875,
) -> Array:
    """Which examples of the data to train on in an epoch, and with what weights.

    Of the examples whose score is below the mean a share ``prune_ratio`` is left out,
    and the rest of them has the weight ``1 / (1 - prune_ratio)``; all others have 1. In
    the last epochs nothing is left out.

    Args:
      key: of this epoch.
      scores: ``f32[n]``, the last loss of each example; NaN for one not seen yet, which
        is kept. The ``targets`` of :class:`fsparse.adaptive.Cache` are such.
      epoch: ``i32[]``, from 0.
      num_epochs: of the run.
      prune_ratio: ``r``, in ``[0, 1)``.
      delta: the part of the run in which examples are left out.

    Returns:
      ``f32[n]`` weights, 0 for what is left out. Their mean is 1 on average.

    Raises:
      TypeError: if scores are not float32.
      ValueError: if they have not one axis, or a number is out of range.

    Example:
      >>> scores = jnp.array([0.0, 4.0, jnp.nan, 2.0])
      >>> infobatch_epoch(jax.random.key(0), scores, 0, 8, prune_ratio=0.0)
      Array([1., 1., 1., 1.], dtype=float32)
    """
    fn = "infobatch_epoch"
    _checks.require_count(fn, 1, num_epochs=num_epochs)
    _require_ratios(fn, prune_ratio, delta)
    (scores,) = _checks.as_arrays(fn, scores=scores)
    _checks.require_f32(fn, scores=scores)
    is_whole = jnp.asarray(epoch, jnp.float32) >= delta * num_epochs
    everyone = jnp.ones(scores.shape, bool)
    return threshold(
        key,
        scores,
        everyone,
        tau=_mean(scores, everyone),
        prob=1 - prune_ratio,
        always=jnp.isnan(scores) | is_whole,
    )


def infobatch_step(
    train_step: TrainStep,
    index_of: Callable[[Batch], Array],
    num_examples: int,
    *,
    size: int,
    num_calls: int | None = None,
    prune_ratio: float = 0.5,
    delta: float = 0.875,
    initial: float = 3.0,
) -> ThresholdStep:
    """The rule for candidates as they come: kept examples are batched anew.

    Args:
      train_step: see :func:`fsparse.adaptive.threshold_step`.
      index_of: of a batch, the places of its examples in the data, ``i32[M]``.
      num_examples: of the data.
      size: examples of a batch, at least as many as candidates of a call.
      num_calls: of the run; in the last ``1 - delta`` of them everything is kept. None
        if that is unknown, and never so.
      prune_ratio: ``r``, in ``[0, 1)``.
      delta: the part of the run in which examples are left out.
      initial: the score of an example not seen yet; the authors' code has 3.

    Returns:
      A :class:`fsparse.adaptive.ThresholdStep`. The mean is that of the candidates of
      a call, where the authors take that of all data.

    Raises:
      TypeError: as :func:`fsparse.adaptive.threshold_step`.
      ValueError: as there, and if a ratio is out of range.

    Example:
      >>> def train_step(w, batch, weights):
      ...     return w, batch["x"] * w, ()
      >>> batch = {"x": jnp.ones(4), "index": jnp.arange(4)}
      >>> init, step = infobatch_step(train_step, lambda b: b["index"], 4, size=4)
      >>> state = init(jax.random.key(0), jnp.float32(1), batch)
      >>> state, info = step(state, batch)
      >>> state.scorer.targets
      Array([1., 1., 1., 1.], dtype=float32)
    """
    fn = "infobatch_step"
    _require_ratios(fn, prune_ratio, delta)
    return threshold_step(
        train_step,
        cache(index_of, num_examples, initial=initial),
        size=size,
        tau=_mean,
        prob=1 - prune_ratio,
        until=None if num_calls is None else round(delta * num_calls),
    )


def infobatch(size: int, *, prune_ratio: float = 0.5) -> Selector:
    """The rule at a fixed size: what is easier than the mean has a smaller chance.

    Candidates below the mean score of the pool are chosen with ``1 - prune_ratio`` of
    the chance of the others, by :func:`fsparse.adaptive.priority`. Its scorer is
    :func:`fsparse.adaptive.cache`.

    Args:
      size: ``b``.
      prune_ratio: ``r``, in ``[0, 1)``.

    Returns:
      A :data:`fsparse.adaptive.Selector`, without bias.

    Raises:
      ValueError: if ``size < 1`` or ``prune_ratio`` is out of range.

    Example:
      >>> select = infobatch(2)
      >>> scores = jnp.array([1.0, 1.0, 4.0, 4.0])
      >>> select(jax.random.key(0), scores, jnp.ones(4, bool)).probabilities
      Array([0.16666667, 0.16666667, 0.33333334, 0.33333334], dtype=float32)
    """
    _require_ratios("infobatch", prune_ratio)
    select_by = priority(size, uniform=0.0)

    def select(key: Array, scores: Array, is_valid: Array) -> Selection:
        is_easy = scores < _mean(scores, is_valid)
        chances = jnp.where(is_easy, jnp.float32(1 - prune_ratio), jnp.float32(1))
        return select_by(key, chances, is_valid)

    return select


def _mean(scores: Array, is_valid: Array) -> Array:
    """Of the finite ones; no rounding puts it above all of them."""
    is_known = is_valid & jnp.isfinite(scores)
    total = jnp.sum(jnp.where(is_known, scores, 0))
    mean = ratio(total, jnp.sum(is_known, dtype=jnp.float32))
    return jnp.minimum(mean, jnp.max(jnp.where(is_known, scores, -jnp.inf)))


def _require_ratios(fn: str, prune_ratio: float, delta: float = 1.0) -> None:
    most = 1 - 2.0**-20
    _checks.require_between(fn, 0, most, prune_ratio=prune_ratio)
    _checks.require_between(fn, 0, 1, delta=delta)
