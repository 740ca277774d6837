"""The hash tables of an index: which rows are in which buckets.

Plain arrays in one pytree, and four ops on them. The order of the entries of a bucket
is nobody's business: what counts is which there are, and no op lets one see more.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse._batching import fold, spread, unfold
from fsparse._call import define, vary_together
from fsparse.lsh import _reference
from fsparse.lsh._reference import NOWHERE as NOWHERE

Array = jax.Array
_STATE = 6
Op = Callable[..., tuple[Array, ...]]


class Buckets(NamedTuple):
    """``l`` hash tables of ``r`` buckets, in arrays of ``c`` slots, over ``n`` rows.

    Bucket ``j`` of table ``t`` holds ``entries[t, starts[t, j]:][:sizes[t, j]]``, ids,
    and can grow as far as ``starts[t, j + 1]``; the slots between hold ``n``.
    """

    starts: Array  # i32[l, r + 1]
    sizes: Array  # i32[l, r]
    entries: Array  # i32[l, c]
    codes: Array  # u16[l, n], the bucket of each row, or 65,535 for none
    num_inserted: Array  # i32[l], entries beside one for each row
    num_lost: Array  # i32[l], insertions for which there was no room


def build(codes: Array, num_buckets: int, capacity: int) -> Buckets:
    """Tables in which row ``i`` is in bucket ``codes[t, i]``, ``u16[l, n]``."""
    arrays = build_op(codes, num_buckets=num_buckets, capacity=capacity)
    # Two arrays of zeros, so that both can be donated.
    zeros = [jnp.zeros(codes.shape[0], jnp.int32) for _ in range(2)]
    return Buckets(*vary_together(*arrays, codes, *zeros))


def move(buckets: Buckets, ids: Array, codes: Array) -> Buckets:
    """Rows ``i32[m]`` go to the buckets ``u16[l, m]``. In place if donated."""
    return Buckets(*move_op(*vary_together(ids, codes, *buckets)))


def insert(buckets: Buckets, ids: Array, codes: Array, max_inserted: int) -> Buckets:
    """Adds entries for rows ``i32[m]`` to the buckets ``u16[l, m]``, in order.

    An entry that is there is not added again; one more than ``max_inserted`` in a
    table is lost, and counted. In place if donated.
    """
    most = jnp.full(1, max_inserted, jnp.int32)
    return Buckets(*insert_op(*vary_together(ids, codes, most, *buckets)))


def vote(
    buckets: Buckets, probes: Array, start: Array, size: int
) -> tuple[Array, Array, Array]:
    """Ranks the rows in the probed buckets of each group: see `_reference.vote`."""
    operands = vary_together(probes, start.reshape(1), *buckets[:5])
    ids, votes, num_found = vote_op(*operands, k=size)
    return ids, votes, num_found


# ---- the ops ------------------------------------------------------------------------


def _build_types(
    codes: Array, *, num_buckets: int, capacity: int
) -> list[jax.ShapeDtypeStruct]:
    tables = codes.shape[0]
    widths = num_buckets + 1, num_buckets, capacity
    return [jax.ShapeDtypeStruct((tables, width), jnp.int32) for width in widths]


def _build_batch(
    size: int, batched: list[bool], codes: Array, **params: int
) -> tuple[Array, ...]:
    """Tables know nothing of each other."""
    return tuple(unfold(y, size) for y in build_op(fold(codes), **params))


def _same_types(*operands: Array) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands[-_STATE:]]


def _vote_types(probes: Array, *_: Array, k: int) -> list[jax.ShapeDtypeStruct]:
    groups = probes.shape[0]
    shapes = (groups, k), (groups, k), (groups,)
    return [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes]


def _vote_batch(
    size: int, batched: list[bool], *operands: Array, **params: int
) -> tuple[Array, ...]:
    """More groups of examples ask the same tables; else one call after the other."""
    if any(batched[1:]):
        return _one_by_one(vote_op, size, batched, *operands, **params)
    outs = vote_op(fold(operands[0]), *operands[1:], **params)
    return tuple(unfold(y, size) for y in outs)


def _one_by_one(
    op: Op, size: int, batched: list[bool], *operands: Array, **params: int
) -> tuple[Array, ...]:
    every = tuple(map(lambda on, x: spread(size, on, x), batched, operands))
    return jax.lax.map(lambda xs: op(*xs, **params), every)


build_op = define(
    "fsparse_build_buckets", _build_types, _reference.build, batch=_build_batch
)
move_op: Op = define(
    "fsparse_move_rows",
    _same_types,
    _reference.move,
    batch=lambda *args: _one_by_one(move_op, *args),
    aliases={2 + i: i for i in range(_STATE)},
)
insert_op: Op = define(
    "fsparse_insert_entries",
    _same_types,
    _reference.insert,
    batch=lambda *args: _one_by_one(insert_op, *args),
    aliases={3 + i: i for i in range(_STATE)},
)
vote_op = define("fsparse_vote", _vote_types, _reference.vote, batch=_vote_batch)
