"""Density and anomalies of a stream, from the counts of a sketch (RACE).

Examples:
  python examples/density_and_anomalies.py
  python examples/density_and_anomalies.py --rows 200 --json figures.json

Each batch is scored, then learnt, outliers and all: they differ only by how little is
near them. Beside it, the exact kernel density over all examples. The area under the
curve (AUC) is the chance that an outlier has the lower density.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import lsh
from fsparse.sketch import nw_init, nw_num_bytes, nw_query, nw_update

learn = jax.jit(nw_update, donate_argnums=0)
query = jax.jit(lambda sketch, x: nw_query(sketch, x, rehash_correction=True).density)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the command line; returns what ``--json`` writes."""
    args = parse_args(argv)
    x, is_outlier = draw(np.random.default_rng(args.seed), args.examples, args.dim)
    sizes = {"num_tables": args.rows, "num_hashes": 2, "num_bits": args.bits}
    family = lsh.l2(jax.random.key(args.seed), args.dim, width=3.0, **sizes)
    sketch, ahead = nw_init(family), []
    for batch in np.split(x, range(args.batch, len(x), args.batch)):
        ahead.append(query(sketch, batch))
        sketch = learn(sketch, batch, jnp.zeros(len(batch)))
    some = slice(-2000, None)  # the exact density is a sum over all for each of these
    kernel = lsh.collision_probability(family, x[some], x, rehash=False)
    exact, density = np.mean(kernel, axis=1), np.asarray(query(sketch, x[some]))
    half = len(x) // 2  # until then there is little to compare with
    result = {
        "num_outliers": int(is_outlier.sum()),
        "data_bytes": x.nbytes,
        "sketch_bytes": nw_num_bytes(sketch),
        "auc_ahead": auc(-np.concatenate(ahead)[half:], is_outlier[half:]),
        "auc_sketch": auc(-density, is_outlier[some]),
        "auc_exact": auc(-exact, is_outlier[some]),
        "density_mean": float(exact.mean()),
        "density_rmse": float(np.sqrt(np.mean((density - exact) ** 2))),
    }
    for name, value in result.items():
        print(f"{name:13s} {value:10.4g}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def draw(rng: np.random.Generator, n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of different widths, and 2 % outliers of the same mean and variance."""
    cluster = rng.integers(5, size=n)
    centres, scales = 3 * rng.normal(size=(5, dim)), np.linspace(0.3, 0.9, 5)
    x = centres[cluster] + scales[cluster, None] * rng.normal(size=(n, dim))
    is_outlier = rng.random(n) < 0.02
    anywhere = x.mean(axis=0) + x.std(axis=0) * rng.normal(size=x.shape)
    return np.where(is_outlier[:, None], anywhere, x).astype(np.float32), is_outlier


def auc(score: np.ndarray, is_positive: np.ndarray) -> float:
    """Mann and Whitney's statistic; ties count half."""
    _, at, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[at]
    p, n = is_positive.sum(), (~is_positive).sum()
    return float((rank[is_positive].sum() - p * (p + 1) / 2) / (p * n))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Sizes, and where figures go."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    sizes = {"examples": 40_000, "batch": 500, "dim": 10, "rows": 50, "bits": 10}
    for name, default in {**sizes, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
