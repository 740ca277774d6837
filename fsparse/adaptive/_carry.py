"""The threshold rule, and a queue that gives its varying numbers a static shape.

Examples with high scores are kept, the others with a small chance and the weight that
makes up for it. How many are kept differs from pool to pool, so they wait in a queue
until there are enough for a batch.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._mixing import uniform_bits

Array = jax.Array


def threshold(
    key: Array,
    scores: Array,
    is_valid: Array,
    *,
    tau: float | Array,
    prob: float,
    always: Array | None = None,
) -> Array:
    """Keeps what scores at least ``tau``, and of the rest a share ``prob``.

    The weight is 1 where ``scores >= tau`` or ``always``; elsewhere it is ``1 / prob``
    with probability ``prob``, and otherwise 0. Its mean is 1 for every valid candidate.

    Args:
      key: of the draws; each candidate has its own.
      scores: ``f32[M]``. NaN is not at least ``tau``: such a candidate is kept with
        probability ``prob``.
      is_valid: ``bool[M]``, false for padding.
      tau: the threshold, a number or ``f32[]``. If it is NaN, no score reaches it.
      prob: the chance of the others, in ``[2**-20, 1]``.
      always: ``bool[M]``, candidates that are kept in any case, such as a rare class.

    Returns:
      ``f32[M]``, 0 for candidates that are dropped or invalid:
      ``sum(weights * loss) / n`` estimates the mean loss of the ``n`` valid candidates
      without bias. A mean over the kept ones only is larger by ``n / num_kept``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree, or ``prob`` is not in
        ``[2**-20, 1]``.

    Nothing aliases. Gradients are those of a constant. The rule of "Adaptive sampling
    for deep learning via efficient nonparametric proxies", arXiv 2311.13583.

    Example:
      >>> scores, is_valid = jnp.array([3.0, 1.0]), jnp.array([True, False])
      >>> threshold(jax.random.key(0), scores, is_valid, tau=2.0, prob=0.1)
      Array([1., 0.], dtype=float32)
    """
    fn = "adaptive.threshold"
    scores, is_valid = _checks.as_arrays(fn, scores=scores, is_valid=is_valid)
    always = jnp.zeros_like(is_valid) if always is None else jnp.asarray(always)
    _check_pool(fn, scores, is_valid, always, prob)
    is_high = always | (jax.lax.stop_gradient(scores) >= jax.lax.stop_gradient(tau))
    is_lucky = uniform_bits(key, scores.shape) <= jnp.float32(prob)
    weights = jnp.where(is_high, 1, jnp.where(is_lucky, 1 / prob, 0))
    return jnp.where(is_valid, weights, 0).astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CarryOver:
    """A queue of weighted examples, first in, first out: a ring of rows."""

    items: Any  # pytree of [capacity, ...]
    weights: Array  # f32[capacity]
    start: Array  # i32[], the row of the oldest
    count: Array  # i32[], how many wait
    num_dropped: Array  # i32[], examples that found no room, or had a bad weight


def carry_init(example_batch_like: Any, capacity: int) -> CarryOver:
    """An empty queue for rows of batches like this one.

    Args:
      example_batch_like: a pytree of arrays ``[M, ...]``, or of their shapes; values
        do not matter.
      capacity: room for examples. What waits after a pop is less than its size, so the
        size of a pop and that of a pool together are enough if each push is followed by
        as many pops as there are full ones.

    Returns:
      A :class:`CarryOver` of zeros, ``capacity`` times the size of a row.

    Raises:
      TypeError: if ``capacity`` is no static integer.
      ValueError: if ``capacity < 1``, or an array has no axis of examples.

    Example:
      >>> carry_init({"x": jnp.ones((4, 2))}, 8).items["x"].shape
      (8, 2)
    """
    fn = "adaptive.carry_init"
    _checks.require_count(fn, 1, capacity=capacity)
    for leaf in jax.tree.leaves(example_batch_like):
        _checks.require(
            fn, leaf.ndim >= 1, "arrays must have a row for each example", array=leaf
        )
    items = jax.tree.map(
        lambda leaf: jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype),
        example_batch_like,
    )
    # An array each, so that all can be donated.
    zeros = [jnp.zeros((), jnp.int32) for _ in range(3)]
    return CarryOver(items, jnp.zeros(capacity, jnp.float32), *zeros)


def carry_push(carry: CarryOver, candidates: Any, weights: Array) -> CarryOver:
    """Appends the candidates whose weight is positive, in their order.

    Args:
      carry: the queue.
      candidates: a pytree of arrays ``[M, ...]`` like those of :func:`carry_init`.
      weights: ``f32[M]``; 0 for candidates that are not kept.

    Returns:
      The new queue; ``items`` and ``weights`` are updated in place if donated. What
      finds no room is dropped and counted, and so is what has a weight that is
      negative, infinite or NaN.

    Raises:
      TypeError: if ``carry`` is no queue, or a dtype differs.
      ValueError: if the candidates have another structure or other shapes.

    Example:
      >>> carry = carry_init(jnp.ones(3), capacity=4)
      >>> carry = carry_push(carry, jnp.arange(3.0), jnp.array([0.0, 1.0, 10.0]))
      >>> carry.items, carry.count
      (Array([1., 2., 0., 0.], dtype=float32), Array(2, dtype=int32))
    """
    fn = "adaptive.carry_push"
    _checks.require_type(fn, CarryOver, carry=carry)
    (weights,) = _checks.as_arrays(fn, weights=weights)
    _checks.require_f32(fn, weights=weights)
    _checks.require_rank(fn, 1, weights=weights)
    _check_rows(fn, carry, candidates, weights.size)
    capacity = carry.weights.size
    is_kept = (weights > 0) & jnp.isfinite(weights)
    rank = jnp.cumsum(is_kept, dtype=jnp.int32) - 1
    fits = is_kept & (rank < capacity - carry.count)
    rows = jnp.where(fits, (carry.start + carry.count + rank) % capacity, capacity)
    num_pushed = _sum(fits)
    return CarryOver(
        jax.tree.map(lambda a, new: _put(a, rows, new), carry.items, candidates),
        _put(carry.weights, rows, weights),
        carry.start,
        carry.count + num_pushed,
        carry.num_dropped + _sum(weights != 0) - num_pushed,
    )


def carry_pop(
    carry: CarryOver, size: int, *, flush: bool = False
) -> tuple[Any, Array, Array, CarryOver]:
    """Takes the ``size`` oldest examples, if as many wait.

    Args:
      carry: the queue.
      size: ``b``, at most the capacity.
      flush: at the end of a stream: take what is there, if it is less.

    Returns:
      The batch, a pytree of ``[b, ...]``; its weights ``f32[b]``; ``is_full``, a
      ``bool[]``; and the queue without them. If it is not full, nothing is taken and
      all weights are 0; with ``flush``, those of the missing examples are. Rows of
      weight 0 hold old examples or zeros.

    Raises:
      TypeError: if ``carry`` is no queue, or ``size`` no static integer.
      ValueError: if ``size < 1`` or above the capacity.

    Example:
      >>> carry = carry_push(carry_init(jnp.ones(2), 4), jnp.arange(2.0), jnp.ones(2))
      >>> batch, weights, is_full, carry = carry_pop(carry, 1)
      >>> batch, weights, is_full, carry.count
      (Array([0.], dtype=float32), Array([1.], dtype=float32), Array(True, dtype=bool), Array(1, dtype=int32))
    """  # noqa: E501
    fn = "adaptive.carry_pop"
    _checks.require_type(fn, CarryOver, carry=carry)
    _checks.require_count(fn, 1, size=size)
    capacity = carry.weights.size
    fits = size <= capacity
    _checks.require(fn, fits, f"size={size} must fit the queue", weights=carry.weights)
    places = jnp.arange(size, dtype=jnp.int32)
    rows = (carry.start + places) % capacity
    is_full = carry.count >= size
    num_taken = jnp.where(is_full, size, carry.count if flush else 0)
    batch = jax.tree.map(lambda a: jnp.take(a, rows, axis=0), carry.items)
    weights = jnp.where(places < num_taken, carry.weights[rows], 0)
    start, count = (carry.start + num_taken) % capacity, carry.count - num_taken
    return batch, weights, is_full, replace(carry, start=start, count=count)


def _check_pool(
    fn: str, scores: Array, is_valid: Array, always: Array, prob: float
) -> None:
    _checks.require_f32(fn, scores=scores)
    _checks.require_mask(fn, is_valid=is_valid, always=always)
    _checks.require_rank(fn, 1, scores=scores)
    alike = scores.shape == is_valid.shape == always.shape
    _checks.require(
        fn,
        alike,
        "is_valid and always must have one entry for each score",
        scores=scores,
        is_valid=is_valid,
        always=always,
    )
    _checks.require_between(fn, 2.0**-20, 1, prob=prob)  # a draw has 23 bits


def _check_rows(fn: str, carry: CarryOver, candidates: Any, m: int) -> None:
    of_carry: Any = jax.tree.structure(carry.items)
    of_new: Any = jax.tree.structure(candidates)
    if of_carry != of_new:
        raise ValueError(
            f"{fn}: candidates must have the structure {of_carry}; got {of_new}."
        )
    pairs = zip(*map(jax.tree.leaves, (carry.items, candidates)), strict=True)
    for item, new in pairs:
        _checks.require(
            fn,
            new.shape == (m, *item.shape[1:]) and new.dtype == item.dtype,
            "candidates must have a row for each weight, like those of carry_init",
            candidates=new,
            items=item,
        )


def _put(items: Array, rows: Array, new: Array) -> Array:
    return items.at[rows].set(new, mode="drop")


def _sum(mask: Array) -> Array:
    return jnp.sum(mask, dtype=jnp.int32)
