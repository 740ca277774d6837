"""A sketch as a kernel regressor of a stream, in memory that does not grow.

Examples:
  python examples/streaming_regression.py
  python examples/streaming_regression.py --rows 128 --bits 12 --json rows.json

Each batch is predicted first and learnt after. Beside the sketch stand the regression
that it approximates, over all examples so far, and the same over the most recent ones
that fit into the sketch's memory. Errors are root mean squares, of held-out examples.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import lsh
from fsparse.sketch import exact_nw, nw_init, nw_num_bytes, nw_query, nw_update

Array = jax.Array
PRIOR = 0.1
learn = jax.jit(nw_update, donate_argnums=0)
predict = jax.jit(lambda sketch, x: nw_query(sketch, x, prior=PRIOR).mean)


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the command line; returns what ``--json`` writes."""
    args = parse_args(argv)
    keys = jax.random.split(jax.random.key(args.seed), 3)
    family = lsh.simhash(keys[0], args.dim, num_tables=args.rows, num_bits=args.bits)
    x, y = draw(keys[1], args.examples, args.dim)
    test = draw(keys[2], 500, args.dim)
    sketch, seconds, rows = nw_init(family), 0.0, []
    recent = nw_num_bytes(sketch) // (4 * (args.dim + 1))  # examples of as many bytes
    print("examples   ahead  sketch   exact  recent  us/example")
    for end in range(args.batch, args.examples + 1, args.batch):
        part, kept = slice(end - args.batch, end), slice(max(end - recent, 0), end)
        start = time.perf_counter()
        ahead = rmse(predict(sketch, x[part]), y[part])
        sketch = jax.block_until_ready(learn(sketch, x[part], y[part]))
        seconds += (time.perf_counter() - start) * (end > args.batch)  # not compiling
        if end & (end - 1) and end + args.batch <= args.examples:
            continue
        errors = [rmse(predict(sketch, test[0]), test[1])]
        for known in (slice(0, end), kept):
            mean = exact_nw(family, x[known], y[known], test[0], prior=PRIOR)
            errors.append(rmse(mean, test[1]))
        names = ("examples", "ahead", "sketch", "exact", "recent", "us_per_example")
        row = end, ahead, *errors, 1e6 * seconds / max(end - args.batch, 1)
        print("{:8d}{:8.3f}{:8.3f}{:8.3f}{:8.3f}{:12.1f}".format(*row))
        rows.append(dict(zip(names, row, strict=True)))
    print(f"{nw_num_bytes(sketch)} bytes of sketch, or of the last {recent} examples")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def draw(key: Array, n: int, dim: int) -> tuple[Array, Array]:
    """A smooth function of the direction of ``x``, with noise of deviation 0.1."""
    of_x, of_noise = jax.random.split(key)
    x = jax.random.normal(of_x, (n, dim))
    at = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    y = jnp.sin(3 * at[:, 0]) + 2 * at[:, 1] * at[:, 2]
    return x, y + 0.1 * jax.random.normal(of_noise, (n,))


def rmse(guess: Array, y: Array) -> float:
    """Root mean square of the errors."""
    return float(jnp.sqrt(jnp.mean(jnp.square(guess - y))))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Sizes, and where figures go."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    sizes = {"examples": 2**16, "batch": 256, "dim": 4, "rows": 64, "bits": 10}
    for name, default in {**sizes, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
