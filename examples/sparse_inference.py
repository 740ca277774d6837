"""Inference that scores a hundredth of the neurons: how good, how fast, beside dense.

Examples:
  python examples/sparse_inference.py --data polish-lemmas --json polish.json
  python examples/sparse_inference.py --data train.txt --seconds 60 --most 0.01
  python examples/sparse_inference.py --data baskets --insert always

Trains the model of examples/train_extreme.py, builds hash tables over its output rows,
and picks, on validation examples, the cheapest search that gets wrong no more than
--loss of them which dense inference gets right. Where none does, it builds tables that
are trained, too: the labels of the training examples are inserted where these fall, and
the better tables are kept. Then it judges dense and sparse inference on the test set,
times single queries of both, encoding included, and asks faiss, where it is
installed, for the same number of candidates.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import compare_samplers
import extreme_data
import extreme_model
import faiss_peer
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import train_extreme
from benchmarks import machine
from extreme_data import Prepared
from extreme_model import Config, State

import fsparse
from fsparse import data, lsh, metrics
from fsparse.data import Batch, Dataset

Array = jax.Array
_TOP_K = 10
_BATCH = 256
_BLOCK = 50  # single queries
_ENTRY_BYTES = 4.25  # of an inserted entry, with the slots kept free
_TRAINED_TABLES = 32  # fewer, which leaves room for inserted labels
# (num_probes, share of the neurons scored), the cheaper ones first.
_SEARCHES = [(1, 0.0025), (1, 0.005), (2, 0.0025), (2, 0.005), (3, 0.0025)]
_SEARCHES += [(3, 0.005), (2, 0.01), (4, 0.005), (4, 0.01), (2, 0.02), (4, 0.02)]
_SEARCHES += [(8, 0.02), (16, 0.02)]
CONSOLE = rich.console.Console(stderr=True)


class Search(NamedTuple):
    """How candidates are found."""

    num_probes: int
    size: int  # candidates that are scored


class Answers(NamedTuple):
    """Of a set of examples, by dense and by sparse inference."""

    dense: np.ndarray  # i32[m, 10]
    sparse: np.ndarray  # i32[m, 10]
    labels: np.ndarray  # i32[m, l]
    scored: np.ndarray  # i32[m], candidates


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the command line; returns what ``--json`` writes."""
    args = parse_args(argv)
    config, prepared, state = trained(args)
    n, d = state.params.output.shape
    index, search = build_and_choose(args, config, prepared, state)
    test = compare_samplers.sample(prepared.test, args.test_examples)
    answers = ask(config, state, index, search, test)
    dense, sparse = seconds_a_query(args, config, prepared, state, index, search)
    result = {
        "data": prepared.name,
        "seed": args.seed,
        "n_labels": n,
        "width": d,
        **precisions("dense", answers.dense, answers.labels, n),
        **precisions("sparse", answers.sparse, answers.labels, n),
        "scored_fraction": float(np.mean(answers.scored)) / n,
        "p50_dense_seconds": dense,
        "p50_sparse_seconds": sparse,
        "times_faster": dense / sparse,
        **recalls(config, prepared, state, index, search, np.mean(answers.scored)),
        "num_tables": index.family.num_tables,
        "num_buckets": index.family.num_buckets,
        "num_probes": search.num_probes,
        "hash_products": index.family.num_tables * num_bits(index.family),
        "index_bytes": lsh.num_bytes(index),
        "weight_bytes": 4 * n * d,
        "num_inserted": int(jnp.sum(index.buckets.num_inserted)),
        "num_lost": int(jnp.sum(index.buckets.num_lost)),
        "n_test": len(answers.labels),
        "machine": machine.facts("jax", "jaxlib", "faiss-cpu"),
    }
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="polish-lemmas", help="name of a data set, or a file")
    add("--test", type=Path, help="file of test examples; default: a tenth of --data")
    add("--seconds", type=float, help="of training; default: the epochs of the preset")
    add("--checkpoint", type=Path, help="folder to take the model from, or to keep it")
    add("--seed", type=int, default=0)
    add("--num-bits", type=int, help="of a code; default: about 200 rows a bucket")
    add("--insert", choices=("auto", "always", "never"), default="auto")
    add("--loss", type=float, default=0.003, help="right answers that may be lost")
    add("--most", type=float, default=0.02, help="share of the neurons to score")
    add("--test-examples", type=int, default=20_000, help="to judge by, at most")
    add("--queries", type=int, default=300, help="how many are timed")
    add("--json", type=Path, help="file for the figures")
    args = parser.parse_args(argv)
    if not 0 < args.most <= 1:
        parser.error(f"--most must be in (0, 1]; got {args.most}")
    return args


