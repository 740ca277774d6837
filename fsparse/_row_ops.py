"""The custom calls of the row optimizers, and their rule for ``vmap``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, reference
from fsparse._call import define, vary_together

Array = jax.Array


def _batch_tables(
    op: Callable[..., tuple[Array, ...]], num_grad: int, num_tables: int
) -> Callable[..., tuple[Array, ...]]:
    """The vmap rule of ``(*row gradient, *constants, seed, *tables) -> tables``.

    Tables are stacked, or broadcast if they are not mapped, since each of the mapped
    updates gives a table of its own. No single call has two learning rates, and in
    bfloat16 the row number enters the rounding: these are mapped one by one.
    """

    def rule(size: int, batched: list[bool], *operands: Array) -> tuple[Array, ...]:
        first = len(operands) - num_tables
        constants = slice(num_grad, first - 1)
        spread = tuple(map(_batching.spread, [size] * len(operands), batched, operands))
        rounds = any(x.dtype == jnp.bfloat16 for x in operands[first:])
        if rounds or any(batched[constants]):
            return tuple(jax.lax.map(lambda xs: op(*xs), spread))
        grad = _fold_grad(spread[:num_grad], num_rows=spread[first].shape[1])
        unused_seed = jnp.zeros(2, jnp.uint32)
        tables = map(_batching.fold, spread[first:])
        outs = op(*grad, *operands[constants], unused_seed, *tables)
        return tuple(_batching.unfold(out, size) for out in outs)

    return rule


def _fold_grad(grad: tuple[Array, ...], num_rows: int) -> list[Array]:
    """Mapped ``(ids, scale, source, x)``, or ids alone, as those of one table."""
    ids = _batching.shift_ids(grad[0], num_rows)
    if len(grad) == 1:
        return [_batching.fold(ids)]
    _, scale, source, x = grad
    source = _batching.shift_ids(source, x.shape[1])
    return [_batching.fold(each) for each in (ids, scale, source, x)]


def _row_op(
    name: str,
    twin: Callable[..., Any],
    *,
    num_tables: int,
    num_grad: int = 4,
    num_constants: int = 1,
) -> Callable[..., tuple[Array, ...]]:
    """An op ``(*row gradient, *constants, seed, *tables) -> tables``, all aliased."""
    first = num_grad + num_constants + 1

    def types(*operands: Any) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands[first:]]

    op = define(
        name,
        types,
        twin,
        batch=lambda *args: _batch_tables(op, num_grad, num_tables)(*args),
        aliases={first + i: i for i in range(num_tables)},
    )
    return lambda *operands: op(*vary_together(*operands))


sgd_rows = _row_op("fsparse_sgd_rows", reference.sgd_rows, num_tables=1)
momentum_rows = _row_op("fsparse_momentum_rows", reference.momentum_rows, num_tables=2)
adagrad_rows = _row_op("fsparse_adagrad_rows", reference.adagrad_rows, num_tables=2)
rowwise_adagrad_rows = _row_op(
    "fsparse_rowwise_adagrad_rows", reference.rowwise_adagrad_rows, num_tables=2
)
adam_rows = _row_op("fsparse_adam_rows", reference.adam_rows, num_tables=3)
exact_adam_rows = _row_op(
    "fsparse_exact_adam_rows", reference.exact_adam_rows, num_tables=4, num_constants=3
)
adam_catch_up = _row_op(
    "fsparse_adam_catch_up",
    reference.adam_catch_up,
    num_tables=4,
    num_grad=1,
    num_constants=3,
)


def _batch_sum_squares(
    size: int, batched: list[bool], *operands: Array
) -> tuple[Array, ...]:
    """Each of the mapped sums is a call of its own."""
    spread = tuple(map(_batching.spread, [size] * len(operands), batched, operands))
    return tuple(jax.lax.map(lambda xs: _sum_squares(*xs), spread))


_sum_squares = define(
    "fsparse_sum_squares",
    lambda *_: [jax.ShapeDtypeStruct((1,), jnp.float32)],
    reference.sum_squares,
    batch=_batch_sum_squares,
)


def sum_squares(*operands: Array) -> tuple[Array, ...]:
    """An op ``(*row gradient, num_rows) -> (f32[1],)``."""
    return _sum_squares(*vary_together(*operands))
