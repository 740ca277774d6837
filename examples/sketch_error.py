"""How far is a sketch from the kernel regression that it stands for?

Examples:
  python examples/sketch_error.py --json rows.json --plot sketch_error.png
  python examples/sketch_error.py --data wordnet --bits 8 --rows 16 64 256

For each number of rows and bits, sketches of independent hash functions are asked for
the value at some of their own points, and compared with the exact Nadaraya-Watson
estimate, a sum over all points. Beside it stands what the same bytes hold otherwise: a
uniform subsample of the points, with the same kernel. --json has a row for each: data,
rows, bits, bytes (of cells and hash functions), rmse, p99 (of absolute errors),
rmse_subsample, sd (of the exact estimates), and the tail: eps, the shares of errors
beyond it of the ratio of means (failure) and of the median of up to 8 groups
(failure_median), and two bounds on the chance of such an error.

With k the kernel, f the exact estimate, D = sum k and D~ = sum sqrt(k), at a query:
  bound_local = exp(-R eps^2 / (32 s^2)), s = sum |y - f| sqrt(k) / D, of the error's
    linear part, for medians of enough groups;
  bound = 2 exp(-R eps^2 / (512 B^2 (D~ / D)^2)), for values in [0, B], without that
    restriction, if numerator and denominator have medians of their own.
Both are means over queries, at most 1; rate_local and rate are what multiplies -R, at
the median query. They are worst cases, loose by far: the picture shows where they bite.
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress
import rich.table
import sketch_figures
from sketch_figures import Row

import fsparse
from fsparse import data, lsh, sketch

Array = jax.Array
F64 = np.ndarray[Any, np.dtype[np.float64]]
_PRIOR = 1.0
_GROUPS = 8
_WIDTH = 16  # of the random projection of sparse rows
_SUBSAMPLES = 10
CONSOLE = rich.console.Console(stderr=True)


class Problem(NamedTuple):
    """Points, and queries among them."""

    name: str
    x: Array  # f32[n, d], standardised
    y: Array  # f32[n]
    queries: Array  # f32[q, d]


def main(argv: list[str] | None = None) -> list[Row]:
    """Runs the command line; returns the rows."""
    args = parse_args(argv)
    rows = []
    for row in measure(args):
        rows.append(row)
        if args.json:
            text = ",\n".join(json.dumps(row._asdict()) for row in rows)
            args.json.write_text(f"[\n{text}\n]\n")
    show(rows)
    if args.plot:
        sketch_figures.plot(args.plot, rows)
    return rows


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", default=["generated"], choices=PROBLEMS)
    add("--rows", nargs="+", type=int, default=[8, 16, 32, 64, 128, 256, 512])
    add("--bits", nargs="+", type=int, default=[4, 8, 12])
    add("--points", type=int, default=50_000, help="in a sketch, at most")
    add("--queries", type=int, default=500)
    add("--sketches", type=int, default=30, help="of independent hash functions")
    add("--eps", type=float, default=0.25, help="in units of sd, for the tail")
    add("--seed", type=int, default=0)
    add("--json", type=Path, help="file for the rows")
    add("--plot", type=Path, help="PNG")
    args = parser.parse_args(argv)
    for name in ("rows", "bits", "points", "queries", "sketches", "eps"):
        if min(np.atleast_1d(getattr(args, name))) <= 0:
            parser.error(f"--{name} must be positive")
    return args


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """A row for each data set, number of bits and number of rows."""
    key = jax.random.key(args.seed)
    total = len(args.data) * len(args.bits) * len(args.rows)
    with rich.progress.Progress(console=CONSOLE) as progress:
        task = progress.add_task("sketches", total=total)
        for name in args.data:
            problem = PROBLEMS[name](key, args.points, args.queries)
            for bits, rows in itertools.product(args.bits, args.rows):
                yield compare(problem, key, rows, bits, args.sketches, args.eps)
                progress.advance(task)


def show(rows: list[Row]) -> None:
    """Errors in units of the deviation of the exact estimates."""
    columns = "data", "bits", "rows", "KB", "rmse/sd", "p99/sd", "subsample", "P(eps)"
    table = rich.table.Table(*columns)
    for row in rows:
        sd = max(row.sd, 1e-30)
        errors = [x / sd for x in (row.rmse, row.p99, row.rmse_subsample)]
        figures = f"{row.bytes / 1e3:,.0f}", *(f"{x:.3f}" for x in errors)
        table.add_row(
            row.data, f"{row.bits}", f"{row.rows}", *figures, f"{row.failure:.2g}"
        )
    rich.console.Console().print(table)


# ---- what is measured ---------------------------------------------------------------


def compare(
    problem: Problem, key: Array, rows: int, bits: int, num_sketches: int, eps: float
) -> Row:
    """Sketches of one size, a subsample of as many bytes, and bounds."""
    d = problem.x.shape[1]
    make = partial(lsh.simhash, dim=d, num_tables=rows, num_bits=bits)
    kernel = lsh.simhash(key, d, num_tables=1, num_bits=bits)
    exact = exact_estimate(kernel, *problem[1:])
    sd = float(jnp.std(exact))
    errors, of_medians = (
        np.asarray(estimates) - np.asarray(exact)
        for estimates in ask(problem, make, jax.random.split(key, num_sketches))
    )
    num_bytes = sketch.nw_num_bytes(jax.eval_shape(lambda: sketch.nw_init(make(key))))
    local, whole = rates(kernel, problem, exact, eps * sd)
    return Row(
        data=problem.name,
        rows=rows,
        bits=bits,
        bytes=num_bytes,
        rmse=root_mean_square(errors),
        p99=float(np.quantile(np.abs(errors), 0.99)),
        rmse_subsample=subsample_error(problem, kernel, key, exact, num_bytes),
        sd=sd,
        eps=eps * sd,
        failure=float(np.mean(np.abs(errors) > eps * sd)),
        failure_median=float(np.mean(np.abs(of_medians) > eps * sd)),
        bound_local=float(np.exp(-rows * local).mean()),
        bound=float(np.minimum(2 * np.exp(-rows * whole), 1).mean()),
        rate_local=float(np.median(local)),
        rate=float(np.median(whole)),
        sketches=num_sketches,
    )


def ask(problem: Problem, make: Any, keys: Array) -> tuple[Array, Array]:
    """Ratios of means and medians of groups, ``f32[sketches, q]`` each."""

    def one(key: Array) -> tuple[Array, Array]:
        family = make(key)
        groups = math.gcd(family.num_tables, _GROUPS)
        state = sketch.nw_update(sketch.nw_init(family), problem.x, problem.y)
        codes = lsh.codes(family, problem.queries)
        query = partial(sketch.nw_query, state, codes, prior=_PRIOR)
        return query().mean, query(num_groups=groups).mean

    return jax.jit(partial(jax.lax.map, one))(keys)


@jax.jit
def exact_estimate(
    family: lsh.Family, x: Array, y: Array, queries: Array, weights: Array | None = None
) -> Array:
    """The sum over points that sketches approximate."""
    return sketch.exact_nw(family, x, y, queries, prior=_PRIOR, weights=weights)


def subsample_error(
    problem: Problem, family: lsh.Family, key: Array, exact: Array, num_bytes: int
) -> float:
    """Of as many points as take the bytes, coordinates and value: all, at most."""
    n, d = problem.x.shape
    size = max(1, min(n, num_bytes // (4 * (d + 1))))
    errors = []
    for sample_key in jax.random.split(key, _SUBSAMPLES):
        is_in = jax.random.permutation(sample_key, n) < size
        weights = jnp.where(is_in, n / size, 0.0)
        errors.append(exact_estimate(family, *problem[1:], weights) - exact)
    return root_mean_square(np.stack(errors))


def root_mean_square(errors: np.ndarray[Any, Any]) -> float:
    """In float64."""
    return float(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))


def rates(
    family: lsh.Family, problem: Problem, exact: Array, eps: float
) -> tuple[F64, F64]:
    """What a row of a sketch adds to the exponents of both bounds, at each query."""
    y = np.asarray(problem.y, np.float64)
    local, whole = [], []
    for q, f in zip(problem.queries, np.asarray(exact), strict=True):
        k = np.asarray(kernel_at(family, q, problem.x), np.float64)
        s = np.sum(np.abs(y - f) * np.sqrt(k)) / k.sum()
        most = (y.max() - y.min()) * np.sqrt(k).sum() / k.sum()
        local.append(eps**2 / (32 * s**2))
        whole.append(eps**2 / (512 * most**2))
    return np.array(local), np.array(whole)


@jax.jit
def kernel_at(family: lsh.Family, q: Array, x: Array) -> Array:
    """``f32[n]``."""
    return lsh.collision_probability(family, q[None], x)[0]


# ---- data ---------------------------------------------------------------------------


def generated(key: Array, num_points: int, num_queries: int) -> Problem:
    """Gaussian clusters in 18 dimensions; values bend within and jump between them."""
    of_centers, of_labels, of_noise, of_values = jax.random.split(key, 4)
    centers = 1.5 * jax.random.normal(of_centers, (20, 18))
    label = jax.random.randint(of_labels, (num_points,), 0, 20)
    noise = jax.random.normal(of_noise, (num_points, 18))
    x = centers[label] + noise
    y = (
        jax.random.normal(of_values, (20,))[label]
        + jnp.sin(noise[:, 0])
        + noise[:, 1] ** 2
    )
    return problem_of("generated", x, y, num_queries)


def wordnet(key: Array, num_points: int, num_queries: int) -> Problem:
    """Synsets by the words of their glosses, projected at random to 16 dimensions;
    the value is the logarithm of how many synsets share the hypernym.
    """
    train = data.tfidf(data.load("wordnet-hypernyms")).train
    counts = data.column_counts(train.labels)
    first = train.labels.ids[train.labels.indptr[:-1]]
    order = np.random.default_rng(0).permutation(len(first))[:num_points]
    rows = train.features
    ids, values = data.to_padded(rows, order, int(rows.lengths.max()))
    directions = jax.random.normal(key, (rows.num_columns, _WIDTH))
    x = fsparse.embedding_bag(directions, jnp.asarray(ids), jnp.asarray(values))
    y = jnp.asarray(np.log(counts[first[order]]), jnp.float32)
    return problem_of("wordnet", x, y, num_queries)


def problem_of(name: str, x: Array, y: Array, num_queries: int) -> Problem:
    """Standardised; the first points are the queries."""
    x = sketch.standardizer(x)(x)
    return Problem(name, x, y, x[:num_queries])


PROBLEMS = {"generated": generated, "wordnet": wordnet}


if __name__ == "__main__":
    main()
