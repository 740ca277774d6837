"""What adaptive sampling costs: a sketch beside the training that it steers.

Examples:
  python examples/benchmarks/sketch.py
  python examples/benchmarks/sketch.py --kind hadamard --widths 938 --batches 512
  python examples/benchmarks/sketch.py --candidates 1 2 4 --json cost.json

Scores M candidates, 1 and 4 for each trained example, by a Nadaraya-Watson sketch and
adds the losses of b of them, beside forward and backward of a perceptron on these b in
plain JAX: by default the one of arXiv:2311.13583, 938 -> 4 x 800 -> 1 with ReLU and
binary cross-entropy. The parts (hash M, query M, update b), all of them as one program,
and the training take turns in one run; the figures are medians. A share is what all of
the sketch costs, hashing included, of forward and backward: the goal is below 5 %.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np
import rich
import rich.progress
import rich.table

from fsparse import lsh
from fsparse.sketch import NWSketch, nw_decay, nw_init, nw_query, nw_update

Array = jax.Array
Layers = list[tuple[Array, Array]]
_CLASSES, _DECAY, _GOAL = 2, 0.995, 0.05


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the command line; returns what ``--json`` writes."""
    args = parse_args(argv)
    facts = machine.facts("jax", "jaxlib")
    machine.show(facts)
    sizes = list(itertools.product(args.widths, args.batches, args.candidates))
    rows = [measure(args, *size) for size in rich.progress.track(sizes)]
    show(args.kind, rows)
    result = {"machine": facts, "kind": args.kind, "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 938])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 512])
    parser.add_argument(
        "--candidates", type=int, nargs="+", default=[1, 4], help="M / b"
    )
    parser.add_argument("--rows", type=int, default=32, help="of the sketch")
    parser.add_argument("--bits", type=int, default=8, help="of a code")
    parser.add_argument(
        "--kind", choices=["dense", "sparse", "hadamard"], default="dense"
    )
    parser.add_argument("--layers", type=int, default=4, help="hidden ones")
    parser.add_argument("--hidden", type=int, default=800, help="their width")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args(argv)
    sizes = *args.widths, *args.batches, *args.candidates, args.hidden, args.layers
    if min(args.rounds, *sizes) < 1:
        parser.error("rounds and all sizes must be at least 1")
    return args


def measure(
    args: argparse.Namespace, d: int, b: int, candidates: int
) -> dict[str, float]:
    """Median milliseconds of each part, and what share of the training all are."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (candidates * b, d))
    labels = jax.random.randint(keys[1], (len(x),), 0, _CLASSES)
    family = lsh.simhash(
        keys[2], d, num_tables=args.rows, num_bits=args.bits, kind=args.kind
    )
    params = init_layers(keys[3], [d, *[args.hidden] * args.layers, 1])
    train = jax.jit(jax.value_and_grad(loss))
    chosen, targets = x[:b], labels[:b].astype(jnp.float32)
    calls = sketch_calls(nw_init(family, num_slices=_CLASSES), x, labels, b)
    calls["train"] = lambda: train(params, chosen, targets)
    ms = medians(calls, args.rounds)
    return {
        "width": d,
        "batch": b,
        "candidates": candidates,
        **{f"{name}_ms": value for name, value in ms.items()},
        "all_share": ms["all"] / ms["train"],
    }


def show(kind: str, rows: list[dict[str, float]]) -> None:
    """A line for each size: milliseconds, the share, and whether it meets the goal."""
    parts = ["hash", "query", "update", "all", "train"]
    title = f"{kind}: ms, and the share of forward + backward, hashing included"
    table = rich.table.Table("d", "b", "M / b", *parts, "share", "< 5 %", title=title)
    for row in rows:
        sizes = (f"{row[name]:.0f}" for name in ("width", "batch", "candidates"))
        ms = (f"{row[f'{part}_ms']:.2f}" for part in parts)
        verdict = "yes" if row["all_share"] < _GOAL else "no"
        table.add_row(*sizes, *ms, f"{row['all_share']:.1%}", verdict)
    rich.print(table)


# ---- the sketch ---------------------------------------------------------------------


def sketch_calls(
    sketch: NWSketch, x: Array, labels: Array, b: int
) -> dict[str, Callable[[], Any]]:
    """The parts of a step, and all of them, with sketches that are updated in place."""
    hashes, query = jax.jit(lsh.codes), jax.jit(scores)
    update = jax.jit(add, donate_argnums=0)
    step = jax.jit(score_and_add, donate_argnums=0)
    family, codes = sketch.family, hashes(sketch.family, x)
    losses, own, own_labels = jnp.ones(b), codes[:b], labels[:b]
    full = jax.jit(add)(sketch, own, losses, own_labels)
    kept = {name: jax.tree.map(jnp.copy, full) for name in ("update", "all")}

    def updated() -> Any:
        kept["update"] = update(kept["update"], own, losses, own_labels)
        return kept["update"].totals

    def stepped() -> Any:
        kept["all"], mean = step(kept["all"], x, losses, labels)
        return mean

    return {
        "hash": lambda: hashes(family, x),
        "query": lambda: query(full, codes, labels),
        "update": updated,
        "all": stepped,
    }


def scores(sketch: NWSketch, codes: Array, labels: Array) -> Array:
    """The estimated loss of each candidate."""
    return nw_query(sketch, codes, labels).mean


def add(sketch: NWSketch, codes: Array, losses: Array, labels: Array) -> NWSketch:
    """Forgets a little, and adds what the step computed anyway."""
    return nw_update(nw_decay(sketch, _DECAY), codes, losses, labels)


def score_and_add(
    sketch: NWSketch, x: Array, losses: Array, labels: Array
) -> tuple[NWSketch, Array]:
    """A step without selection and training: rows are hashed once."""
    codes, b = lsh.codes(sketch.family, x), len(losses)
    mean = scores(sketch, codes, labels)
    return add(sketch, codes[:b], losses, labels[:b]), mean


# ---- the training -------------------------------------------------------------------


def init_layers(key: Array, widths: list[int]) -> Layers:
    """He's initial weights, and biases of zero."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n))
        for k, (m, n) in zip(keys, itertools.pairwise(widths), strict=True)
    ]


def loss(params: Layers, x: Array, y: Array) -> Array:
    """Binary cross-entropy of a perceptron."""
    *hidden, (w, b) = params
    for weights, bias in hidden:
        x = jax.nn.relu(x @ weights + bias)
    logits = (x @ w + b)[:, 0]
    return jnp.mean(jnp.logaddexp(0, logits) - y * logits)


# ---- the clock ----------------------------------------------------------------------


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call, one after the other in each round."""
    milliseconds = {name: np.zeros(rounds) for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())  # compiles
    for i in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            milliseconds[name][i] = 1e3 * (time.perf_counter() - began)
    return {name: float(np.median(ms)) for name, ms in milliseconds.items()}


if __name__ == "__main__":
    main()
