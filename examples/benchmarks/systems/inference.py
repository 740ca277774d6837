"""Searches in JAX: by fsparse, exact and by hash tables, and by a matmul."""

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp

import fsparse
from fsparse import lsh

Array = jax.Array
_NUM_QUERIES = 64


def weights(labels: int, width: int, dtype: str) -> Any:
    """Random rows; rows of int8 with a scale each, if that is the type."""
    table = jax.random.normal(jax.random.key(0), (labels, width))
    if dtype == "int8":
        return jax.jit(fsparse.quantize_rows)(table)
    return table.astype(dtype)


def queries(table: Array, batch: int) -> Any:
    """Batches near some rows, again and again."""
    rows = table[: _NUM_QUERIES * batch].astype(jnp.float32)
    noise = jax.random.normal(jax.random.key(1), (_NUM_QUERIES, batch, table.shape[1]))
    repeated = jnp.resize(rows, noise.shape)
    return cycle(list(repeated + noise))


def asked(search: Callable[[Array], Any], questions: Any) -> Callable[[], None]:
    """A call that asks the next of them."""

    def call() -> None:
        jax.block_until_ready(search(next(questions)))

    return call


def dense(
    labels: int, width: int, k: int, batch: int, dtype: str
) -> Callable[[], None]:
    """Exact search by fsparse."""
    table = weights(labels, width, dtype)
    fsparse.use_huge_pages(table)
    search = jax.jit(partial(fsparse.dense_top_k, k=k))
    near = weights(min(labels, _NUM_QUERIES * batch), width, "float32")
    return asked(lambda x: search(x, table), queries(near, batch))


def plain(labels: int, width: int, k: int, batch: int) -> Callable[[], None]:
    """Exact search in plain JAX."""
    table = weights(labels, width, "float32")
    search = jax.jit(lambda x, w: jax.lax.top_k(x @ w.T, k))
    return asked(lambda x: search(x, table), queries(table, batch))


def sparse(labels: int, width: int, k: int, batch: int, size: int) -> Any:
    """Search by hash tables; one query goes in as a vector."""
    table = weights(labels, width, "float32")
    family = lsh.default_family(jax.random.key(2), labels, width)
    index = jax.jit(lsh.build)(family, table)
    fsparse.use_huge_pages((table, index))
    search = jax.jit(partial(lsh.top_k, k=k, size=size))
    questions = queries(table, batch)
    if batch == 1:
        questions = cycle([next(questions)[0] for _ in range(_NUM_QUERIES)])
    return asked(lambda x: search(index, x, table), questions)
