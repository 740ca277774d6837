"""Metrics of a data set by names, such as ``"p@1"``."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse.metrics._ranking import (
    count_labels,
    hit_at,
    hits,
    ndcg_at,
    precision_at,
    propensity_gains,
    recall_at,
)
from fsparse.metrics._scores import Auc, Mean, log_loss

Array = jax.Array
Pair = tuple[Array, Array]


class Ranked(NamedTuple):
    """What a model made of a batch, and what is true of it."""

    losses: Any  # f32[b]
    scores: Any  # f32[b, k], the largest first
    ids: Any  # i32[b, k], whose scores they are
    labels: Any  # i32[b, l]; ids outside [0, num_labels) are padding
    num_labels: Any  # n
    label_weights: Any = None  # f32[num_labels] of inverse_propensities


class Metric(NamedTuple):
    """A figure of a data set, as pairs of numbers of its examples, and their sum."""

    name: str
    num_ranked: int | None  # k, 0 for losses alone, None for all labels
    of_batch: Callable[[Ranked], Pair]  # f32[b] values and weights; 0 does not count
    start: Callable[[], Any]  # a Mean or an Auc
    sign: int = 1  # of what is better: 1 if larger, -1 if smaller


def find(name: str) -> Metric:
    """The metric of that name.

    ``p@k``, ``hit@k``, ``recall@k``, ``ndcg@k`` and ``psp@k``, of the first ``k``
    predictions, for any ``k``; ``loss``, the mean of the model's losses; ``log_loss``
    and ``auc``, of the scores of all labels. Examples without a label count in ``loss``
    alone, but for models of a single label, of which they are the negative ones.

    Args:
      name: one of these.

    Raises:
      ValueError: if it is none.

    Example:
      >>> find("recall@20").num_ranked
      20
      >>> find("accuracy")
      Traceback (most recent call last):
      ValueError: metrics: a name must be one of p@k, hit@k, recall@k, ndcg@k, psp@k, \
with a number in the place of k, or auc, log_loss, loss; got 'accuracy'.
    """
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", name) if isinstance(name, str) else None
    if match and match[1] in _AT:
        return _ranking(name, _AT[match[1]], int(match[2]))
    if name in _WHOLE:
        return _WHOLE[name]
    names = ", ".join(f"{n}@k" for n in _AT)
    raise ValueError(
        f"metrics: a name must be one of {names}, with a number in the place of k, or "
        f"{', '.join(sorted(_WHOLE))}; got {name!r}."
    )


def _ranking(name: str, of_batch: Callable[..., Pair], k: int) -> Metric:
    return Metric(name, k, lambda ranked: of_batch(k, ranked), Mean)


# ---- of the first k ----------------------------------------------------------------


def _hits(ranked: Ranked) -> tuple[Array, Array]:
    """Hits, and the labels that could be hit."""
    labels, n = ranked.labels, ranked.num_labels
    is_hit = hits(ranked.ids, labels, num_labels=n)
    return is_hit, count_labels(labels, num_labels=n)


def _precision(k: int, ranked: Ranked) -> Pair:
    is_hit, num_true = _hits(ranked)
    return precision_at(k, is_hit), num_true > 0


def _hit(k: int, ranked: Ranked) -> Pair:
    is_hit, num_true = _hits(ranked)
    return hit_at(k, is_hit), num_true > 0


def _recall(k: int, ranked: Ranked) -> Pair:
    is_hit, num_true = _hits(ranked)
    return recall_at(k, is_hit, num_true), num_true > 0


def _ndcg(k: int, ranked: Ranked) -> Pair:
    is_hit, num_true = _hits(ranked)
    return ndcg_at(k, is_hit, num_true), num_true > 0


def _psp(k: int, ranked: Ranked) -> Pair:
    ids, labels, weights = ranked.ids, ranked.labels, ranked.label_weights
    if weights is None:
        raise ValueError(
            f"psp@{k}: the labels must have weights; got None. Pass label_weights="
            "fsparse.metrics.inverse_propensities(counts, num_examples), of the "
            "training set."
        )
    return propensity_gains(k, ids, labels, weights)


_AT: dict[str, Callable[[int, Ranked], Pair]] = {
    "p": _precision,
    "hit": _hit,
    "recall": _recall,
    "ndcg": _ndcg,
    "psp": _psp,
}


# ---- of losses and scores ----------------------------------------------------------


def _loss(ranked: Ranked) -> Pair:
    return ranked.losses, jnp.ones_like(ranked.losses)


def _log_loss(ranked: Ranked) -> Pair:
    scores, ids, labels, n = ranked.scores, ranked.ids, ranked.labels, ranked.num_labels
    losses = log_loss(scores, ids, labels, num_labels=n)
    num_true = count_labels(labels, num_labels=n)
    return losses, (num_true > 0) | (n == 1)


def _auc(ranked: Ranked) -> Pair:
    """The log odds of label 1 against label 0, or of the only one."""
    scores, ids, labels, n = ranked.scores, ranked.ids, ranked.labels, ranked.num_labels
    if n not in (1, 2):
        raise ValueError(
            f"auc: a model must have 1 label, or 2 of which the second is positive; "
            f"got {n}. Rank many labels by p@k, recall@k or ndcg@k."
        )
    last = jnp.any(labels == n - 1, axis=1)
    if n == 1:
        return scores[:, 0], jnp.where(last, 1, -1)
    margin = scores[:, 0] - scores[:, 1]  # of the first place, at least 0
    is_known = count_labels(labels, num_labels=n) > 0
    sign = jnp.where(ids[:, 0] == 1, 1, -1)
    return sign * margin, jnp.where(last, 1, -1) * is_known


_WHOLE = {
    "loss": Metric("loss", 0, _loss, Mean, sign=-1),
    "log_loss": Metric("log_loss", None, _log_loss, Mean, sign=-1),
    "auc": Metric("auc", None, _auc, Auc),
}
