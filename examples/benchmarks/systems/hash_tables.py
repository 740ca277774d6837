"""Building, refreshing and asking hash tables, and what to compare these with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fsparse
from fsparse import lsh
from systems.inference import asked, dense, queries, weights

Array = jax.Array
_BLOCK = 4096


def build(labels: int, width: int, task: str) -> Callable[[], Any]:
    """All tables from nothing."""
    table = weights(labels, width, "float32")
    family = lsh.default_family(jax.random.key(1), labels, width)
    make = jax.jit(lsh.build)
    return lambda: jax.block_until_ready(make(family, table))


def products(labels: int, width: int, task: str) -> Callable[[], Any]:
    """The matmul that hashing is, by XLA, a block at a time."""
    table = weights(labels, width, "float32")
    family = lsh.default_family(jax.random.key(1), labels, width)
    bits = family.num_buckets.bit_length() - 1
    directions = jax.random.normal(jax.random.key(2), (width, family.num_tables * bits))
    block = min(_BLOCK, labels)
    blocks = table[: labels // block * block].reshape(-1, block, width)
    multiply = jax.jit(lambda x, y: jax.lax.map(lambda rows: jnp.max(rows @ y), x))
    return lambda: jax.block_until_ready(multiply(blocks, directions))


def refresh(labels: int, width: int, task: str, rows_moved: int) -> Callable[[], None]:
    """Some rows, which change all of their buckets each time."""
    table = weights(labels, width, "float32")
    tables = table, -table
    family = lsh.default_family(jax.random.key(1), labels, width)
    index, flips = jax.jit(lsh.build)(family, table), 0
    fsparse.use_huge_pages((tables, index))
    move = jax.jit(lsh.refresh, donate_argnums=0)
    order = np.random.default_rng(0).permutation(labels)
    ids = jnp.asarray(order[:rows_moved], jnp.int32)

    def call() -> None:
        nonlocal index, flips
        flips += 1
        index = jax.block_until_ready(move(index, tables[flips % 2], ids))

    return call


def query(labels: int, width: int, task: str, batch: int) -> Callable[[], None]:
    """Candidates, most votes first: half a percent of the rows."""
    table = weights(labels, width, "float32")
    family = lsh.default_family(jax.random.key(1), labels, width)
    index = jax.jit(lsh.build)(family, table)
    fsparse.use_huge_pages(index)
    ask = jax.jit(partial(lsh.query, size=max(labels // 200, 1)))
    return asked(lambda x: ask(index, x), queries(table, batch))


def search(labels: int, width: int, task: str, batch: int) -> Callable[[], None]:
    """The ten best of all rows."""
    return dense(labels, width, 10, batch, "float32")
