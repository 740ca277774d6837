"""Which neurons should a step compute? All samplers, at the same budget, and dense.

Examples:
  python examples/compare_samplers.py --data wordnet-hypernyms --json rows.json
  python examples/compare_samplers.py --data train.txt --seconds 60 --budgets 0.01
  python examples/compare_samplers.py --rows a.json b.json --plot samplers.png

Each run trains one plain model (examples/extreme_model.py without its tricks) for so
many seconds of steps, or so many examples, whichever comes first, and is judged on the
way on test examples, by exact search. A budget is the share of the neurons that a set
holds, labels among them; a set is shared by the batch or belongs to one example. --json
has a row for each point: data, sampler, scope, budget, seed, examples, seconds, p_at_1.
Seconds are those of steps and of rebuilding the hash tables, not of compiling or
judging.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import extreme_data
import extreme_model
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress
import sampler_figures
from benchmarks import machine
from extreme_data import Prepared
from extreme_model import Config, Params, State
from sampler_figures import Row

import fsparse
from fsparse import Optimizer, Table, data, lsh, metrics, samplers
from fsparse.data import Batch, Dataset
from fsparse.samplers import Query, Sampler

Array = jax.Array
SAMPLERS = ("uniform", "popularity", "in_batch", "top_k", "lsh", "mix")
SCOPES = ("shared", "per_example")
_POINTS = (0.2, 0.5, 1.0)  # of a run, where it is judged
_REBUILD_EVERY = 50  # steps, and more often at first
_INIT_SCALE = 0.01  # of output rows: those of zeros would all share their buckets
_NUM_TABLES = 16
_ROWS_A_BUCKET = 200
_EVALUATION_BATCH = 128
CONSOLE = rich.console.Console(stderr=True)

_PLAIN = {
    "centroids": False,
    "neighbours": False,
    "margin": 0.0,
    "log_q": 0.0,
    "both_ways": False,
    "feature_dropout": 0.0,
    "learning_rate": 2e-3,
    "embedding_learning_rate": 1e-2,
    "hidden_learning_rate": 1e-4,
}
# Batches whose labels fit into a shared set of 0.5 % of the neurons.
_SIZES = {
    "polish-lemmas": {"batch_size": 256},
    "wordnet-hypernyms": {"batch_size": 32, "width": 128},
    "baskets": {"batch_size": 32, "width": 128, "label_capacity": 5},
}


class Method(NamedTuple):
    """How a step chooses what it computes."""

    sampler: str  # one of SAMPLERS, or "dense"
    scope: str  # one of SCOPES, or "dense"
    budget: float  # share of the neurons


class Tables(NamedTuple):
    """Sizes of an index, and how often it is built."""

    num_tables: int = _NUM_TABLES
    num_bits: int = 0  # 0 for about 200 rows a bucket
    rebuild_every: int = _REBUILD_EVERY


class Step(NamedTuple):
    """A compiled step and what rebuilds its index, if it has one."""

    run: Callable[..., tuple[State, Array]]
    rebuild: Callable[[State, Array], Any] | None
    rebuild_every: int = _REBUILD_EVERY


def main(argv: list[str] | None = None) -> list[Row]:
    """Runs the command line; returns the rows."""
    args = parse_args(argv)
    if args.rows:
        rows = [Row(**row) for f in args.rows for row in json.loads(f.read_text())]
    else:
        machine.show(machine.facts("jax", "jaxlib"))
        rows = list(measure(args))
    sampler_figures.show(rows)
    if args.plot:
        sampler_figures.plot(args.plot, rows)
    return rows


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="wordnet-hypernyms", help="name of a data set, or a file")
    add("--samplers", nargs="+", default=["dense", *SAMPLERS], help="which to compare")
    add("--scopes", nargs="+", default=SCOPES, choices=SCOPES)
    add("--budgets", nargs="+", type=float, default=[0.005, 0.02])
    add("--seeds", type=int, default=3, help="how many")
    add("--seconds", type=float, default=20.0, help="of steps, a run")
    add("--examples", type=int, default=10**9, help="seen by a run, at most")
    add("--test-examples", type=int, default=2000, help="that a run is judged on")
    add("--json", type=Path, help="file for the rows")
    add("--rows", type=Path, nargs="+", help="show these files instead of training")
    add("--plot", type=Path, help="PNG of P@1 against examples and seconds")
    args = parser.parse_args(argv)
    unknown = set(args.samplers) - {"dense", *SAMPLERS}
    if unknown:
        parser.error(f"--samplers must be dense or of {SAMPLERS}; got {unknown}")
    for option in ("seconds", "examples", "seeds", "test_examples"):
        if getattr(args, option) <= 0:
            parser.error(f"--{option.replace('_', '-')} must be positive")
    for budget in args.budgets:
        if not 0 < budget <= 1:
            parser.error(f"--budgets must be in (0, 1]; got {budget}")
    return args


def methods(args: argparse.Namespace) -> list[Method]:
    """All that the command line asks for, dense ones first."""
    sampled = [name for name in args.samplers if name != "dense"]
    every = itertools.product(sampled, args.scopes, args.budgets)
    dense = [Method("dense", "dense", 1.0)] if "dense" in args.samplers else []
    return dense + [Method(*method) for method in every]


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """Trains every method with every seed; writes rows as they come."""
    config, prepared = prepare(args.data)
    limits = Limits(args.seconds, args.examples, _POINTS)
    test = sample(prepared.test, args.test_examples)
    rows: list[Row] = []
    runs = itertools.product(methods(args), range(args.seeds))
    total = len(methods(args)) * args.seeds
    for method, seed in rich.progress.track(runs, "runs", total, console=CONSOLE):
        if seed == 0:
            step = compile_step(config, method, prepared, Tables())
        points = [
            Row(prepared.name, *method, seed, *point)
            for point in train(config, step, prepared, test, limits, seed)
        ]
        tell(points[-1])
        rows += points
        if args.json:
            text = ",\n".join(json.dumps(row._asdict()) for row in rows)
            args.json.write_text(f"[\n{text}\n]\n")
        yield from points


def prepare(name: str) -> tuple[Config, Prepared]:
    """A plain model for a data set, and the data."""
    config = extreme_data.PRESETS.get(name, Config())._replace(**_PLAIN)
    config = config._replace(**_SIZES.get(name, {}))
    splits, notes = extreme_data.read(name, test=None, strict=False)
    return config, extreme_data.prepare(splits, notes, config, seed=0)


def sample(dataset: Dataset, most: int) -> Dataset:
    """Some of the examples, the same ones each time."""
    order = np.random.default_rng(0).permutation(dataset.features.num_rows)[:most]
    return Dataset(*(data.take(rows, order) for rows in dataset))


def tell(row: Row) -> None:
    """A line for a run that has ended."""
    CONSOLE.print(
        f"{row.sampler:>10} {row.scope:>11} {row.budget:6.3f} seed {row.seed} "
        f"{row.examples:>9,} examples {row.seconds:6.1f} s  P@1 {row.p_at_1:.4f}",
        highlight=False,
    )


# ---- one run ------------------------------------------------------------------------


def start(config: Config, prepared: Prepared, seed: int) -> State:
    """Random embeddings, and output rows that are random and short."""
    features, labels = prepared.train
    state = extreme_model.init(config, features.num_columns, labels.num_columns, seed)
    shape = state.params.output.shape
    rows = _INIT_SCALE * jax.random.normal(jax.random.key(seed), shape)
    return state._replace(params=state.params._replace(output=Table(rows)))


class Limits(NamedTuple):
    """When a run ends, and where it is judged on the way."""

    seconds: float
    examples: int
    points: tuple[float, ...]  # shares of the run, rising to 1


def train(
    config: Config,
    step: Step,
    prepared: Prepared,
    judged_by: Dataset,
    limits: Limits,
    seed: int,
) -> Iterator[tuple[int, float, float]]:
    """Examples, seconds and P@1 at the points of a run, the last one at its end."""
    state = start(config, prepared, seed)
    index, seconds, seen, points = None, 0.0, 0, limits.points
    for number, batch in enumerate(forever(prepared, config.batch_size, seed)):
        began = time.perf_counter()
        if step.rebuild and is_due(number, step.rebuild_every):
            index = step.rebuild(state, jax.random.fold_in(state.key, number))
        state, loss = step.run(state, index, batch)
        loss.block_until_ready()
        seconds += time.perf_counter() - began
        seen += config.batch_size
        done = max(seconds / limits.seconds, seen / limits.examples)
        if done >= points[0]:
            points = tuple(p for p in points if p > done)
            yield seen, round(seconds, 3), judge(config, state, judged_by)
            if not points:
                return


def is_due(step: int, every: int) -> bool:
    """When tables are rebuilt: often while the rows are new, then now and then."""
    return step in (0, 5, 10, 20) or step % every == 0


def forever(prepared: Prepared, batch_size: int, seed: int) -> Iterator[Batch]:
    """Batches of one epoch after another, each in an order of its own."""
    if prepared.train.features.num_rows < batch_size:
        raise ValueError(
            f"there must be {batch_size} training examples, for a batch; got "
            f"{prepared.train.features.num_rows}."
        )
    for epoch in itertools.count():
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(prepared.train.features.num_rows)
        order = order[: len(order) // batch_size * batch_size]
        yield from extreme_data.batches(prepared.train, batch_size, order)


def compile_step(
    config: Config, method: Method, prepared: Prepared, tables: Tables
) -> Step:
    """The step of a method, compiled before the clock starts."""
    state = start(config, prepared, 0)
    batch = next(forever(prepared, config.batch_size, 0))
    counts = prepared.label_counts
    step = jax.jit(partial(train_step, config, method, counts), donate_argnums=0)
    if method.sampler not in ("lsh", "mix"):
        run = step.lower(state, None, batch).compile()
        return Step(lambda state, _, batch: run(state, None, batch), None)
    rebuild = jax.jit(partial(build_index, tables)).lower(state, state.key).compile()
    run = step.lower(state, rebuild(state, state.key), batch).compile()
    return Step(run, rebuild, tables.rebuild_every)


def build_index(tables: Tables, state: State, key: Array) -> lsh.Index:
    """Hash tables over the output rows, with new functions."""
    n, d = state.params.output.shape
    bits = tables.num_bits or int(np.clip(round(np.log2(n / _ROWS_A_BUCKET)), 4, 15))
    family = lsh.simhash(key, d + 1, num_tables=tables.num_tables, num_bits=bits)
    mips = lsh.mips(state.params.output, augment=True)
    return lsh.build(family, state.params.output, mips=mips)


def train_step(
    config: Config,
    method: Method,
    counts: np.ndarray,
    state: State,
    index: lsh.Index | None,
    batch: Batch,
) -> tuple[State, Array]:
    """One step of Adam, at a constant rate, on what the method computes."""
    key, sample_key = jax.random.split(state.key)

    def loss_fn(params: Params) -> Array:
        h = extreme_model.encode(config, params, batch)
        query = Query(batch.label_ids, h, params.output)
        return mean_loss(method, make_sampler(method, counts, index), sample_key, query)

    loss, grads = fsparse.value_and_grad(loss_fn)(state.params)
    optimizer: Optimizer = extreme_model.optimizer(config)
    params, moments = optimizer.step(state.params, state.moments, grads)
    state = state._replace(params=params, moments=moments, key=key, step=state.step + 1)
    return state, loss


def mean_loss(method: Method, sampler: Sampler, key: Array, query: Query) -> Array:
    """Cross-entropy in the active sets, corrected where probabilities are known."""
    n = query.table.shape[0]
    size = n if method.scope == "dense" else max(round(method.budget * n), 1)
    active = fsparse.sample_active_set(
        sampler,
        key,
        query,
        size=size,
        per_example=method.scope == "per_example",
        fill=method.sampler not in ("in_batch", "popularity"),
    )
    logits = fsparse.sampled_matmul(query.x, query.table, active.ids)
    if method.sampler == "popularity":
        logits -= sampler.log_q(active.ids, size)
    loss = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
    return jnp.mean(loss)


def make_sampler(
    method: Method, counts: np.ndarray, index: lsh.Index | None
) -> Sampler:
    """By its name; the sampler of a dense step is never asked for much."""
    n = len(counts)
    match method.sampler:
        case "popularity":
            return samplers.popularity(counts, power=0.75)
        case "in_batch":
            return samplers.in_batch()
        case "top_k":
            return samplers.top_k()
        case "lsh":
            return lsh.sampler(index)
        case "mix":
            return samplers.mix(lsh.sampler(index), samplers.uniform(n), 0.5)
    return samplers.uniform(n)


def judge(config: Config, state: State, dataset: Dataset) -> float:
    """P@1 by exact search."""
    m, n = dataset.labels.num_rows, dataset.labels.num_columns
    hits = []
    for batch in extreme_data.batches(dataset, _EVALUATION_BATCH):
        ids = extreme_model.predict(config, state.params, batch, 1)
        labels = jnp.asarray(batch.label_ids)
        hits.append(np.asarray(metrics.hits(ids, labels, num_labels=n)))
    return float(np.mean(np.concatenate(hits)[:m, 0]))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as e:
        sys.exit(f"compare_samplers: {e}")
