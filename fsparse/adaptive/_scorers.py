"""How much each candidate matters, guessed without training on it.

All scorers have one signature, so that one takes the place of another. What they learn
from is what the training step computed anyway: a target of each chosen example.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.reference import valid
from fsparse.sketch._inputs import LARGEST_VALUE, LARGEST_WEIGHT

Array = jax.Array
Batch = Any  # a pytree of arrays whose first axis counts examples


class Scorer(NamedTuple):
    """Pure functions that score candidates and learn from those that were trained on.

    ``init(key) -> state``, any pytree.

    ``encode(state, batch) -> encoded``: what the state keeps examples by, such as hash
    codes, a pytree of arrays ``[M, ...]`` of a few bytes each, or ``()``. It is made
    once, for the candidates; those of the chosen are taken from it.

    ``score(state, encoded, train_state, batch) -> f32[M]``: the larger, the more an
    example matters. Selectors say what they make of NaN and of negative scores.

    ``update(state, encoded, targets f32[b], weights f32[b]) -> state``: learns the
    targets, losses or norms of gradients, of ``b`` examples, each as often as its
    weight says. Weight 0 is padding; targets that are not finite or beyond ``2**60``
    and weights above ``2**24`` are ignored, and counted by scorers that have a state.
    """

    init: Callable[[Array], Any]
    encode: Callable[[Any, Batch], Any]
    score: Callable[[Any, Any, Any, Batch], Array]
    update: Callable[[Any, Any, Array, Array], Any]


def uniform() -> Scorer:
    """All alike: the baseline.

    ``score[i] = 1``. It keeps nothing and costs nothing.

    Returns:
      A :class:`Scorer`.

    Example:
      >>> scorer = uniform()
      >>> scorer.score((), (), None, {"x": jnp.zeros((2, 3))})
      Array([1., 1.], dtype=float32)
    """

    def score(state: Any, encoded: Any, train_state: Any, batch: Batch) -> Array:
        del state, encoded, train_state
        return jnp.ones(num_examples("uniform", batch), jnp.float32)

    return Scorer(_nothing, _nothing, score, lambda state, *learnt: state)


class ClassMeans(NamedTuple):
    """State of :func:`class_mean`: decayed sums of each class."""

    totals: Array  # f32[num_classes], of targets
    counts: Array  # f32[num_classes]
    num_ignored: Array  # i32[], targets that were not finite, labels out of range


def class_mean(
    label_of: Callable[[Batch], Array],
    num_classes: int,
    *,
    decay: float = 0.995,
    prior: float = 1.0,
) -> Scorer:
    """The mean target of each class: what every learnt score must beat.

    ``score[i] = (S[c] + prior * mean) / (C[c] + prior)`` with ``c`` the label, ``S``
    and ``C`` the decayed sums of weighted targets and of weights, and ``mean = sum S /
    sum C`` over all classes, 0 at first.

    Args:
      label_of: of a batch, its labels ``i32[M]``.
      num_classes: labels lie in ``[0, num_classes)``. Others are scored ``mean``, and
        ignored and counted in updates.
      decay: what an update leaves of the past, in ``(0, 1]``.
      prior: examples of the mean of all that each class begins with, above 0.

    Returns:
      A :class:`Scorer` with the state :class:`ClassMeans`, ``8 num_classes`` bytes.
      Counts are halved before an addition of 1 could be lost to rounding.

    Raises:
      TypeError: if labels are not int32.
      ValueError: if ``num_classes < 1``, ``decay`` or ``prior`` are out of range.

    Example:
      >>> scorer = class_mean(lambda batch: batch["y"], 2)
      >>> state, batch = scorer.init(jax.random.key(0)), {"y": jnp.array([0, 1])}
      >>> labels = scorer.encode(state, batch)
      >>> state = scorer.update(state, labels, jnp.array([1.0, 3.0]), jnp.ones(2))
      >>> scorer.score(state, labels, None, batch)
      Array([1.5, 2.5], dtype=float32)
    """
    fn = "class_mean"
    _checks.require_count(fn, 1, num_classes=num_classes)
    require_decay(fn, decay)
    require_positive(fn, prior=prior)

    def init(key: Array) -> ClassMeans:
        del key
        zeros = jnp.zeros(num_classes, jnp.float32)
        return ClassMeans(zeros, zeros, jnp.zeros((), jnp.int32))

    def score(state: ClassMeans, labels: Array, *unused: Any) -> Array:
        del unused  # the model and its inputs
        mean = ratio(jnp.sum(state.totals), jnp.sum(state.counts))
        at = jnp.where(valid(labels, num_classes), labels, num_classes)
        total = state.totals.at[at].get(mode="fill", fill_value=0)
        count = state.counts.at[at].get(mode="fill", fill_value=0)
        return (total + prior * mean) / (count + prior)

    def update(
        state: ClassMeans, labels: Array, targets: Array, weights: Array
    ) -> ClassMeans:
        is_class = valid(labels, num_classes)
        targets, weights, num_ignored = usable(targets, weights, is_class)
        at = jnp.where(is_class, labels, num_classes)
        # Below 2**23 a float32 still counts by ones.
        full = jnp.max(state.counts) >= 2.0**23
        kept = jnp.where(full, jnp.float32(0.5), jnp.float32(decay))
        totals = (kept * state.totals).at[at].add(weights * targets, mode="drop")
        counts = (kept * state.counts).at[at].add(weights, mode="drop")
        return ClassMeans(totals, counts, state.num_ignored + num_ignored)

    return Scorer(init, labels_by(fn, label_of), score, update)


class Cache(NamedTuple):
    """State of :func:`cache`: the last target of each example."""

    targets: Array  # f32[num_examples], NaN where there is none yet
    total: Array  # f32[], decayed sum of targets
    weight: Array  # f32[], decayed sum of weights
    num_ignored: Array  # i32[], targets that were not finite, indices out of range


def cache(
    index_of: Callable[[Batch], Array],
    num_examples: int,
    *,
    initial: float | None = None,
    decay: float = 0.995,
) -> Scorer:
    """The last target of the example itself: for data that come again.

    ``score[i] = targets[index[i]]``; of an example without a target ``initial``, or the
    mean of recent ones.

    Args:
      index_of: of a batch, the places of its examples in the data, ``i32[M]``.
      num_examples: indices lie in ``[0, num_examples)``. Others are scored as examples
        without a target, and ignored and counted in updates.
      initial: the score of an example not seen yet; None for the running mean of
        targets, 0 at first.
      decay: of that mean, what an update leaves of the past, in ``(0, 1]``.

    Returns:
      A :class:`Scorer` with the state :class:`Cache`, 4 bytes an example. Where an
      update names an example twice, one of its targets stays.

    Raises:
      TypeError: if indices are not int32, or ``initial`` is no number.
      ValueError: if ``num_examples < 1``, ``decay`` is out of range, or ``initial`` is
        not finite.

    Example:
      >>> scorer = cache(lambda batch: batch["index"], 3)
      >>> state = scorer.init(jax.random.key(0))
      >>> state = scorer.update(state, jnp.array([2]), jnp.array([5.0]), jnp.ones(1))
      >>> state = scorer.update(state, jnp.array([0]), jnp.array([5.0]), jnp.ones(1))
      >>> state = scorer.update(state, jnp.array([2]), jnp.array([1.0]), jnp.ones(1))
      >>> scorer.score(state, jnp.array([0, 2]), None, None)
      Array([5., 1.], dtype=float32)
    """
    fn = "cache"
    _checks.require_count(fn, 1, num_examples=num_examples)
    _checks.require_rows_fit(fn, num_examples)
    require_decay(fn, decay)
    if initial is not None:
        most = float(jnp.finfo(jnp.float32).max)
        _checks.require_between(fn, -most, most, initial=initial)

    def init(key: Array) -> Cache:
        del key
        zero = jnp.zeros((), jnp.float32)
        unseen = jnp.full(num_examples, jnp.nan, jnp.float32)
        return Cache(unseen, zero, zero, jnp.zeros((), jnp.int32))

    def encode(state: Cache, batch: Batch) -> Array:
        del state
        return ids_by(fn, "index_of(batch)", index_of(batch))

    def score(state: Cache, index: Array, *unused: Any) -> Array:
        del unused  # the model and its inputs
        at = jnp.where(valid(index, num_examples), index, num_examples)
        last = state.targets.at[at].get(mode="fill", fill_value=jnp.nan)
        unseen = ratio(state.total, state.weight) if initial is None else initial
        return jnp.where(jnp.isnan(last), jnp.asarray(unseen, jnp.float32), last)

    def update(state: Cache, index: Array, targets: Array, weights: Array) -> Cache:
        is_example = valid(index, num_examples)
        targets, weights, num_ignored = usable(targets, weights, is_example)
        at = jnp.where(is_example & (weights > 0), index, num_examples)
        return Cache(
            state.targets.at[at].set(targets, mode="drop"),
            jnp.float32(decay) * state.total + jnp.sum(weights * targets),
            jnp.float32(decay) * state.weight + jnp.sum(weights),
            state.num_ignored + num_ignored,
        )

    return Scorer(init, encode, score, update)


# ---- what scorers share -------------------------------------------------------------


def num_examples(fn: str, batch: Batch) -> int:
    """The length of the first axis, which all leaves have in common."""
    leaves = jax.tree.leaves(batch)
    shapes = [jnp.shape(x) for x in leaves]
    if not shapes or any(s[:1] != shapes[0][:1] or not s for s in shapes):
        raise ValueError(
            f"{fn}: candidates must be a pytree of arrays whose first axes are alike, "
            f"one row an example; got the shapes {shapes}."
        )
    return shapes[0][0]


def usable(
    targets: Array, weights: Array, is_known: Array | bool = True
) -> tuple[Array, Array, Array]:
    """Targets and weights with 0 for what cannot be learnt, and how many those are."""
    targets, weights = jax.lax.stop_gradient((targets, weights))
    is_fit = jnp.abs(targets) <= LARGEST_VALUE
    is_fit &= (weights >= 0) & (weights <= LARGEST_WEIGHT)
    is_bad = (weights != 0) & ~(is_fit & is_known)
    keep = (weights != 0) & ~is_bad
    num_ignored = jnp.sum(is_bad, dtype=jnp.int32)
    return jnp.where(keep, targets, 0), jnp.where(keep, weights, 0), num_ignored


def ratio(total: Array, count: Array) -> Array:
    """``total / count``, and 0 of nothing."""
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)


def ids_by(fn: str, name: str, ids: Any) -> Array:
    """``i32[M]`` that a user's function gave."""
    (ids,) = _checks.as_arrays(fn, **{name: ids})
    _checks.require_ids(fn, **{name: ids})
    _checks.require_rank(fn, 1, **{name: ids})
    return ids


def labels_by(fn: str, label_of: Callable[[Batch], Array]) -> Callable[..., Array]:
    """``encode`` of scorers that look at the label alone."""

    def encode(state: Any, batch: Batch) -> Array:
        del state
        return ids_by(fn, "label_of(batch)", label_of(batch))

    return encode


def require_decay(fn: str, decay: float) -> None:
    """In ``(0, 1]``."""
    _checks.require_between(fn, 0, 1, decay=decay)
    require_positive(fn, decay=decay)


def require_positive(fn: str, **values: float) -> None:
    """Static numbers above 0."""
    for name, x in values.items():
        _checks.require_between(fn, 0, float(jnp.finfo(jnp.float32).max), **{name: x})
        if x == 0:
            raise ValueError(f"{fn}: {name} must be above 0; got {x}.")


def _nothing(*unused: Any) -> tuple[()]:
    del unused
    return ()
