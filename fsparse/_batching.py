"""The vmap rules: fold a mapped axis into an axis that the op already has.

Nothing is looped over and a weight table is never broadcast. A mapped table of ``s``
copies ``[s, n, d]`` is the table ``[s * n, d]``, whose ids are shifted by ``i * n``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.reference import valid

Array = jax.Array


def spread(size: int, batched: bool, x: Array) -> Array:
    """``[size, ...]``, by broadcasting where the axis is not mapped yet."""
    return x if batched else jnp.broadcast_to(x, (size, *x.shape))


def fold(x: Array) -> Array:
    """``[s, g, ...] -> [s * g, ...]``."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def unfold(x: Array, size: int) -> Array:
    """``[s * g, ...] -> [s, g, ...]``."""
    return x.reshape(size, x.shape[0] // max(size, 1), *x.shape[1:])


def fold_into_examples(x: Array) -> Array:
    """``[s, g, b, c] -> [g, s * b, c]``: more examples that share the same ids."""
    s, g, b, c = x.shape
    return jnp.moveaxis(x, 0, 1).reshape(g, s * b, c)


def unfold_from_examples(y: Array, size: int) -> Array:
    """``[g, s * b, ...] -> [s, g, b, ...]``."""
    g, sb, *tail = y.shape
    return jnp.moveaxis(y.reshape(g, size, sb // max(size, 1), *tail), 1, 0)


def row_products(
    op: Callable[..., tuple[Array, ...]],
    size: int,
    batched: list[bool],
    a: Array,
    w: Array,
    ids: Array,
    *constants: Array,
    **params: Any,
) -> tuple[Array, ...]:
    """The vmap rule of ``f32[g, b, c], f32[n, d], i32[g, m], ... -> [g, b, ...]``."""
    a_batched, w_batched, ids_batched, *rest = batched
    own = [c[0] if on else c for c, on in zip(constants, rest, strict=True)]
    if not w_batched and not ids_batched:
        (y,) = op(fold_into_examples(a), w, ids, *own, **params)
        return (unfold_from_examples(y, size),)
    a, ids = spread(size, a_batched, a), spread(size, ids_batched, ids)
    if w_batched:
        ids, w = shift_ids(ids, w.shape[1]), fold(w)
    (y,) = op(fold(a), w, fold(ids), *own, **params)
    return (unfold(y, size),)


def shift_ids(ids: Array, num_rows: int) -> Array:
    """Ids into ``[s, n, d]`` become ids into ``[s * n, d]``; padding stays padding."""
    size = ids.shape[0]
    _checks.require_rows_fit("fsparse under vmap", size * num_rows)
    first = jnp.arange(size, dtype=jnp.int32) * num_rows
    first = first.reshape(size, *[1] * (ids.ndim - 1))
    return jnp.where(valid(ids, num_rows), ids + first, size * num_rows)
