"""What an index costs: to build it, to keep it, to ask it.

Examples:
  python examples/benchmarks/index.py
  python examples/benchmarks/index.py --rows 218590 --rounds 3 --json index.json

Builds hash tables over random rows, beside a matmul of as many operations and beside
the scan that exact search is; moves more and more rows; asks for one vector and for a
batch. What is compared takes turns in one run; the figures are medians.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np

import fsparse
from fsparse import lsh

Array = jax.Array
_BLOCK = 4096
_MOVED = (256, 1024, 4096, 16384)
_TOP_K = 10


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the command line; returns what ``--json`` writes."""
    args = parse_args(argv)
    facts = machine.facts("jax", "jaxlib")
    machine.show(facts)
    table = jax.random.normal(jax.random.key(0), (args.rows, args.width))
    family = lsh.default_family(jax.random.key(1), args.rows, args.width)
    index = jax.jit(lsh.build)(family, table)
    result = {
        "machine": facts,
        "rows": args.rows,
        "width": args.width,
        "num_tables": family.num_tables,
        "num_buckets": family.num_buckets,
        "index_bytes": lsh.num_bytes(index),
        "weight_bytes": table.nbytes,
        **of_building(family, table, args.rounds),
        **of_asking(index, table, args.rounds),
        "refresh_seconds": of_moving(index, table, args.rounds),
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=670_091)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(argv)


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, one after the other in each round."""
    seconds = {name: np.zeros(rounds) for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())  # compiles
    for i in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name][i] = time.perf_counter() - began
    return {name: float(np.median(s)) for name, s in seconds.items()}


def of_building(family: Any, table: Array, rounds: int) -> dict[str, float]:
    """Building, beside the products that its hashes need, by XLA."""
    bits = family.num_buckets.bit_length() - 1
    directions = jax.random.normal(
        jax.random.key(2), (table.shape[1], family.num_tables * bits)
    )
    blocks = table[: len(table) // _BLOCK * _BLOCK].reshape(-1, _BLOCK, table.shape[1])
    matmul = jax.jit(lambda x, y: jax.lax.map(lambda rows: jnp.max(rows @ y), x))
    build = jax.jit(lsh.build)
    return medians(
        {
            "build_seconds": lambda: build(family, table),
            "matmul_seconds": lambda: matmul(blocks, directions),
        },
        rounds,
    )


def of_asking(index: lsh.Index, table: Array, rounds: int) -> dict[str, float]:
    """One vector, and a batch: by the index and by exact search."""
    size = max(len(table) // 200, _TOP_K)
    x = table[:256] + jax.random.normal(jax.random.key(3), (256, table.shape[1]))
    sparse = jax.jit(partial(lsh.top_k, k=_TOP_K, size=size))
    dense = jax.jit(partial(fsparse.dense_top_k, k=_TOP_K))
    return medians(
        {
            "sparse_query_seconds": lambda: sparse(index, x[0], table),
            "dense_query_seconds": lambda: dense(x[:1], table),
            "sparse_batch_seconds": lambda: sparse(index, x, table),
            "dense_batch_seconds": lambda: dense(x, table),
        },
        rounds,
    )


def of_moving(index: lsh.Index, table: Array, rounds: int) -> dict[int, float]:
    """Refreshing, for each number of rows; all of them change their buckets."""
    tables = table, -table
    refresh = jax.jit(lsh.refresh, donate_argnums=0)
    order = np.random.default_rng(0).permutation(len(table))
    medians_of = {}
    for count in (c for c in _MOVED if c <= len(table)):
        ids, seconds = jnp.asarray(order[:count], jnp.int32), []
        for i in range(2 * rounds + 1):
            began = time.perf_counter()
            index = jax.block_until_ready(refresh(index, tables[(i + 1) % 2], ids))
            seconds.append(time.perf_counter() - began)
        medians_of[count] = float(np.median(seconds[1:]))
    return medians_of


if __name__ == "__main__":
    main()
