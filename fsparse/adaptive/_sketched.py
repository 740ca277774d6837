"""Scores from a Nadaraya-Watson sketch of the targets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._scorers import Batch, Scorer, ids_by, require_decay
from fsparse.lsh import Family, SparseRows, codes
from fsparse.sketch import NWSketch, nw_decay, nw_init, nw_query, nw_update

Array = jax.Array
Rows = Array | SparseRows


class Hashed(NamedTuple):
    """What a sketch keeps examples by."""

    codes: Array  # i32[M, num_tables]
    labels: Array | None  # i32[M]


def sketched(
    family: Family,
    key_of: Callable[[Batch], Rows],
    label_of: Callable[[Batch], Array] | None = None,
    *,
    num_slices: int = 1,
    prior: float = 1.0,
    decay: float = 0.995,
    explore: float = 0.0,
) -> Scorer:
    """The mean target of examples that hash alike: kernel regression in small memory.

    ``score = mean + explore * |mean| / sqrt(1 + count)``, with the mean and the count
    of :func:`fsparse.sketch.nw_query`: the sketch's estimate of ``sum_j k(x, x_j) y_j /
    sum_j k(x, x_j)`` over the examples ``x_j`` of the same slice that were trained on,
    and of the sum below; ``k`` is the family's chance of a collision.

    Args:
      family: made by :func:`fsparse.lsh.simhash` or another of its kind.
      key_of: of a batch, the rows to hash: ``f32[M, dim]``, ``bf16[M, dim]`` or
        :class:`fsparse.lsh.SparseRows`. SimHash wants them centred.
      label_of: of a batch, labels ``i32[M]``. Losses depend on the label: with slices,
        examples are alike only if ``label % num_slices`` agrees.
      num_slices: of the sketch; the number of classes, or fewer.
      prior: examples of the slice's mean that every estimate begins with.
      decay: what a step leaves of the past, in ``(0, 1]``.
      explore: how much more is expected of what is little known: of an example without
        neighbours, the mean times this.

    Returns:
      A :class:`Scorer` with a :class:`fsparse.sketch.NWSketch` as its state. The
      update overwrites it in place, if donated.

    Raises:
      TypeError: if ``family`` is none, or a dtype differs from the above.
      ValueError: if shapes disagree or a number is out of range; if there are slices
        and no ``label_of``.

    Source: arXiv:2311.13583; slices, decay and exploration are not in it.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 2, num_tables=8, num_bits=2)
      >>> scorer = sketched(family, lambda batch: batch["x"], prior=1e-3)
      >>> state, batch = scorer.init(jax.random.key(1)), {"x": jnp.eye(2)}
      >>> hashed = scorer.encode(state, batch)
      >>> state = scorer.update(state, hashed, jnp.array([1.0, 3.0]), jnp.ones(2))
      >>> scores = scorer.score(state, hashed, None, batch)
      >>> bool(scores[0] < scores[1])
      True
    """
    fn = "sketched"
    _checks.require_type(fn, Family, family=family)
    _checks.require_count(fn, 1, num_slices=num_slices)
    require_decay(fn, decay)
    _checks.require_between(fn, 0, float("inf"), explore=explore)
    require_label_of(fn, num_slices, label_of)

    def init(key: Array) -> NWSketch:
        del key  # the family has the random choices
        return nw_init(family, num_slices=num_slices)

    def encode(state: NWSketch, batch: Batch) -> Hashed:
        labels = None if label_of is None else label_of(batch)
        if labels is not None:
            labels = ids_by(fn, "label_of(batch)", labels)
        return Hashed(codes(state.family, key_of(batch)), labels)

    def score(state: NWSketch, hashed: Hashed, *unused: Any) -> Array:
        del unused  # the model and its inputs
        found = nw_query(state, hashed.codes, hashed.labels, prior=prior)
        if explore == 0:
            return found.mean
        bonus = jnp.abs(found.mean) * jax.lax.rsqrt(1 + found.count)
        return found.mean + jnp.float32(explore) * bonus

    def update(
        state: NWSketch, hashed: Hashed, targets: Array, weights: Array
    ) -> NWSketch:
        state = state if decay == 1 else nw_decay(state, decay)
        targets, weights = jax.lax.stop_gradient((targets, weights))
        return nw_update(state, hashed.codes, targets, hashed.labels, weights=weights)

    return Scorer(init, encode, score, update)


class Excess(NamedTuple):
    """State of :func:`excess`."""

    train: Any
    holdout: Any


def excess(train: Scorer, holdout_state: Any) -> Scorer:
    """What training can still gain of an example: its score above what remains.

    ``score = max(train score - irreducible, 0)``, with the irreducible part guessed by
    the same scorer from the losses of examples that were held out: two sketches in the
    place of a second model.

    Args:
      train: a scorer, such as :func:`sketched`.
      holdout_state: a state of that scorer, which ``train.update`` has taught the
        losses of held-out examples. It stays as it is.

    Returns:
      A :class:`Scorer` with the state :class:`Excess`.

    Source: Mindermann et al., Prioritized training on points that are learnable, worth
    learning, and not yet learnt, ICML 2022, with a sketch in the place of its model.

    Example:
      >>> from fsparse.adaptive import class_mean
      >>> scorer = class_mean(lambda batch: batch["y"], 2)
      >>> key, ones = jax.random.key(0), jnp.ones(2)
      >>> holdout = scorer.init(key)
      >>> holdout = scorer.update(holdout, jnp.array([0, 1]), jnp.array([2., 0.]), ones)
      >>> both = excess(scorer, holdout)
      >>> labels = jnp.array([0, 1])
      >>> state = both.update(both.init(key), labels, jnp.array([2., 2.]), ones)
      >>> both.score(state, labels, None, None)
      Array([0.5, 1.5], dtype=float32)
    """
    _checks.require_type("excess", Scorer, train=train)

    def init(key: Array) -> Excess:
        return Excess(train.init(key), holdout_state)

    def encode(state: Excess, batch: Batch) -> Any:
        return train.encode(state.train, batch)

    def score(state: Excess, encoded: Any, train_state: Any, batch: Batch) -> Array:
        ours, rest = (train.score(s, encoded, train_state, batch) for s in state)
        return jnp.maximum(ours - rest, 0)

    def update(state: Excess, encoded: Any, targets: Array, weights: Array) -> Excess:
        learnt = train.update(state.train, encoded, targets, weights)
        return state._replace(train=learnt)

    return Scorer(init, encode, score, update)


def require_label_of(fn: str, num_slices: int, label_of: Any) -> None:
    """Slices need labels."""
    if num_slices > 1 and label_of is None:
        raise ValueError(
            f"{fn}: label_of must be given with num_slices > 1; got None and "
            f"num_slices={num_slices}. Pass a function from a batch to i32[M]."
        )
