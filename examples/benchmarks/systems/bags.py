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
    table = normal(shape["rows"], width, dtype)
    fsparse.use_huge_pages(table)
    return called(jax.jit(fsparse.embedding_bag), table, **shape)


def plain_bag(width: int, **shape: Any) -> Callable[[], None]:
    """XLA sums what it gathers, without storing it."""
    bag = jax.jit(lambda table, ids: table[ids].sum(axis=1))
    return called(bag, normal(shape["rows"], width, "float32"), **shape)


def normal(num_rows: int, width: int, dtype: str) -> jax.Array:
    """Random rows."""
    return jax.random.normal(jax.random.key(0), (num_rows, width), dtype)


def called(
    bag: Callable[..., Any], table: jax.Array, **shape: Any
) -> Callable[[], Any]:
    """A call with the next of the batches."""
    batches = cycle([jnp.asarray(ids) for ids in synthetic.bag_ids(**shape)])
    return lambda: jax.block_until_ready(bag(table, next(batches)))
