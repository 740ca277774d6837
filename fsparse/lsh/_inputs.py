"""Rows to hash, dense or sparse, brought to one meaning.

An absent coordinate is 0, padding is absent, repeated ids add up, and a row that is not
finite is the row of zeros.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.matmul import take_rows
from fsparse.reference import valid

Array = jax.Array


class SparseRows(NamedTuple):
    """Rows as lists of their coordinates that are not 0.

    An id outside ``[0, dim)`` is padding and hides its value. Values of an id that a
    row repeats add up.
    """

    ids: Array  # i32[b, s]
    values: Array  # f32[b, s] or bf16[b, s]


BLOCK_ROWS = 4096

Rows: TypeAlias = Array | SparseRows


def open_rows(fn: str, dim: int, x: Any) -> Rows:
    """Checks rows at the public edge."""
    if isinstance(x, SparseRows):
        return _open_sparse(fn, x)
    (x,) = _checks.as_arrays(fn, x=x)
    _checks.require_table(fn, x=x)
    _checks.require_rank(fn, 2, x=x)
    _checks.require(fn, x.shape[1] == dim, f"x.shape[1] must equal dim={dim}", x=x)
    return x


def _open_sparse(fn: str, x: SparseRows) -> SparseRows:
    ids, values = _checks.as_arrays(fn, ids=x.ids, values=x.values)
    _checks.require_ids(fn, ids=ids)
    _checks.require_table(fn, values=values)
    _checks.require_rank(fn, 2, ids=ids, values=values)
    _checks.require(
        fn,
        ids.shape == values.shape,
        "ids and values must have one shape",
        ids=ids,
        values=values,
    )
    return SparseRows(ids, values)


def num_rows(x: Rows) -> int:
    """``b``."""
    return (x.ids if isinstance(x, SparseRows) else x).shape[0]


def block_of(x: Rows, start: Array, size: int) -> Rows:
    """Rows ``start, ..., start + size - 1``, of which there are as many."""
    if not isinstance(x, SparseRows):
        return rows_at(x, start, size)
    ids = jax.lax.dynamic_slice_in_dim(x.ids, start, size)
    return SparseRows(ids, rows_at(x.values, start, size))


def rows_at(x: Array, start: Array, size: int) -> Array:
    """Rows from ``start`` on as f32, zeros beyond the last.

    By an op that reads bf16 where it lies: XLA on CPU would widen all of it first.
    """
    return take_rows(x, start.astype(jnp.int32) + jnp.arange(size, dtype=jnp.int32))


def clean(x: Rows, dim: int) -> Rows:
    """As f32, with padding written ``dim`` and zeros in rows that are not finite."""
    if not isinstance(x, SparseRows):
        return _finite(x.astype(jnp.float32))
    is_id = valid(x.ids, dim)
    values = jnp.where(is_id, x.values.astype(jnp.float32), 0)
    return SparseRows(jnp.where(is_id, x.ids, dim), _finite(values))


def _finite(values: Array) -> Array:
    is_finite = jnp.all(jnp.isfinite(values), axis=1, keepdims=True)
    return jnp.where(is_finite, values, 0)


def row_indices(x: Array) -> Array:
    """``i32[b, 1]``, beside ids of shape ``[b, s]``."""
    return jnp.arange(x.shape[0], dtype=jnp.int32)[:, None]


def merged(x: SparseRows, dim: int) -> SparseRows:
    """Clean rows with rising ids, each once, then padding; values of an id add up.

    The sort is stable: an id's values are added in their order, as in `densified`.
    """
    ids, values = jax.lax.sort((x.ids, x.values), dimension=1, num_keys=1)
    before = jnp.pad(ids, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    place = jnp.cumsum((ids != before).astype(jnp.int32), axis=1, dtype=jnp.int32) - 1
    at = row_indices(ids), place
    sums = jnp.zeros_like(values).at[at].add(values)
    return SparseRows(jnp.full_like(ids, dim).at[at].set(ids), _finite(sums))


def densified(x: Rows, dim: int) -> Array:
    """``f32[b, dim]`` of clean rows."""
    if not isinstance(x, SparseRows):
        return x
    zeros = jnp.zeros((num_rows(x), dim), jnp.float32)
    at = row_indices(x.ids), x.ids
    return _finite(zeros.at[at].add(x.values, mode="drop"))
