"""From inner products to angles: rows made comparable by one shift and one scale."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_over, varying_axes
from fsparse.lsh._inputs import BLOCK_ROWS, rows_at
from fsparse.reference import sqrt

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mips:
    """What `mips` found in the rows; :func:`mips_rows` and :func:`mips_queries` use it.

    A pytree, with ``augment`` static.
    """

    center: Array  # f32[d]
    radius: Array  # f32[]
    augment: bool = field(metadata={"static": True})


def mips(rows: Array, center: bool = True, augment: bool = False) -> Mips:
    """Prepares hashing for the search of the largest inner products.

    Angles between queries and rows rank as inner products do only among rows of one
    length. Centring takes from each row the mean of all: a query's inner products all
    change by the same, so their ranking stays, and rows that shared a direction spread
    over the buckets. Augmenting gives each row the coordinate that makes its length 1,
    and queries a 0: then the angles rank exactly as the inner products.

    A bias is a coordinate: ``jnp.concatenate([rows, bias[:, None]], 1)``, with queries
    extended by 1 before :func:`mips_queries`.

    Args:
      rows: ``f32[m, d]`` or ``bf16[m, d]`` weights; a :class:`fsparse.Table` of them.
      center: whether to take the mean row from each.
      augment: whether to add a coordinate.

    Returns:
      :class:`Mips` of the mean, or zeros, and the largest length of ``row - center``.
      Rows of which the square is not finite are left out of both; without rows both
      are 0.

    Raises:
      TypeError: if ``rows`` have another dtype.
      ValueError: if ``rows`` have not two axes.

    Nothing aliases. Both are constants, without gradients. Memory: a block of 4,096
    rows at a time.

    Source: Neyshabur and Srebro, ICML 2015, section 4 (Simple-LSH).

    Example:
      >>> mips(jnp.array([[3.0, 0.0], [1.0, 0.0]]))
      Mips(center=Array([2., 0.], dtype=float32), radius=Array(1., dtype=float32), \
augment=False)
    """
    fn = "mips"
    (rows,) = _opened(fn, rows=rows)
    rows = jax.lax.stop_gradient(rows)
    middle = _mean(rows) if center else jnp.zeros(rows.shape[1], jnp.float32)
    return Mips(middle, _farthest(rows, middle), bool(augment))


def _fold(rows: Array, start: Any, step: Callable[[Any, Array, Array], Any]) -> Any:
    """A fold over blocks of rows: ``step(state, block, which rows are finite)``."""

    def body(i: Array, state: Any) -> Any:
        first = jnp.asarray(i, jnp.int32) * BLOCK_ROWS
        block = rows_at(rows, first, BLOCK_ROWS)
        is_row = first + jnp.arange(BLOCK_ROWS, dtype=jnp.int32) < rows.shape[0]
        is_row &= jnp.isfinite(jnp.sum(block * block, axis=1))
        return step(state, jnp.where(is_row[:, None], block, 0), is_row)

    start = jax.tree.map(lambda a: vary_over(a, varying_axes(rows)), start)
    return jax.lax.fori_loop(0, -(-rows.shape[0] // BLOCK_ROWS), body, start)


def _mean(rows: Array) -> Array:
    def add(state: tuple[Array, Array], block: Array, is_row: Array) -> Any:
        total, count = state
        return total + jnp.sum(block, axis=0), count + jnp.sum(is_row, dtype=jnp.int32)

    zeros = jnp.zeros(rows.shape[1], jnp.float32), jnp.int32(0)
    total, count = _fold(rows, zeros, add)
    return total / jnp.maximum(count, 1).astype(jnp.float32)


def _farthest(rows: Array, middle: Array) -> Array:
    def larger(radius: Array, block: Array, is_row: Array) -> Array:
        lengths = jnp.where(is_row, _lengths(block - middle[None]), 0)
        return jnp.maximum(radius, jnp.max(lengths))

    return _fold(rows, jnp.float32(0), larger)


def mips_rows(mips: Mips, rows: Array) -> Array:
    """Rows as they are hashed: shifted, scaled into the unit ball, augmented.

    ``u = (row - center) / radius``, and ``sqrt(1 - |u|**2)`` after it if augmented. A
    row longer than the radius, since the rows may have moved, is cut back to it.

    Args:
      mips: made by :func:`fsparse.lsh.mips`.
      rows: ``f32[m, d]`` or ``bf16[m, d]``.

    Returns:
      ``f32[m, d]``, or ``f32[m, d + 1]`` if augmented. Zeros before the augmented 1 if
      the radius is 0. Rows that are not finite stay so.

    Raises:
      TypeError: if ``mips`` is none, or ``rows`` have another dtype.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable almost everywhere.

    Example:
      >>> scale = mips(jnp.array([[3.0, 0.0], [1.0, 0.0]]))
      >>> mips_rows(scale, jnp.array([[2.5, 0.0]]))
      Array([[0.5, 0. ]], dtype=float32)
    """
    fn = "mips_rows"
    _checks.require_type(fn, Mips, mips=mips)
    (rows,) = _opened(fn, rows=rows)
    _require_dim(fn, mips, rows=rows)
    offset = rows.astype(jnp.float32) - mips.center[None]
    scale = jnp.maximum(mips.radius, _lengths(offset))[:, None]
    unit = offset / jnp.where(scale == 0, 1, scale)
    if not mips.augment:
        return unit
    rest = jnp.sum(unit**2, axis=1, keepdims=True)
    return jnp.concatenate([unit, sqrt(jnp.maximum(1 - rest, 0))], axis=1)


def mips_queries(mips: Mips, x: Array) -> Array:
    """Queries as they are hashed: with a 0 after them if rows are augmented.

    Args:
      mips: made by :func:`fsparse.lsh.mips`.
      x: ``f32[b, d]`` or ``bf16[b, d]``.

    Returns:
      ``f32[b, d]``, or ``f32[b, d + 1]`` if augmented.

    Raises:
      TypeError: if ``mips`` is none, or ``x`` has another dtype.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable.

    Example:
      >>> scale = mips(jnp.array([[3.0, 0.0], [1.0, 0.0]]), augment=True)
      >>> mips_queries(scale, jnp.array([[1.0, 2.0]]))
      Array([[1., 2., 0.]], dtype=float32)
    """
    fn = "mips_queries"
    _checks.require_type(fn, Mips, mips=mips)
    (x,) = _opened(fn, x=x)
    _require_dim(fn, mips, x=x)
    return jnp.pad(x.astype(jnp.float32), ((0, 0), (0, int(mips.augment))))


def _opened(fn: str, **arrays: Array) -> tuple[Array, ...]:
    opened = dict(zip(arrays, _checks.as_arrays(fn, **arrays), strict=True))
    _checks.require_table(fn, **opened)
    _checks.require_rank(fn, 2, **opened)
    return tuple(opened.values())


def _require_dim(fn: str, mips: Mips, **arrays: Array) -> None:
    ((name, x),) = arrays.items()
    _checks.require(
        fn,
        x.shape[1:] == mips.center.shape,
        f"{name}.shape[1] must equal that of the rows which mips was made of",
        **arrays,
        center=mips.center,
    )


def _lengths(x: Array) -> Array:
    return sqrt(jnp.sum(x**2, axis=1))
