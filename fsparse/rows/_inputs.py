"""What every update makes of its arguments: checked arrays, constants, a seed."""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.row_gradients import RowGrad

Array = jax.Array
Scalar = Array | float


def constants(fn: str, **values: Scalar) -> Array:
    """Scalars, traced or not, as one ``f32`` array."""
    scalars = _checks.as_arrays(fn, **values)
    _checks.require_rank(fn, 0, **dict(zip(values, scalars, strict=True)))
    return jnp.stack([v.astype(jnp.float32) for v in scalars])


def bias(decay: Scalar, t: Array) -> Array:
    """``1 - decay**t`` to all its digits, of a decay rounded to float32."""
    decay = jnp.asarray(decay, jnp.float32)
    return -jnp.expm1(t.astype(jnp.float32) * jnp.log1p(decay - 1))


def new_key(seed: int | Array) -> Array:
    """``u32[2]``: two seeds never share bits, as ``seed ^ count`` alone might."""
    return jax.random.bits(jax.random.key(seed), (2,), jnp.uint32)


def seed_of(key: Array, count: Array) -> Array:
    """The seed of the rounding in the update after ``count`` others: ``u32[2]``.

    The count goes where the kernels add: they xor the row to the first word, where row
    1 of update 0 would share its bits with row 0 of update 1.
    """
    return jnp.stack([key[0], key[1] + count.astype(jnp.uint32)])


def zeros_like(fn: str, table: Array, dtype: Any) -> Array:
    """A moment of zeros for every element of a table, float32 by default."""
    dtype = jnp.dtype(dtype or jnp.float32)
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise TypeError(
            f"{fn}: moment_dtype must be float32 or bfloat16; got {dtype.name}."
        )
    (table,) = _checks.as_arrays(fn, table=table)
    return jnp.zeros_like(table, dtype=dtype)


def check_grad(fn: str, grad: RowGrad) -> tuple[Array, ...]:
    """The arrays ``ids, scale, source, x`` of a row gradient."""
    _checks.require_type(fn, RowGrad, grad=grad)
    ids, scale, source, x = _checks.as_arrays(
        fn, ids=grad.ids, scale=grad.scale, source=grad.source, x=grad.x
    )
    _checks.require_f32(fn, scale=scale, x=x)
    _checks.require_ids(fn, ids=ids, source=source)
    _checks.require_rank(fn, 1, ids=ids, scale=scale, source=source)
    _checks.require_rank(fn, 2, x=x)
    _checks.require(
        fn,
        ids.shape == scale.shape == source.shape,
        "ids, scale and source must have one shape [t]",
        ids=ids,
        scale=scale,
        source=source,
    )
    return ids, scale, source, x


def check_table(fn: str, table: Array, **moments: Array) -> tuple[Array, ...]:
    """A table and moments of its shape, each float32 or bfloat16."""
    named = {"table": table} | moments
    arrays = _checks.as_arrays(fn, **named)
    named = dict(zip(named, arrays, strict=True))
    _checks.require_table(fn, **named)
    _checks.require_rank(fn, 2, table=arrays[0])
    _checks.require_rows_fit(fn, arrays[0].shape[0])
    for name in moments:
        require_like(fn, arrays[0], name, named[name], arrays[0].shape)
    return arrays


def require_like(
    fn: str, table: Array, name: str, moment: Array, shape: tuple[int, ...]
) -> None:
    """A part of the state has the shape that this table gives it."""
    of_rows = "an entry for each row of table"
    what = "the shape of table" if shape == table.shape else of_rows
    _checks.require(
        fn,
        moment.shape == shape,
        f"{name} must have {what}; was it made for another table?",
        **{name: moment, "table": table},
    )


def check(
    fn: str, grad: RowGrad, table: Array, **moments: Array
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """A row gradient and the table and moments it belongs to, as arrays."""
    arrays, tables = check_grad(fn, grad), check_table(fn, table, **moments)
    if grad.num_rows != tables[0].shape[0]:
        raise ValueError(
            f"{fn}: grad.num_rows must equal table.shape[0]; is it the gradient of "
            f"another table?; got num_rows: {grad.num_rows}, "
            f"table: {_checks.aval(tables[0])}."
        )
    _checks.require(
        fn,
        arrays[3].shape[1] == tables[0].shape[1],
        "x.shape[1] must equal table.shape[1]",
        x=arrays[3],
        table=tables[0],
    )
    return arrays, tables
