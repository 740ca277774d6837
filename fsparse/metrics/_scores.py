"""Metrics of scores rather than ranks, and how figures of batches become one."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from fsparse import _checks
from fsparse.reference import valid

Array = jax.Array


def log_loss(scores: Array, ids: Array, labels: Array, *, num_labels: int) -> Array:
    """``-log p`` of the labels, with the softmax over all of them.

    ``loss[i] = -mean_l log softmax(scores[i])[label l]``: labels of an example share
    its probability evenly. Of a single label, ``num_labels=1``, the score is a logit of
    having it: ``softplus(s) - y s``.

    Args:
      scores: ``f32[b, n]``, one for each label, in any order.
      ids: ``i32[b, n]``, whose scores they are: each of ``[0, n)`` once.
      labels: ``i32[b, l]``; ids outside ``[0, n)`` are padding.
      num_labels: ``n``.

    Returns:
      ``f32[b]`` in nats; 0 for an example without labels, unless ``n`` is 1.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    The loss is NaN if a score is NaN, or infinity among several, and infinity if a
    label has no probability.

    Example:
      >>> scores, ids = jnp.zeros((1, 4)), jnp.array([[2, 0, 1, 3]])
      >>> log_loss(scores, ids, jnp.array([[1]]), num_labels=4)
      Array([1.3862944], dtype=float32)
    """
    fn = "log_loss"
    scores, ids, labels = _checks.as_arrays(fn, scores=scores, ids=ids, labels=labels)
    _checks.require_f32(fn, scores=scores)
    _checks.require_ids(fn, ids=ids, labels=labels)
    _checks.require_rank(fn, 2, scores=scores, ids=ids, labels=labels)
    wanted = (labels.shape[0], num_labels)
    fits = scores.shape == ids.shape == wanted
    requirement = f"scores and ids must be of shape {wanted}, the examples and labels"
    _checks.require(fn, fits, requirement, scores=scores, ids=ids, labels=labels)
    is_label = valid(labels, num_labels)
    if num_labels == 1:
        score = scores[:, 0]
        return jax.nn.softplus(jnp.where(jnp.any(is_label, axis=1), -score, score))
    is_own = jnp.any((ids[:, :, None] == labels[:, None, :]) & is_label[:, None], 2)
    log_p = jax.nn.log_softmax(scores, axis=1)
    total = -jnp.sum(jnp.where(is_own, log_p, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(is_own, axis=1), 1)


def auc(scores: ArrayLike, is_positive: ArrayLike) -> float:
    """Area under the ROC curve, exactly: the chance of ranking a pair rightly.

    Of all pairs of a positive and a negative example, the fraction in which the
    positive one has the larger score; equal scores count half.

    Args:
      scores: ``f32[m]`` or ``f64[m]``; infinities are ordered, as numbers are.
      is_positive: ``bool[m]``.

    Returns:
      NaN if a score is NaN, or there is no pair.

    Raises:
      ValueError: if the shapes disagree.

    On the host, by a sort; sums are of integers, so the order of the examples does not
    matter.

    Example:
      >>> auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True])
      0.875
    """
    s, positive = np.asarray(scores), np.asarray(is_positive, bool)
    if s.ndim != 1 or s.shape != positive.shape:
        raise ValueError(
            "auc: scores and is_positive must be vectors of one length; got shapes "
            f"{s.shape} and {positive.shape}."
        )
    if np.isnan(s).any():
        return float("nan")
    values, place = np.unique(s, return_inverse=True)
    p, n = (np.bincount(place[c], minlength=len(values)) for c in (positive, ~positive))
    pairs = int(p.sum()) * int(n.sum())
    twice = int(np.sum(p * (2 * (np.cumsum(n) - n) + n)))
    return twice / (2 * pairs) if pairs else float("nan")


class Mean:
    """Ratio of two sums over all examples, in double precision.

    Example:
      >>> mean = Mean()
      >>> mean.add(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
      >>> mean.result()
      0.5
    """

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """The examples of a batch."""
        self._sum += float(np.sum(values, dtype=np.float64))
        self._weight += float(np.sum(weights, dtype=np.float64))

    def result(self) -> float:
        """NaN if nothing was counted."""
        return self._sum / self._weight if self._weight else float("nan")


class Auc:
    """:func:`auc` of all examples: 5 bytes each are kept.

    Example:
      >>> area = Auc()
      >>> area.add(np.array([0.1, 0.9, 0.5]), np.array([-1.0, 1.0, 0.0]))
      >>> area.result()
      1.0
    """

    def __init__(self) -> None:
        self._scores: list[np.ndarray] = []
        self._positive: list[np.ndarray] = []

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Scores of a batch; weights are 1 for positive examples, -1 for negative ones.

        Those of weight 0 do not count.
        """
        counts = weights != 0
        self._scores.append(values[counts])
        self._positive.append(weights[counts] > 0)

    def result(self) -> float:
        """NaN if a score was, or one of the classes is missing."""
        if not self._scores:
            return float("nan")
        return auc(np.concatenate(self._scores), np.concatenate(self._positive))
