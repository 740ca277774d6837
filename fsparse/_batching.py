"""The vmap rules: fold a mapped axis into an axis that the op already has.

Nothing is looped over and a weight table is never broadcast. A mapped table of ``s``
copies ``[s, n, d]`` is the table ``[s * n, d]``, whose ids are shifted by ``i * n``.
"""

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
    """``[g, s * b, c] -> [s, g, b, c]``."""
    g, sb, c = y.shape
    return jnp.moveaxis(y.reshape(g, size, sb // max(size, 1), c), 1, 0)


def shift_ids(ids: Array, num_rows: int) -> Array:
    """Ids into ``[s, n, d]`` become ids into ``[s * n, d]``; padding stays padding."""
    size = ids.shape[0]
    _checks.require_rows_fit("fsparse under vmap", size * num_rows)
    first = jnp.arange(size, dtype=jnp.int32) * num_rows
    first = first.reshape(size, *[1] * (ids.ndim - 1))
    return jnp.where(valid(ids, num_rows), ids + first, size * num_rows)
