"""Ranking metrics of extreme classification, from predicted and true label ids."""

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import _checks
from fsparse.reference import valid

Array = jax.Array


def hits(predicted: Array, labels: Array, *, num_labels: int) -> Array:
    """Which predictions are true labels.

    Args:
      predicted: ``i32[b, k]``, best first.
      labels: ``i32[b, l]``; ids outside ``[0, num_labels)`` are padding.
      num_labels: ``n``.

    Returns:
      ``bool[b, k]``.

    Raises:
      TypeError: if ids are not int32.
      ValueError: if the shapes disagree.

    Example:
      >>> hits(jnp.array([[4, 1]]), jnp.array([[1, 9]]), num_labels=9)
      Array([[False,  True]], dtype=bool)
    """
    fn = "hits"
    predicted, labels = _checks.as_arrays(fn, predicted=predicted, labels=labels)
    _checks.require_ids(fn, predicted=predicted, labels=labels)
    _checks.require_rank(fn, 2, predicted=predicted, labels=labels)
    _checks.require(
        fn,
        predicted.shape[0] == labels.shape[0],
        "predicted and labels must have a row for each example",
        predicted=predicted,
        labels=labels,
    )
    same = predicted[:, :, None] == labels[:, None, :]
    return jnp.any(same & valid(labels, num_labels)[:, None, :], axis=2)


def precision_at(k: int, is_hit: Array) -> Array:
    """``P@k``: the fraction of the first ``k`` predictions that are true, ``f32[b]``.

    An example with one label has at most ``1 / k``.
    """
    return jnp.mean(is_hit[:, :k], axis=1, dtype=jnp.float32)


def hit_at(k: int, is_hit: Array) -> Array:
    """``Hit@k``: 1 if any of the first ``k`` predictions is true, ``f32[b]``."""
    return jnp.any(is_hit[:, :k], axis=1).astype(jnp.float32)


def inverse_propensities(
    label_counts: np.ndarray, num_examples: int, *, a: float = 0.55, b: float = 1.5
) -> np.ndarray:
    """How much a hit on each label counts: rare labels go missing more often.

    ``1 / p_l = 1 + C exp(-a log(N_l + b))`` with ``C = (log N - 1) (b + 1)**a``, for
    ``N_l`` training examples of label ``l`` among ``N``.

    Args:
      label_counts: ``i64[n]`` training examples of each label.
      num_examples: ``N``.
      a: slope; .55 for most data sets of the repository, .5 and .6 for some.
      b: offset.

    Returns:
      ``f32[n]``.

    Jain, Prabhu and Varma, "Extreme Multi-label Loss Functions", 2016.
    """
    c = (np.log(max(num_examples, 3)) - 1) * (b + 1) ** a
    return (1 + c * np.exp(-a * np.log(label_counts + b))).astype(np.float32)


def propensity_gains(
    k: int, predicted: Array, labels: Array, weights: Array
) -> tuple[Array, Array]:
    """Gained and possible propensity-scored precision of each example.

    ``PSP@k`` of a data set is the sum of the first over the sum of the second.

    Args:
      k: cut-off.
      predicted: ``i32[b, >= k]``, best first.
      labels: ``i32[b, l]``; ids outside ``[0, n)`` are padding.
      weights: ``f32[n]`` of :func:`inverse_propensities`.

    Returns:
      ``f32[b]`` gained by the predictions and ``f32[b]`` gained by the best ranking.
    """
    n = weights.shape[0]
    top = predicted[:, :k]
    is_hit = hits(top, labels, num_labels=n)
    gained = jnp.where(is_hit, weights[jnp.clip(top, 0, n - 1)], 0.0)
    own = jnp.where(valid(labels, n), weights[jnp.clip(labels, 0, n - 1)], 0.0)
    best = -jnp.sort(-own, axis=1)[:, :k]
    return jnp.sum(gained, axis=1) / k, jnp.sum(best, axis=1) / k
