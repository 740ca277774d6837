"""Scores as probabilities, whatever they are: none overflows, and none is zero."""

import jax
import jax.numpy as jnp

from fsparse import _checks

Array = jax.Array

MAX_CANDIDATES = 2**29  # so that sums of integer chances fit an int32
_LEAST_SHARE = 2.0**-96  # of the largest score: 1/p stays finite, and p positive
_TINY = 2.0**-126  # the least normal float: what is below may count as 0


def mixed(scores: Array, is_valid: Array, uniform: float) -> Array:
    """Scores as probabilities, mixed with the uniform distribution.

    ``p = (1 - uniform) s / sum(s) + uniform / n`` over the ``n`` valid candidates. No
    weight ``1 / (n p)`` is above ``1 / uniform``.

    Args:
      scores: ``f32[M]``, larger for candidates that matter more. Only ratios count.
        NaN and infinities count as the mean of the finite scores, negative ones as 0.
      is_valid: ``bool[M]``, false for padding.
      uniform: the share of the uniform distribution, in ``[0, 1]``.

    Returns:
      ``f32[M]``, which sums to 1, or to 0 if no candidate is valid; 0 for invalid ones.
      Uniform if no score is positive. A valid candidate has at least about ``2**-96``
      of the chance of the best, even with a score of 0 and ``uniform=0``, so that none
      is out of reach and weights are finite.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree, or ``uniform`` is not in ``[0, 1]``.

    Nothing aliases. Gradients are those of a constant.

    Example:
      >>> scores = jnp.array([3.0, 1.0, 9.0])
      >>> mixed(scores, jnp.array([True, True, False]), 0.5)
      Array([0.625, 0.375, 0.   ], dtype=float32)
    """
    fn = "adaptive.mixed"
    _checks.require_between(fn, 0, 1, uniform=uniform)
    scores, is_valid = pool(fn, scores, is_valid)
    ratios = ratios_of(scores, is_valid)
    total = jnp.maximum(jnp.sum(ratios), 1)  # the largest ratio is 1
    p = (1 - uniform) * (ratios / total) + uniform / num_true(is_valid)
    return jnp.where(is_valid, p, 0)


def pool(fn: str, scores: Array, is_valid: Array) -> tuple[Array, Array]:
    scores, is_valid = _checks.as_arrays(fn, scores=scores, is_valid=is_valid)
    _checks.require_f32(fn, scores=scores)
    _checks.require_mask(fn, is_valid=is_valid)
    _checks.require_rank(fn, 1, scores=scores, is_valid=is_valid)
    _checks.require(
        fn,
        scores.shape == is_valid.shape and scores.size < MAX_CANDIDATES,
        "is_valid must have one entry for each of less than 2**29 scores",
        scores=scores,
        is_valid=is_valid,
    )
    return jax.lax.stop_gradient(scores), is_valid


def ratios_of(scores: Array, is_valid: Array) -> Array:
    """Valid scores over the largest, at least 2**-96; all 1 if none is positive."""
    is_finite = is_valid & jnp.isfinite(scores)
    ratios = over_max(jnp.where(is_finite, jnp.maximum(scores, 0), 0))
    total = jnp.sum(ratios)
    ratios = jnp.where(is_finite, ratios, total / num_true(is_finite))
    ratios = jnp.where(total > 0, jnp.maximum(ratios, _LEAST_SHARE), 1)
    return jnp.where(is_valid, ratios, 0)


def over_max(x: Array) -> Array:
    """``x >= 0`` over its largest entry; all 0 if that is no normal float."""
    most = jnp.max(x, initial=0)
    is_huge = most > 2.0**64  # else the inverse may be subnormal, which counts as 0
    x, most = (jnp.where(is_huge, 2.0**-64 * v, v) for v in (x, most))
    is_some = most >= _TINY
    return jnp.where(is_some, x / jnp.where(is_some, most, 1), 0)


def num_true(mask: Array) -> Array:
    """How many are true, or 1 in place of 0."""
    return jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)


def uniform_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """On ``(0, 1]``, with all 32 bits where it is small, as it decides there."""
    bits = jax.random.bits(key, shape, jnp.uint32)
    return (bits.astype(jnp.float32) + 0.5) * 2.0**-32
