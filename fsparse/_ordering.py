"""Values that are held back until others are computed.

XLA overwrites a donated table in place only if it knows that no read of the old values
is still to come, and knows it only from data: a read whose result does not reach the
update makes it copy the table. ``optimization_barrier`` is gone by the time it decides.
So the held values go through a custom call, in place, that takes the others as well.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax

from fsparse import _batching
from fsparse._call import define

Array = jax.Array


def hold(held: Sequence[Array], until: Sequence[Array]) -> list[Array]:
    """``held``, unchanged, once ``until`` are computed; each aliases its own result."""
    return list(_hold(len(held))(*held, *until)) if held else []


@cache
def _hold(num_held: int) -> Callable[..., tuple[Any, ...]]:
    def twin(*operands: Array) -> tuple[Array, ...]:
        return tuple(jax.lax.optimization_barrier(operands)[:num_held])

    def batch(size: int, batched: list[bool], *operands: Array) -> tuple[Array, ...]:
        sizes = [size] * num_held  # the shortest: only what is held is spread
        held = map(_batching.spread, sizes, batched, operands)
        return op(*held, *operands[num_held:])

    def jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return op(*primals), tangents[:num_held]

    op = define(
        "fsparse_hold",
        lambda *operands: [
            jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands[:num_held]
        ],
        twin,
        batch=batch,
        jvp=jvp,
        aliases={i: i for i in range(num_held)},
    )
    return op
