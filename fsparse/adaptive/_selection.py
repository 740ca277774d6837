"""Selectors: ``b`` of ``M`` candidates by score, with weights that undo the bias.

A :class:`Selector` is ``(key, scores f32[M], is_valid bool[M]) -> Selection``. Of the
``n`` valid candidates it follows the distribution ``p`` of :func:`mixed`, and its
weights make ``mean(weights * loss[indices])`` an estimate of the mean loss over the
valid candidates that is right on average, whatever the scores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._mixing import (
    MAX_CANDIDATES,
    mixed,
    num_true,
    over_max,
    pool,
    ratios_of,
    uniform_bits,
)

Array = jax.Array

_NUM_TICKETS = 2 * MAX_CANDIDATES  # the resolution of `systematic`


class Selection(NamedTuple):
    """Which candidates a step trains on; ``b`` places, of which some may be padding."""

    indices: Array  # i32[b] into the M candidates; M is padding
    weights: Array  # f32[b], 0 for padding
    probabilities: Array  # f32[M], what was followed; 0 for invalid candidates


Selector = Callable[[Array, Array, Array], Selection]


def priority(size: int, *, uniform: float = 0.1) -> Selector:
    """Priority sampling: a fixed number of candidates, none twice.

    The ``size`` largest of ``p / u``, with ``u`` uniform on ``(0, 1]``, are chosen.
    With ``t``, the largest of those that are not, candidate ``i`` has the weight
    ``size / n * max(1, t / p[i])``: given the other candidates, ``i`` is chosen with
    probability ``min(1, p[i] / t)``.

    Args:
      size: ``b``, at least 1.
      uniform: the share of the uniform distribution in ``p``, see :func:`mixed`.

    Returns:
      A :data:`Selector`; indices are in descending order of ``p / u``. If there are at
      most ``size`` valid candidates, all of them are chosen, with weights ``size / n``:
      the estimate is the mean itself. Of an empty pool all is padding.

    Raises:
      TypeError: if ``size`` is no static integer; by the selector, for a wrong dtype.
      ValueError: if ``size < 1`` or ``uniform`` is not in ``[0, 1]``; by the selector,
        if the shapes disagree.

    The weights have mean 1 on average, not in each batch: even for equal scores they
    share a factor whose standard deviation is about ``1 / sqrt(size)``. So what all
    losses or gradients have in common is estimated with noise, which :func:`systematic`
    does not have: where that is large beside their differences, priority sampling is
    worse than uniform batches, even with good scores. Duffield, Lund and Thorup,
    "Priority sampling for estimation of arbitrary subset sums", J. ACM 54(6), 2007.

    Example:
      >>> select = priority(2)
      >>> scores, is_valid = jnp.ones(3), jnp.array([True, False, False])
      >>> indices, weights, _ = select(jax.random.key(0), scores, is_valid)
      >>> indices, weights
      (Array([0, 3], dtype=int32), Array([2., 0.], dtype=float32))
    """
    fn = "adaptive.priority"
    _check_options(fn, size, uniform)

    def select(key: Array, scores: Array, is_valid: Array) -> Selection:
        scores, is_valid = pool(fn, scores, is_valid)
        p = mixed(scores, is_valid, uniform)
        priorities = jnp.where(is_valid, p / uniform_bits(key, p.shape), 0)
        best, indices = _top(priorities, size + 1)
        indices, is_chosen, t = indices[:size], best[:size] > 0, best[size]
        ratios = t / jnp.where(is_chosen, _rows(p, indices), 1)
        weights = jnp.maximum(ratios, 1) * (size / num_true(is_valid))
        return _selection(indices, weights, is_chosen, p)

    return select


def systematic(size: int, *, uniform: float = 0.1) -> Selector:
    """Systematic resampling: equally spaced points of the cumulative probabilities.

    Candidates are put in a random order, each as a stretch of length ``p``. The points
    ``(j + u) / size``, with one uniform ``u``, choose the stretches that they hit:
    candidate ``i`` is drawn ``size * p[i]`` times, rounded up or down, each time with
    the weight ``1 / (n p[i])``.

    Args:
      size: ``b``, at least 1.
      uniform: the share of the uniform distribution in ``p``, see :func:`mixed`.

    Returns:
      A :data:`Selector`; indices are in random order, but repeats stand together. For
      equal scores it is a sample without repeats, with weights of 1, rounded. If there
      are at most ``size`` valid candidates, all of them are chosen once, with weights
      ``size / n``. Of an empty pool all is padding.

    Raises:
      TypeError: if ``size`` is no static integer; by the selector, for a wrong dtype.
      ValueError: if ``size < 1`` or ``uniform`` is not in ``[0, 1]``; by the selector,
        if the shapes disagree, or there are ``2**29`` candidates or more.

    The random order lets any two candidates meet in a batch, and makes the variance the
    same for all orders of the data. Probabilities are rounded to multiples of about
    ``2**-30``, at least one, and sums are of integers: the probabilities returned are
    the ones followed, rounded to f32. Madow and Madow, "On the theory of systematic
    sampling", Ann. Math. Statist. 15(1), 1944; with unequal ``p``, Madow 1949.

    Example:
      >>> select = systematic(4, uniform=0.0)
      >>> scores, is_valid = jnp.array([3.0, 1.0] + 6 * [0.0]), jnp.ones(8, bool)
      >>> jnp.sort(select(jax.random.key(0), scores, is_valid).indices)
      Array([0, 0, 0, 1], dtype=int32)
    """
    fn = "adaptive.systematic"
    _check_options(fn, size, uniform)

    def select(key: Array, scores: Array, is_valid: Array) -> Selection:
        scores, is_valid = pool(fn, scores, is_valid)
        tickets = _tickets(mixed(scores, is_valid, uniform), is_valid, size)
        p = tickets.astype(jnp.float32) / num_true(tickets)
        drawn, n = _draw(key, tickets, size), num_true(is_valid)
        weights = 1 / (n * jnp.maximum(_rows(p, drawn), 1 / (2 * _NUM_TICKETS)))
        has_room = n <= size
        indices = jnp.where(has_room, _every(is_valid, size), drawn)
        weights = jnp.where(has_room, size / n, weights)
        return _selection(indices, weights, indices < scores.size, p)

    return select


def top(size: int, *, biased: bool) -> Selector:
    """The ``size`` best candidates, always: a biased selection.

    A model that is trained on these minimises another loss than the mean one: noise and
    wrong labels have high losses, too.

    Args:
      size: ``b``, at least 1.
      biased: must be True, which says that this is meant.

    Returns:
      A :data:`Selector`; indices are in descending order of the scores, equal ones in
      random order, and weights are 1. If there are less than ``size`` valid candidates,
      all of them are chosen, with weights ``size / n``. The probabilities are those of
      a uniform draw from the chosen.

    Raises:
      TypeError: if ``size`` is no static integer; by the selector, for a wrong dtype.
      ValueError: if ``size < 1`` or ``biased`` is not True; by the selector, if the
        shapes disagree.

    Example:
      >>> select = top(2, biased=True)
      >>> scores = jnp.array([1.0, 3.0, 2.0])
      >>> select(jax.random.key(0), scores, jnp.ones(3, bool)).indices
      Array([1, 2], dtype=int32)
    """
    fn = "adaptive.top"
    _checks.require_count(fn, 1, size=size)
    if biased is not True:
        raise ValueError(
            f"{fn}: biased must be True, since the weights undo no bias; got {biased}. "
            "Take adaptive.systematic for a selection without bias."
        )

    def select(key: Array, scores: Array, is_valid: Array) -> Selection:
        scores, is_valid = pool(fn, scores, is_valid)
        ratios = ratios_of(scores, is_valid)
        order = _shuffled(key, scores.size)
        best, places = _top(_rows(ratios, order), size)
        indices, is_chosen = _rows(order, places), best > 0
        share = 1 / num_true(is_chosen)
        chances = jnp.where(is_chosen, share, 0)
        p = jnp.zeros_like(ratios).at[indices].add(chances, mode="drop")
        return _selection(
            indices, jnp.broadcast_to(size * share, (size,)), is_chosen, p
        )

    return select


def effective_sample_size(weights: Array) -> Array:
    """How many examples of equal weight tell as much: ``sum(w)**2 / sum(w**2)``.

    Args:
      weights: ``f32[b]``, at least 0, of any scale.

    Returns:
      ``f32[]``, from 1 to the number of positive weights; 0 if there are none.

    Raises:
      TypeError: if the dtype is not ``f32``.
      ValueError: if ``weights`` has not one axis.

    Kish, "Survey sampling", 1965, section 11.7.

    Example:
      >>> effective_sample_size(jnp.array([2.0, 2.0, 0.0]))
      Array(2., dtype=float32)
    """
    fn = "adaptive.effective_sample_size"
    (weights,) = _checks.as_arrays(fn, weights=weights)
    _checks.require_f32(fn, weights=weights)
    _checks.require_rank(fn, 1, weights=weights)
    w = over_max(weights)
    return jnp.square(jnp.sum(w)) / jnp.maximum(jnp.sum(jnp.square(w)), 1)


def take_selected(candidates: Any, selection: Selection) -> Any:
    """The chosen rows of a pytree of arrays ``[M, ...]``, as ``[b, ...]``.

    Padding repeats a candidate that is chosen, and is 0 if there is none: finite
    wherever the data are, so that a weight of 0 takes it out of every sum, and it names
    no rows of a table that a step would not touch anyway.

    Args:
      candidates: a pytree of arrays with ``M >= 1`` rows. Of typed keys, which have no
        0, padding without a choice takes the last one.
      selection: of these candidates.

    Returns:
      A pytree of the same structure.

    Raises:
      ValueError: if an array has not ``M`` rows.

    Differentiable in ``candidates``.

    Example:
      >>> selection = Selection(jnp.array([2, 0]), jnp.ones(2), jnp.ones(3) / 3)
      >>> take_selected({"x": jnp.arange(3) * 10}, selection)
      {'x': Array([20,  0], dtype=int32)}
    """
    m = selection.probabilities.shape[0]
    for leaf in jax.tree.leaves(candidates):
        if jnp.ndim(leaf) < 1 or leaf.shape[0] != m or m == 0:
            raise ValueError(
                "adaptive.take_selected: every array of candidates must have a row for "
                f"each of M = {m} candidates, and M >= 1; got shape {jnp.shape(leaf)}."
            )
    at = jnp.where(selection.weights > 0, selection.indices, m)
    at = jnp.where(at < m, at, jnp.min(at))

    def of_leaf(x: Array) -> Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.extended):
            return jnp.take(x, at, axis=0, mode="clip")
        return jnp.take(x, at, axis=0, mode="fill", fill_value=0)

    return jax.tree.map(of_leaf, candidates)


# ---- the parts ----------------------------------------------------------------------


def _check_options(fn: str, size: int, uniform: float) -> None:
    _checks.require_count(fn, 1, size=size)
    _checks.require_between(fn, 0, 1, uniform=uniform)


def _tickets(p: Array, is_valid: Array, size: int) -> Array:
    """``i32[M]`` in proportion to ``p``, at least 1, with a sum that ``size`` divides.

    What the sum lacks is less than ``size``: one more for each of the first.
    """
    counts = jnp.maximum(jnp.round(p * _NUM_TICKETS).astype(jnp.int32), 1)
    counts = jnp.where(is_valid, counts, 0)
    is_first = jnp.cumsum(is_valid, dtype=jnp.int32) <= -_sum(counts) % size
    return counts + (is_valid & is_first).astype(jnp.int32)


def _draw(key: Array, tickets: Array, size: int) -> Array:
    """``i32[size]``: who owns every ``sum / size``-th ticket, in a random order."""
    if not tickets.size:
        return jnp.zeros(size, jnp.int32)
    of_order, of_start = jax.random.split(key)
    order = _shuffled(of_order, tickets.size)
    ends = jnp.cumsum(_rows(tickets, order), dtype=jnp.int32)
    step = jnp.maximum(ends[-1] // size, 1)
    start = jax.random.randint(of_start, (), 0, step, jnp.int32)
    num_before = (ends - start - 1) // step + 1  # points before each end
    passed = jnp.zeros(size, jnp.int32).at[num_before].add(1, mode="drop")
    return _rows(order, jnp.cumsum(passed, dtype=jnp.int32))


def _every(is_valid: Array, size: int) -> Array:
    """``i32[size]``: the valid candidates, as many as fit; then padding."""
    m = is_valid.size
    places = jnp.where(is_valid, jnp.cumsum(is_valid, dtype=jnp.int32) - 1, size)
    ids = jnp.arange(m, dtype=jnp.int32)
    return jnp.full(size, m, jnp.int32).at[places].set(ids, mode="drop")


def _shuffled(key: Array, m: int) -> Array:
    """``0 ... m - 1`` in a random order; ties, which are rare, keep theirs."""
    return jnp.argsort(jax.random.bits(key, (m,), jnp.uint32)).astype(jnp.int32)


def _selection(
    indices: Array, weights: Array, is_chosen: Array, probabilities: Array
) -> Selection:
    """Pads the places that nothing was chosen for, or for which nothing was there."""
    m = probabilities.shape[0]
    is_chosen &= indices < m
    indices = jnp.where(is_chosen, indices, m).astype(jnp.int32)
    return Selection(indices, jnp.where(is_chosen, weights, 0), probabilities)


def _top(x: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest of ``x >= 0`` and where; 0 where there are fewer."""
    x = jnp.pad(x, (0, max(k - x.size, 0)))
    best, places = jax.lax.top_k(x, k)
    return best, places.astype(jnp.int32)


def _rows(x: Array, places: Array) -> Array:
    """``x[places]``, clipped; where ``x`` is empty there is only padding."""
    return (
        jnp.take(x, places, mode="clip") if x.size else jnp.ones(places.shape, x.dtype)
    )


def _sum(x: Array) -> Array:
    return jnp.sum(x, dtype=jnp.int32)
