"""SimHash as an op: projections, their signs as codes, and which bits to flip.

On CPU no array of all projections is made: a block of them in cache at a time becomes
codes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, reference
from fsparse._call import define, vary_together
from fsparse.lsh._inputs import Rows, SparseRows
from fsparse.lsh._probing import flip_sets, probes_of

Array = jax.Array


def sign_codes(x: Rows, directions: Array, num_bits: int, num_probes: int) -> Array:
    """Codes ``i32[b, l, num_probes]`` of the signs of ``x @ directions``.

    Args:
      x: rows; one that is not finite has the codes of the row of zeros.
      directions: ``f32[dim, l * num_bits]``, or bf16.
      num_bits: of each of ``l`` tables.
      num_probes: the code, and the likeliest others beside it: see :func:`probes_of`.

    A projection is summed in the order of its coordinates, one at a time, so that a row
    has the same codes alone and in a batch, and for any number of threads.
    """
    if isinstance(x, SparseRows):
        v, ids = x.values[:, None], x.ids
    else:
        v, ids = x[None], jnp.arange(directions.shape[0], dtype=jnp.int32)[None]
    v = v.astype(jnp.float32)
    flips = jnp.asarray(flip_sets(num_bits, num_probes))
    operands = vary_together(v, directions, ids, flips)
    (probes,) = _op(*operands, num_bits=num_bits, num_probes=num_probes)
    return _batching.fold(probes)


def _twin(
    v: Array, w: Array, ids: Array, flips: Array, *, num_bits: int, num_probes: int
) -> tuple[Array]:
    """As ``gather_matmul``, of which each ``num_bits`` columns are one table."""
    is_finite = jnp.isfinite(v) | ~reference.valid(ids, w.shape[0])[:, None]
    v = jnp.where(jnp.all(is_finite, axis=2, keepdims=True), v, 0)
    (y,) = reference.gather_matmul(v, w, ids)
    margins = y.reshape(*y.shape[:2], y.shape[2] // num_bits, num_bits)
    return (probes_of(margins, flips, num_probes),)


def _types(
    v: Array, w: Array, *_: Array, num_bits: int, num_probes: int
) -> list[jax.ShapeDtypeStruct]:
    shape = (*v.shape[:2], w.shape[1] // num_bits, num_probes)
    return [jax.ShapeDtypeStruct(shape, jnp.int32)]


_op: Callable[..., Any] = define(
    "fsparse_sign_codes",
    _types,
    _twin,
    batch=lambda *args, **params: _batching.row_products(_op, *args, **params),
)
