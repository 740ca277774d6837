"""Scores that are computed exactly: what cheap ones are measured against."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.adaptive._scorers import Batch, Scorer, ids_by, num_examples, usable
from fsparse.lsh import Family, SparseRows
from fsparse.lsh._inputs import clean, densified, open_rows
from fsparse.sketch import exact_nw

Array = jax.Array
Rows = Array | SparseRows


def exact(target_fn: Callable[[Any, Batch], Array]) -> Scorer:
    """The target itself, of every candidate: a forward pass of all of them.

    ``score = target_fn(train_state, batch)``: the loss, or with
    :func:`fsparse.adaptive.softmax_gradient_norm` a bound of the gradient's norm, which
    is the importance sampling of Katharopoulos and Fleuret, ICML 2018, section 3.2.

    Args:
      target_fn: of the state before the step and a batch, ``f32[M]``. It may read
        tables that the step overwrites.

    Returns:
      A :class:`Scorer` without a state.

    Raises:
      TypeError: if ``target_fn`` gives no float32.
      ValueError: if it gives not one number for each example.

    Example:
      >>> scorer = exact(lambda w, batch: jnp.abs(w * batch["x"] - 1))
      >>> scorer.score((), (), jnp.float32(2), {"x": jnp.array([0.0, 3.0])})
      Array([1., 5.], dtype=float32)
    """
    fn = "exact"

    def score(state: Any, encoded: Any, train_state: Any, batch: Batch) -> Array:
        del state, encoded
        targets = target_fn(train_state, batch)
        return require_targets(fn, "target_fn", targets, num_examples(fn, batch))

    nothing: Callable[..., tuple[()]] = lambda *unused: ()  # noqa: E731
    return Scorer(nothing, nothing, score, nothing)


def require_targets(fn: str, name: str, targets: Any, size: int) -> Array:
    """``f32[size]`` that a user's function gave, as constants."""
    name = f"the targets of {name}"
    (targets,) = _checks.as_arrays(fn, **{name: targets})
    _checks.require_f32(fn, **{name: targets})
    _checks.require(
        fn, targets.shape == (size,), f"{name} must be f32[{size}]", **{name: targets}
    )
    return jax.lax.stop_gradient(targets)


class Ring(NamedTuple):
    """State of :func:`exact_kernel`: the last examples, oldest first from ``next``."""

    rows: Array  # f32[capacity, dim]
    labels: Array  # i32[capacity]
    targets: Array  # f32[capacity]
    weights: Array  # f32[capacity], 0 where there is no example yet
    next: Array  # i32[], where the next example goes
    num_ignored: Array  # i32[], targets that were not finite


class Keyed(NamedTuple):
    """What a ring keeps examples by."""

    rows: Array  # f32[M, dim]
    labels: Array  # i32[M]


def exact_kernel(
    family: Family,
    key_of: Callable[[Batch], Rows],
    label_of: Callable[[Batch], Array] | None = None,
    *,
    capacity: int,
    prior: float = 1.0,
) -> Scorer:
    """Nadaraya-Watson regression on the last examples, without a sketch's error.

    ``score = sum_j k(x, x_j) y_j / sum_j k(x, x_j)`` over the last ``capacity``
    examples ``x_j`` of the same label that were trained on, shrunk as
    :func:`fsparse.sketch.exact_nw` says, with ``k`` the family's chance of a collision.

    Args:
      family: one that :func:`fsparse.lsh.collision_probability` knows.
      key_of: of a batch, rows ``f32[M, dim]``, ``bf16[M, dim]`` or
        :class:`fsparse.lsh.SparseRows`, which are kept as ``f32[M, dim]``.
      label_of: of a batch, labels ``i32[M]``; None for one class.
      capacity: examples that are kept, the last ones.
      prior: examples of the class's mean that every estimate begins with.

    Returns:
      A :class:`Scorer` with the state :class:`Ring`. Scores cost ``O(M capacity dim)``.

    Raises:
      TypeError: if ``family`` is none, or a dtype differs from the above.
      ValueError: if shapes disagree, ``capacity < 1``, or the family has no
        closed form.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 2, num_tables=8, num_bits=2)
      >>> scorer = exact_kernel(family, lambda batch: batch["x"], capacity=4)
      >>> state, batch = scorer.init(jax.random.key(1)), {"x": jnp.eye(2)}
      >>> kept = scorer.encode(state, batch)
      >>> state = scorer.update(state, kept, jnp.array([1.0, 3.0]), jnp.ones(2))
      >>> scores = scorer.score(state, kept, None, batch)
      >>> bool(scores[0] < scores[1])
      True
    """
    fn = "exact_kernel"
    _checks.require_type(fn, Family, family=family)
    _checks.require_count(fn, 1, capacity=capacity)

    def init(key: Array) -> Ring:
        del key  # nothing is random
        zeros, zero = jnp.zeros(capacity, jnp.float32), jnp.zeros((), jnp.int32)
        rows = jnp.zeros((capacity, family.dim), jnp.float32)
        return Ring(rows, jnp.zeros(capacity, jnp.int32), zeros, zeros, zero, zero)

    def encode(state: Ring, batch: Batch) -> Keyed:
        del state
        rows = open_rows(fn, family.dim, key_of(batch))
        rows = densified(clean(rows, family.dim), family.dim)
        labels = jnp.zeros(rows.shape[0], jnp.int32)
        if label_of is not None:
            labels = ids_by(fn, "label_of(batch)", label_of(batch))
        return jax.lax.stop_gradient(Keyed(rows, labels))

    def score(state: Ring, kept: Keyed, *unused: Any) -> Array:
        del unused  # the model and its inputs
        return exact_nw(
            family,
            state.rows,
            state.targets,
            kept.rows,
            state.labels,
            kept.labels,
            prior=prior,
            weights=state.weights,
        )

    def update(state: Ring, kept: Keyed, targets: Array, weights: Array) -> Ring:
        targets, weights, num_ignored = usable(targets, weights)
        at, num_new = _places(state.next, weights > 0, capacity)
        put = lambda old, new: old.at[at].set(new, mode="drop")  # noqa: E731
        return Ring(
            put(state.rows, kept.rows),
            put(state.labels, kept.labels),
            put(state.targets, targets),
            put(state.weights, weights),
            (state.next + num_new) % capacity,
            state.num_ignored + num_ignored,
        )

    return Scorer(init, encode, score, update)


def _places(start: Array, is_new: Array, capacity: int) -> tuple[Array, Array]:
    """Places in the ring, each once; ``capacity`` for what later ones overwrite."""
    rank = jnp.cumsum(is_new, dtype=jnp.int32) - 1
    num_new = jnp.sum(is_new, dtype=jnp.int32)
    stays = is_new & (rank >= num_new - capacity)
    return jnp.where(stays, (start + rank) % capacity, capacity), num_new
