"""Embedding bags in JAX: by a custom call, and by indexing."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp
import synthetic

import fsparse


def fsparse_bag(width: int, dtype: str, **shape: Any) -> Callable[[], None]:
    """Ours."""
    return called(jax.jit(fsparse.embedding_bag), width, dtype, **shape)


def plain_bag(width: int, **shape: Any) -> Callable[[], None]:
    """XLA sums what it gathers, without storing it."""
    bag = jax.jit(lambda table, ids: table[ids].sum(axis=1))
    return called(bag, width, "float32", **shape)


def called(
    bag: Callable[..., Any], width: int, dtype: str, **shape: Any
) -> Callable[[], Any]:
    """A call with the next of the batches."""
    table = jax.random.normal(jax.random.key(0), (shape["rows"], width), dtype)
    batches = cycle([jnp.asarray(ids) for ids in synthetic.bag_ids(**shape)])
    return lambda: jax.block_until_ready(bag(table, next(batches)))
