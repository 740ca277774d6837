"""The ops on the table of a sketch, and their rules for ``vmap``."""

import jax
import jax.numpy as jnp

from fsparse._batching import (
    fold,
    fold_into_examples,
    spread,
    unfold,
    unfold_from_examples,
)
from fsparse._call import define, vary_together
from fsparse.sketch import _reference

Array = jax.Array


def update(cells: Array, values: Array, factor: Array, table: Array) -> Array:
    """``f32[R, n, 1 + m]``, in place: see `_reference.update`.

    The table keeps its shape on the way: XLA on CPU copies what is reshaped in place.
    """
    cells, values, factor, table = vary_together(cells, values, factor, table)
    return update_op(cells[None], values[None], factor[None], table)[0]


def query(
    cells: Array, centre: Array, table: Array, num_groups: int
) -> tuple[Array, Array]:
    """Sums over groups of rows, and moments over rows: see `_reference.query`."""
    operands = vary_together(cells, centre, table)
    sums, moments = query_op(*(x[None] for x in operands), num_groups=num_groups)
    return sums[0], moments[0]


# ---- the ops ------------------------------------------------------------------------


def _update_types(*operands: Array) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(operands[3].shape, jnp.float32)]


def _update_batch(size: int, batched: list[bool], *operands: Array) -> tuple[Array]:
    """More sketches."""
    every = map(spread, [size] * len(operands), batched, operands)
    return (unfold(update_op(*map(fold, every))[0], size),)


def _query_types(
    cells: Array, centre: Array, table: Array, *, num_groups: int
) -> list[jax.ShapeDtypeStruct]:
    (g, b), m = cells.shape[:2], centre.shape[2]
    shapes = (g, b, num_groups, 1 + m), (g, b, 1 + 2 * m)
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def _query_batch(
    size: int, batched: list[bool], *operands: Array, num_groups: int
) -> tuple[Array, Array]:
    """More sketches, or more examples that ask the same one."""
    if batched[2]:
        every = map(spread, [size] * len(operands), batched, operands)
        outs = query_op(*map(fold, every), num_groups=num_groups)
        return unfold(outs[0], size), unfold(outs[1], size)
    cells, centre = map(spread, [size] * 2, batched, operands)
    asked = map(fold_into_examples, (cells, centre))
    sums, moments = query_op(*asked, operands[2], num_groups=num_groups)
    moments = unfold_from_examples(moments, size)
    flat = sums.reshape(*sums.shape[:2], -1)
    sums = unfold_from_examples(flat, size).reshape(*moments.shape[:3], *sums.shape[2:])
    return sums, moments


update_op = define(
    "fsparse_sketch_update",
    _update_types,
    _reference.update,
    batch=_update_batch,
    aliases={3: 0},
)
query_op = define(
    "fsparse_sketch_query", _query_types, _reference.query, batch=_query_batch
)
