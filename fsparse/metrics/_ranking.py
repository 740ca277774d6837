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

    Allocates ``bool[b, k, l]``.

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
    """``P@k``: the fraction of the first ``k`` predictions that are true.

    An example with one label has at most ``1 / k``.

    Args:
      k: cut-off, at least 1.
      is_hit: ``bool[b, >= k]`` of :func:`hits`.

    Returns:
      ``f32[b]``.

    Raises:
      TypeError: if ``is_hit`` is not bool.
      ValueError: if there are fewer than ``k`` predictions.

    Example:
      >>> precision_at(2, jnp.array([[False, True, True]]))
      Array([0.5], dtype=float32)
    """
    return jnp.mean(_first("precision_at", k, is_hit), axis=1, dtype=jnp.float32)


def hit_at(k: int, is_hit: Array) -> Array:
    """``Hit@k``: 1 if any of the first ``k`` predictions is true, else 0.

    Args:
      k: cut-off, at least 1.
      is_hit: ``bool[b, >= k]`` of :func:`hits`.

    Returns:
      ``f32[b]``.

    Raises:
      TypeError: if ``is_hit`` is not bool.
      ValueError: if there are fewer than ``k`` predictions.

    Example:
      >>> hit_at(2, jnp.array([[False, True, True], [False, False, True]]))
      Array([1., 0.], dtype=float32)
    """
    return jnp.any(_first("hit_at", k, is_hit), axis=1).astype(jnp.float32)


def count_labels(labels: Array, *, num_labels: int) -> Array:
    """How many distinct labels each example has.

    Args:
      labels: ``i32[b, l]``; ids outside ``[0, num_labels)`` are padding.
      num_labels: ``n``.

    Returns:
      ``i32[b]``.

    Raises:
      TypeError: if ids are not int32.
      ValueError: if ``labels`` has not two axes.

    Example:
      >>> count_labels(jnp.array([[1, 1, 2], [1, 9, 9]]), num_labels=9)
      Array([2, 1], dtype=int32)
    """
    fn = "count_labels"
    (labels,) = _checks.as_arrays(fn, labels=labels)
    _checks.require_ids(fn, labels=labels)
    _checks.require_rank(fn, 2, labels=labels)
    return jnp.sum(_is_new(labels, num_labels)[1], axis=1, dtype=jnp.int32)


def _is_new(labels: Array, num_labels: int) -> tuple[Array, Array]:
    """The labels of each example in order, and which come for the first time."""
    labels = jnp.sort(labels, axis=1)
    is_new = jnp.ones_like(labels, bool).at[:, 1:].set(labels[:, 1:] != labels[:, :-1])
    return labels, valid(labels, num_labels) & is_new


def recall_at(k: int, is_hit: Array, num_true: Array) -> Array:
    """``recall@k``: the fraction of the labels that are among the first ``k``.

    Args:
      k: cut-off, at least 1.
      is_hit: ``bool[b, >= k]`` of :func:`hits`.
      num_true: ``i32[b]`` of :func:`count_labels`.

    Returns:
      ``f32[b]``; 0 for an example without labels.

    Raises:
      TypeError: if ``is_hit`` is not bool or ``num_true`` not int32.
      ValueError: if there are fewer than ``k`` predictions, or the shapes disagree.

    Example:
      >>> recall_at(2, jnp.array([[False, True, True]]), jnp.array([4]))
      Array([0.25], dtype=float32)
    """
    num_hits = jnp.sum(_first("recall_at", k, is_hit), axis=1, dtype=jnp.float32)
    return num_hits / jnp.maximum(_number_each("recall_at", is_hit, num_true), 1)


