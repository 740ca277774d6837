"""Products with all rows of a kernel, whose bits do not depend on threads."""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse.matmul import sampled_matmul

Array = jax.Array


def product(x: Array, kernel: Any) -> Array:
    """``f32[..., n] = x @ kernel.T``; of a table, the gradients are row gradients."""
    n, d = kernel.shape
    every = jnp.arange(n, dtype=jnp.int32)
    y = sampled_matmul(x.reshape(-1, d), kernel, every)
    return y.reshape(*x.shape[:-1], n)


def with_one(h: Array, bias: bool) -> Array:
    """A last unit of 1, where the last column of a kernel is a bias."""
    if not bias:
        return h
    return jnp.concatenate([h, jnp.ones((*h.shape[:-1], 1), h.dtype)], axis=-1)
