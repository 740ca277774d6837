"""Gain: by how much the scores reduce the variance of the gradient, as it is measured.

A gradient that is estimated from one example, chosen with probability ``p[i]`` and
weighted by ``1 / (n p[i])``, has the second moment ``mean_i g[i]**2 / (n p[i])`` with
``g[i]`` the norm of example ``i``'s gradient; for uniform chances that is
``mean_i g[i]**2``. Both are means over the candidates, so a weighted selection
estimates both, whichever distribution it follows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._selection import Selection

Array = jax.Array


class Gain(NamedTuple):
    """Moving averages of the same steps: their ratio needs no debiasing."""

    uniform: Array  # f32[], second moment under uniform chances
    scores: Array  # f32[], under the chances of the scores
    num_ignored: Array  # i32[], targets that were NaN, infinite or too large to square


def gain_init() -> Gain:
    """Averages of nothing; :func:`variance_reduction` of it is 1.

    Returns:
      A :class:`Gain`.

    Example:
      >>> variance_reduction(gain_init())
      Array(1., dtype=float32)
    """
    return Gain(jnp.float32(0), jnp.float32(0), jnp.int32(0))


def gain_update(
    gain: Gain,
    selection: Selection,
    targets: Array,
    probabilities: Array,
    *,
    rate: float = 0.02,
) -> Gain:
    """Averages in what a step found out about the examples that it trained on.

    ``uniform <- (1 - rate) uniform + rate mean(w g**2)`` and
    ``scores <- (1 - rate) scores + rate mean(w g**2 / (n p))``.

    Args:
      gain: the averages so far.
      selection: what was trained on, and its weights ``w``: those of the scores, or of
        uniform chances while the scores are only watched.
      targets: ``f32[b]``, ``g``: norms of gradients, or what stands for them.
      probabilities: ``f32[M]``, ``p``: the distribution of the scores, as of
        :func:`~fsparse.adaptive.mixed`, whether it was followed or not. The valid
        candidates, ``n`` of them, are those where it is positive.
      rate: the weight of this step, in ``[0, 1]``.

    Returns:
      The new :class:`Gain`. Targets that are not finite, or too large to square, are
      left out and counted, padding is left out; without any target nothing changes.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree, or ``rate`` is not in ``[0, 1]``.

    Nothing aliases. Gradients are those of a constant.

    Example:
      >>> chosen = Selection(jnp.array([0]), jnp.ones(1), jnp.array([0.5, 0.5]))
      >>> gain = gain_update(gain_init(), chosen, jnp.ones(1), jnp.array([0.8, 0.2]))
      >>> variance_reduction(gain)
      Array(1.6, dtype=float32)
    """
    fn = "adaptive.gain_update"
    targets, w, p = _of_places(fn, selection, targets, probabilities)
    _checks.require_between(fn, 0, 1, rate=rate)
    n = jnp.sum(probabilities > 0, dtype=jnp.float32)
    is_there = (w > 0) & (p > 0)
    squares = w * jnp.square(targets)
    under_scores = squares / jnp.where(is_there, n * p, 1)
    is_known = is_there & jnp.isfinite(squares) & jnp.isfinite(under_scores)
    r = rate * jnp.any(is_known).astype(jnp.float32)
    num_ignored = jnp.sum(is_there & ~is_known, dtype=jnp.int32)
    return Gain(
        (1 - r) * gain.uniform + r * _mean(squares, is_known, is_there),
        (1 - r) * gain.scores + r * _mean(under_scores, is_known, is_there),
        gain.num_ignored + num_ignored,
    )


def variance_reduction(gain: Gain) -> Array:
    """How many times smaller the scores make the second moment of the gradient.

    ``uniform / scores``. Where the mean gradient is small beside those of the examples,
    this is the ratio of the variances, and of the batch sizes of equal noise.

    Args:
      gain: from :func:`gain_update`.

    Returns:
      ``f32[]``, below 1 if the scores do harm; 1 if nothing is known.

    Raises:
      TypeError: if ``gain`` is no :class:`Gain`.

    Example:
      >>> variance_reduction(Gain(jnp.float32(3), jnp.float32(2), jnp.int32(0)))
      Array(1.5, dtype=float32)
    """
    _checks.require_type("adaptive.variance_reduction", Gain, gain=gain)
    is_known = (gain.uniform > 0) & (gain.scores > 0)
    return jnp.where(is_known, gain.uniform / jnp.where(is_known, gain.scores, 1), 1)


def _mean(x: Array, is_known: Array, is_there: Array) -> Array:
    """Over all places; what is not known is taken for the mean of what is."""
    num_there, num_known = (jnp.sum(m, dtype=jnp.float32) for m in (is_there, is_known))
    scale = num_there / (jnp.maximum(num_known, 1) * max(x.size, 1))
    return jnp.sum(jnp.where(is_known, x * scale, 0))


def _of_places(
    fn: str, selection: Selection, targets: Array, probabilities: Array
) -> tuple[Array, ...]:
    """The targets, weights and chances of the ``b`` places of a selection."""
    targets, w, indices, p = _checks.as_arrays(
        fn,
        targets=targets,
        weights=selection.weights,
        indices=selection.indices,
        probabilities=probabilities,
    )
    _checks.require_f32(fn, targets=targets, probabilities=p)
    _checks.require_rank(fn, 1, targets=targets, probabilities=p)
    _checks.require(
        fn, targets.shape == w.shape, "a target for each weight", targets=targets, w=w
    )
    _checks.require(
        fn,
        p.shape == selection.probabilities.shape,
        "a probability for each candidate of the selection",
        probabilities=p,
        followed=selection.probabilities,
    )
    p = jnp.take(p, indices, mode="fill", fill_value=0)
    return tuple(map(jax.lax.stop_gradient, (targets, w, p)))