def ndcg_at(k: int, is_hit: Array, num_true: Array) -> Array:
    """``nDCG@k``: the discounted gain, as a fraction of the best ranking's.

    ``sum_j hit[j] / log2(j + 1)`` over ``j = 1..k``, divided by the same sum of ones
    over ``j = 1..min(k, num_true)``.

    Args:
      k: cut-off, at least 1.
      is_hit: ``bool[b, >= k]`` of :func:`hits`.
      num_true: ``i32[b]`` of :func:`count_labels`.

    Returns:
      ``f32[b]``; 0 for an example without labels.

    Raises:
      TypeError: if ``is_hit`` is not bool or ``num_true`` not int32.
      ValueError: if there are fewer than ``k`` predictions, or the shapes disagree.

    Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002.

    Example:
      >>> ndcg_at(3, jnp.array([[False, False, True]]), jnp.array([1]))
      Array([0.5], dtype=float32)
    """
    fn = "ndcg_at"
    gained = _first(fn, k, is_hit)
    best = jnp.arange(k) < _number_each(fn, is_hit, num_true)[:, None]
    discounts = 1 / jnp.log2(jnp.arange(2, k + 2, dtype=jnp.float32))
    ideal = jnp.sum(best * discounts, axis=1)
    return jnp.sum(gained * discounts, axis=1) / jnp.where(ideal > 0, ideal, 1)


def _number_each(fn: str, is_hit: Array, num_true: Array) -> Array:
    is_hit, num_true = _checks.as_arrays(fn, is_hit=is_hit, num_true=num_true)
    _checks.require_ids(fn, num_true=num_true)
    _checks.require(
        fn,
        num_true.shape == is_hit.shape[:1],
        "num_true must have a number for each example",
        is_hit=is_hit,
        num_true=num_true,
    )
    return num_true


def _first(fn: str, k: int, is_hit: Array) -> Array:
    (is_hit,) = _checks.as_arrays(fn, is_hit=is_hit)
    _checks.require_mask(fn, is_hit=is_hit)
    _checks.require_rank(fn, 2, is_hit=is_hit)
    _require_k(fn, k, is_hit=is_hit)
    return is_hit[:, :k]


def _require_k(fn: str, k: int, **ranked: Array) -> None:
    _checks.require_count(fn, 1, k=k)
    ((name, x),) = ranked.items()
    _checks.require(
        fn, x.shape[1] >= k, f"{name} must have at least k={k} columns", **ranked
    )


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

    Example:
      >>> inverse_propensities(np.array([1, 1000]), 10_000).round(2)
      array([9.21, 1.3 ], dtype=float32)
    """
    c = (np.log(max(num_examples, 3)) - 1) * (b + 1) ** a
    return (1 + c * np.exp(-a * np.log(label_counts + b))).astype(np.float32)


def propensity_gains(
    k: int, predicted: Array, labels: Array, weights: Array
) -> tuple[Array, Array]:
    """Gained and possible propensity-scored precision of each example.

    ``PSP@k`` of a data set is the sum of the first over the sum of the second.

    Args:
      k: cut-off, at least 1.
      predicted: ``i32[b, >= k]``, best first.
      labels: ``i32[b, l]``, which may repeat; ids outside ``[0, n)`` are padding.
      weights: ``f32[n]`` of :func:`inverse_propensities`.

    Returns:
      ``f32[b]`` gained by the predictions and ``f32[b]`` gained by the best ranking.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree or there are fewer than ``k`` predictions.

    Example:
      >>> predicted, labels = jnp.array([[0, 2]]), jnp.array([[2, 1]])
      >>> propensity_gains(1, predicted, labels, jnp.array([1.0, 2.0, 3.0]))
      (Array([0.], dtype=float32), Array([3.], dtype=float32))
    """
    fn = "propensity_gains"
    predicted, labels, weights = _checks.as_arrays(
        fn, predicted=predicted, labels=labels, weights=weights
    )
    _checks.require_f32(fn, weights=weights)
    _checks.require_ids(fn, predicted=predicted, labels=labels)
    _checks.require_rank(fn, 1, weights=weights)
    _checks.require_rank(fn, 2, predicted=predicted, labels=labels)
    _require_k(fn, k, predicted=predicted)
    n = weights.shape[0]
    top = predicted[:, :k]
    is_hit = hits(top, labels, num_labels=n)
    gained = jnp.where(is_hit, weights[jnp.clip(top, 0, n - 1)], 0.0)
    labels, is_new = _is_new(labels, n)
    own = jnp.where(is_new, weights[jnp.clip(labels, 0, n - 1)], 0.0)
    best = -jnp.sort(-own, axis=1)[:, :k]
    return jnp.sum(gained, axis=1) / k, jnp.sum(best, axis=1) / k
