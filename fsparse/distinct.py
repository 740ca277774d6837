"""Distinct ids out of many: what an active set is made of."""

import jax
import jax.numpy as jnp

from fsparse import _batching, _checks
from fsparse._call import define, vary_together
from fsparse.reference import valid

Array = jax.Array


def first_distinct(ids: Array, k: int, *, num_rows: int) -> tuple[Array, Array]:
    """The first ``k`` distinct ids of each row, in rising order.

    Of ``ids[i, 0], ids[i, 1], ...`` those in ``[0, n)`` are taken as they come, each
    once, until there are ``k``.

    Args:
      ids: ``i32[c]`` or ``i32[b, c]``; an id outside ``[0, n)`` is padding.
      k: how many, at least 1.
      num_rows: ``n``, at least 1.

    Returns:
      ``i32[k]`` or ``i32[b, k]``, rising and then padded with ``n``, and ``i32[]`` or
      ``i32[b]``, how many distinct ids there are: what exceeds ``k`` was left out.

    Raises:
      TypeError: if ``ids`` are not int32, or ``k`` is no static integer.
      ValueError: if ``ids`` has not 1 or 2 axes, ``k < 1`` or ``num_rows < 1``.

    Nothing aliases, and there are no gradients. Costs ``O(c)`` and, for at most ``n``
    ids that are kept, their sorting; ``n`` bits for each thread, which it keeps.

    Example:
      >>> ids, num_distinct = first_distinct(jnp.array([7, 2, 7, 9, 4]), 2, num_rows=9)
      >>> ids, num_distinct
      (Array([2, 7], dtype=int32), Array(3, dtype=int32))
    """
    fn = "first_distinct"
    (ids,) = _checks.as_arrays(fn, ids=ids)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, (1, 2), ids=ids)
    _checks.require_count(fn, 1, k=k, num_rows=num_rows)
    _checks.require_rows_fit(fn, num_rows)
    if ids.ndim == 2:
        return first_distinct_op(ids, k, num_rows)
    first, num_distinct = first_distinct_op(ids[None], k, num_rows)
    return first[0], num_distinct[0]


def first_distinct_op(ids: Array, k: int, num_rows: int) -> tuple[Array, Array]:
    """``i32[g, c] -> (i32[g, k], i32[g])``."""
    n = jnp.full(1, num_rows, jnp.int32)
    first, num_distinct = _first_distinct(*vary_together(ids, n), k=int(k))
    return first, num_distinct


def ranks(ids: Array, num_rows: int | Array) -> Array:
    """``i32[g, c]``: how many distinct ids come before each, at its first appearance.

    Further appearances, and padding, come after everything: at ``2**31 - 1``.
    """
    c = ids.shape[1]
    ids = jnp.where(valid(ids, num_rows), ids, num_rows)
    order = jnp.argsort(ids, axis=1, stable=True)
    in_order = jnp.take_along_axis(ids, order, axis=1)
    before = jnp.pad(in_order, ((0, 0), (1, 0)), constant_values=-1)[:, :c]
    is_new = (in_order != before) & valid(in_order, num_rows)
    back = jnp.argsort(order, axis=1, stable=True)
    is_first = jnp.take_along_axis(is_new, back, axis=1)
    rank = jnp.cumsum(is_first, axis=1, dtype=jnp.int32) - 1
    return jnp.where(is_first, rank, jnp.iinfo(jnp.int32).max)


def _twin(ids: Array, num_rows: Array, *, k: int) -> tuple[Array, Array]:
    c, n = ids.shape[1], num_rows[0]
    rank = ranks(ids, n)
    first = jnp.sort(jnp.where(rank < k, ids, n), axis=1)[:, :k]
    short = jnp.full((ids.shape[0], max(k - c, 0)), n)
    num_distinct = jnp.sum(rank < c, axis=1, dtype=jnp.int32)
    return jnp.concatenate([first, short], axis=1), num_distinct


def _types(ids: Array, num_rows: Array, *, k: int) -> list[jax.ShapeDtypeStruct]:
    g = ids.shape[0]
    return [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((g, k), (g,))]


def _batch(
    size: int, batched: list[bool], ids: Array, num_rows: Array, *, k: int
) -> tuple[Array, ...]:
    """More rows; ``num_rows`` is a constant, in each copy where it has been mapped."""
    ids = _batching.spread(size, batched[0], ids)
    num_rows = num_rows[0] if batched[1] else num_rows
    outs = _first_distinct(_batching.fold(ids), num_rows, k=k)
    return tuple(_batching.unfold(y, size) for y in outs)


_first_distinct = define("fsparse_first_distinct", _types, _twin, batch=_batch)
