"""Products of rows with random directions, for dense and sparse rows alike."""

import jax
import jax.numpy as jnp

from fsparse._call import vary_together
from fsparse.lsh._inputs import Rows, SparseRows
from fsparse.matmul import embedding_bag, gather_op

Array = jax.Array


def project(x: Rows, directions: Array) -> Array:
    """``x @ directions``: ``f32[b, m]`` of directions ``[dim, m]``.

    By ops whose bits do not depend on the number of threads, nor on the precision that
    products have where they are called. Both read directions a coordinate at a time, so
    one array serves dense and sparse rows.
    """
    if isinstance(x, SparseRows):
        return embedding_bag(directions, x.ids, x.values)
    every = jnp.arange(directions.shape[0], dtype=jnp.int32)
    x, directions, every = vary_together(x, directions, every)
    return gather_op(x[None], directions, every[None])[0][0]


def rotate(x: Array, signs: Array) -> Array:
    """``H D3 H D2 H D1 x``: ``f32[..., b, r, n]``, orthogonal but for a scale.

    Args:
      x: ``f32[..., b, n]``, ``n`` a power of two.
      signs: ``f32[..., r, 3, n]`` of +-1, for each coordinate in each round.

    ``H`` is of +-1, so that outputs are ``n`` times those of Gaussian directions.
    """
    y = x[..., :, None, :]
    for i in range(3):
        y = _walsh_hadamard(y * signs[..., None, :, i, :])
    return y


def _walsh_hadamard(x: Array) -> Array:
    """``H x`` along the last axis by butterflies, the widest ones first."""
    shape, half = x.shape, x.shape[-1] // 2
    while half > 0:
        a, b = jnp.moveaxis(x.reshape(*shape[:-1], -1, 2, half), -2, 0)
        x = jnp.stack([a + b, a - b], axis=-2)
        half //= 2
    return x.reshape(shape)
