"""SimHash by fast rotations as an op: signs of ``H D3 H D2 H D1 x`` as codes.

On CPU a row at a time goes from its coordinates to its codes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching
from fsparse._call import define, vary_together
from fsparse.lsh._probing import candidates, probes_of
from fsparse.lsh._projections import rotate

Array = jax.Array


def hadamard_codes(
    x: Array, signs: Array, num_tables: int, num_bits: int, num_probes: int
) -> Array:
    """Codes ``i32[b, num_tables, num_probes]`` of the signs of rotated rows.

    Args:
      x: ``f32[b, d]`` or ``bf16[b, d]``; a row that is not finite has the codes of the
        row of zeros.
      signs: ``f32[r, 3, n]`` of +-1, ``n`` the next power of two from ``d``: of ``r``
        rotations, which have ``r n >= num_tables * num_bits`` outputs.
      num_tables: codes of a row.
      num_bits: of each.
      num_probes: the code, and the likeliest others beside it: see :func:`probes_of`.

    The butterflies of :func:`rotate`, in its order: codes have the same bits on CPU and
    elsewhere.
    """
    flips = jnp.asarray(candidates(num_bits, num_probes))
    operands = vary_together(x[None], signs[None], flips)
    (probes,) = _op(*operands, num_tables=num_tables, num_probes=num_probes)
    return probes[0]


def _twin(
    x: Array, signs: Array, flips: Array, *, num_tables: int, num_probes: int
) -> tuple[Array]:
    """Rows ``[g, b, d]`` by rotations ``[g, r, 3, n]`` and sets of bits ``[c, k]``."""
    x = x.astype(jnp.float32)
    x = jnp.where(jnp.all(jnp.isfinite(x), axis=2, keepdims=True), x, 0)
    (g, b, d), n, num_bits = x.shape, signs.shape[3], flips.shape[1]
    y = rotate(jnp.pad(x, ((0, 0), (0, 0), (0, n - d))), signs)
    margins = y.reshape(g, b, -1)[..., : num_tables * num_bits]
    margins = margins.reshape(g, b, num_tables, num_bits)
    return (probes_of(margins, flips, num_probes),)


def _types(
    x: Array, *_: Array, num_tables: int, num_probes: int
) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((*x.shape[:2], num_tables, num_probes), jnp.int32)]


def _batch(
    size: int, batched: list[bool], x: Array, signs: Array, flips: Array, **params: int
) -> tuple[Array, ...]:
    """More rows of the same rotations, or more groups."""
    flips = flips[0] if batched[2] else flips
    if not batched[1]:
        x = _batching.spread(size, batched[0], x)
        (y,) = _op(_batching.fold_into_examples(x), signs, flips, **params)
        return (_batching.unfold_from_examples(y, size),)
    x = _batching.fold(_batching.spread(size, batched[0], x))
    (y,) = _op(x, _batching.fold(signs), flips, **params)
    return (_batching.unfold(y, size),)


_op: Callable[..., Any] = define("fsparse_hadamard_codes", _types, _twin, batch=_batch)