def trained(args: argparse.Namespace) -> tuple[Config, Prepared, State]:
    """The model of `train_extreme`: from a checkpoint of it, or trained now."""
    options = ["--data", args.data, "--seed", args.seed]
    options += ["--test", args.test] if args.test else []
    options += ["--seconds", args.seconds] if args.seconds else []
    options = train_extreme.parse_args(list(map(str, options)))
    config = train_extreme.configured(options)
    prepared = train_extreme.prepare(options, config)
    if args.checkpoint and (args.checkpoint / "checkpoint.npz").exists():
        sizes = (rows.num_columns for rows in prepared.train)
        like = jax.eval_shape(lambda: extreme_model.init(config, *sizes, args.seed))
        state, _ = fsparse.checkpoint.load(args.checkpoint / "checkpoint.npz", like)
        return config, prepared, state
    run = train_extreme.start(config, prepared, args.seed)
    stop = train_extreme.stop_rule(config, prepared, args.seconds)
    run = train_extreme.train(
        config, prepared, run, stop, args.seed, partial(save, args), np.inf
    )
    return config, prepared, run.state


def save(args: argparse.Namespace, run: train_extreme.Run) -> None:
    """Keeps the model, if a folder for it is named."""
    if args.checkpoint:
        args.checkpoint.mkdir(parents=True, exist_ok=True)
        fsparse.checkpoint.save(args.checkpoint / "checkpoint.npz", run.state, {})


# ---- the index ----------------------------------------------------------------------


def build_and_choose(
    args: argparse.Namespace, config: Config, prepared: Prepared, state: State
) -> tuple[lsh.Index, Search]:
    """Tables of the rows alone, if they do; else those or trained ones."""
    n, d = state.params.output.shape
    judge = partial(choose, args, config, prepared, state)
    family = lsh.default_family(jax.random.key(args.seed), n, d)
    if args.num_bits:
        sizes = {"num_tables": family.num_tables, "num_bits": args.num_bits}
        family = lsh.simhash(jax.random.key(args.seed), d, **sizes)
    found = []
    if args.insert != "always":
        index = build(family, state)
        found.append((index, *judge(index)))
        if found[0][2] <= args.loss or args.insert == "never":
            return found[0][:2]
    few = min(_TRAINED_TABLES, family.num_tables)
    key = jax.random.key(args.seed)
    family = lsh.simhash(key, d, num_tables=few, num_bits=num_bits(family))
    index = build(family, state, room_for_labels(family, n))
    index = insert_training_labels(config, prepared, state, index)
    found.append((index, *judge(index)))
    return min(found, key=lambda tried: tried[2])[:2]


def build(family: Any, state: State, max_inserted: int = 0) -> lsh.Index:
    """Tables over the output rows, less their mean."""
    mips = lsh.mips(state.params.output)
    make = jax.jit(partial(lsh.build, max_inserted=max_inserted))
    return jax.block_until_ready(make(family, state.params.output, mips=mips))


def insert_training_labels(
    config: Config, prepared: Prepared, state: State, index: lsh.Index
) -> lsh.Index:
    """A pass over the training set."""
    insert = jax.jit(partial(insert_labels, config), donate_argnums=0)
    m = prepared.train.features.num_rows
    order = np.random.default_rng(0).permutation(m)
    batches = extreme_data.batches(prepared.train, _BATCH, order)
    for batch in train_extreme.track(batches, data.num_batches(m, _BATCH), "labels"):
        index = insert(index, state.params, batch)
    return index


def num_bits(family: Any) -> int:
    """Of a code."""
    return family.num_buckets.bit_length() - 1


def room_for_labels(family: Any, n: int) -> int:
    """Entries a table may take until the index is as large as the weights."""
    fixed = 6.25 * n + 8 * family.num_buckets + 4 * num_bits(family) * family.dim
    left = 4 * n * family.dim / family.num_tables - fixed
    return max(int(left / _ENTRY_BYTES), 0)


def insert_labels(config: Config, index: lsh.Index, params: Any, batch: Batch) -> Any:
    """Later queries like these find their labels."""
    h = extreme_model.encode(config, params, batch)
    return lsh.insert(index, h, batch.label_ids)


def choose(
    args: argparse.Namespace,
    config: Config,
    prepared: Prepared,
    state: State,
    index: lsh.Index,
) -> tuple[Search, float]:
    """The cheapest search that loses little on the validation examples, or the best."""
    n, best, least = state.params.output.shape[0], None, np.inf
    for num_probes, share in [*_SEARCHES, (4, args.most)]:
        # With all buckets of a table, all rows have its vote.
        if share > args.most or num_probes > index.family.num_buckets // 4:
            continue
        search = Search(num_probes, max(int(share * n), 1))
        answers = ask(config, state, index, search, prepared.validation)
        loss = lost(answers, n)
        CONSOLE.print(f"{search}: {loss:.4f} of the answers are lost", highlight=False)
        if loss < least:
            best, least = search, loss
        if loss <= args.loss:
            break
    assert best is not None
    return best, least


# ---- inference ----------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def dense_inference(config: Config, params: Any, batch: Batch) -> Array:
    """`i32[b, 10]` by an exact search."""
    return extreme_model.predict(config, params, batch, _TOP_K)


@partial(jax.jit, static_argnums=(0, 1))
def sparse_inference(
    config: Config, search: Search, params: Any, index: lsh.Index, batch: Batch
) -> tuple[Array, Array]:
    """`i32[b, 10]` among candidates, and how many there were."""
    h = extreme_model.encode(config, params, batch)
    found = lsh.query(index, h, search.size, num_probes=search.num_probes)
    k = _TOP_K + (batch.feature_ids.shape[1] if config.exclude_inputs else 0)
    _, ids = fsparse.sampled_top_k(h, params.output, found.ids, k)
    if config.exclude_inputs:
        ids = extreme_model.without_inputs(ids, batch, _TOP_K)
    return ids, jnp.minimum(found.num_found, search.size)


def ask(
    config: Config, state: State, index: lsh.Index, search: Search, dataset: Dataset
) -> Answers:
    """Both inferences for all examples."""
    m = dataset.features.num_rows
    parts = []
    for batch in extreme_data.batches(dataset, _BATCH):
        sparse, scored = sparse_inference(config, search, state.params, index, batch)
        dense = dense_inference(config, state.params, batch)
        parts.append((dense, sparse, batch.label_ids, scored))
    columns = zip(*parts, strict=True)
    return Answers(*(np.concatenate([np.asarray(p) for p in c])[:m] for c in columns))


def precisions(
    name: str, ids: np.ndarray, labels: np.ndarray, n: int
) -> dict[str, float]:
    """Of the first and of five predictions, and how often a label is among ten."""
    hits = metrics.hits(jnp.asarray(ids), jnp.asarray(labels), num_labels=n)
    return {
        f"p_at_1_{name}": float(jnp.mean(metrics.precision_at(1, hits))),
        f"p_at_5_{name}": float(jnp.mean(metrics.precision_at(5, hits))),
        f"hit_at_10_{name}": float(jnp.mean(metrics.hit_at(10, hits))),
    }


def lost(answers: Answers, n: int) -> float:
    """Share of the examples that dense inference gets right and sparse does not."""
    dense, sparse = (
        np.asarray(metrics.hits(ids, answers.labels, num_labels=n))[:, 0]
        for ids in (answers.dense, answers.sparse)
    )
    return float(np.mean(dense & ~sparse))


def seconds_a_query(
    args: argparse.Namespace,
    config: Config,
    prepared: Prepared,
    state: State,
    index: lsh.Index,
    search: Search,
) -> tuple[float, float]:
    """Medians of single queries, dense and sparse ones in turn, a block of each.

    A server answers all queries in one way. Were they to take turns one by one, dense
    ones would empty the caches for those that are sparse.
    """
    calls: tuple[Callable[[Batch], Any], ...] = (
        lambda batch: dense_inference(config, state.params, batch),
        lambda batch: sparse_inference(config, search, state.params, index, batch),
    )
    times: list[list[float]] = [[], []]
    queries = list(single_queries(prepared.test, args.queries))
    for call in calls:
        jax.block_until_ready(call(queries[0]))  # compiles
    for first in range(0, len(queries), _BLOCK):
        for call, seconds in zip(calls, times, strict=True):
            for batch in queries[first : first + _BLOCK]:
                began = time.perf_counter()
                jax.block_until_ready(call(batch))
                seconds.append(time.perf_counter() - began)
    dense, sparse = np.median(times, axis=1)
    return float(dense), float(sparse)


def single_queries(dataset: Dataset, count: int) -> Iterator[Batch]:
    """Batches of one, already on the device."""
    order = np.random.default_rng(0).permutation(dataset.features.num_rows)[:count]
    for batch in extreme_data.batches(dataset, 1, order):
        yield jax.block_until_ready(jax.tree.map(jnp.asarray, batch))


def recalls(
    config: Config,
    prepared: Prepared,
    state: State,
    index: lsh.Index,
    search: Search,
    budget: float,
) -> dict[str, float | None]:
    """Of the ten largest products, by tables and faiss; of the best, by 8-bit rows."""
    w = state.params.output
    h, exact = queries_and_exact(config, prepared, state)
    ask = jax.jit(partial(lsh.top_k, k=_TOP_K, **search._asdict()))
    _, ids = ask(index, jnp.asarray(h), w)
    _, by_int8 = fsparse.dense_top_k(jnp.asarray(h), fsparse.quantize_rows(w), 1)
    rows = np.asarray(w.value, np.float32)
    return {
        "recall_at_10": faiss_peer.overlap(np.asarray(ids), exact),
        "same_best_int8": faiss_peer.overlap(np.asarray(by_int8), exact[:, :1]),
        **faiss_peer.recalls(rows, h, exact, budget),
    }


def queries_and_exact(
    config: Config, prepared: Prepared, state: State, most: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """Activations of some test examples, and the ids of their largest products."""
    order = np.random.default_rng(0).permutation(prepared.test.features.num_rows)
    encode = jax.jit(partial(extreme_model.encode, config))
    parts = [
        np.asarray(encode(state.params, batch))
        for batch in extreme_data.batches(prepared.test, _BATCH, order[:most])
    ]
    h = np.concatenate(parts)[: min(most, len(order))]
    return h, np.asarray(fsparse.dense_top_k(h, state.params.output, _TOP_K)[1])


def show(result: dict[str, Any]) -> None:
    """The figures as a table."""
    table = rich.table.Table("figure", "value", title=result["data"])
    for key, value in result.items():
        if not isinstance(value, dict):
            table.add_row(
                key, f"{value:.6g}" if isinstance(value, float) else f"{value}"
            )
    rich.console.Console().print(table)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as e:
        sys.exit(f"sparse_inference: {e}")
