"""How to train a wide layer on this data and this machine? `fsparse.autotune` tries.

Examples:
  python examples/tune_training.py --data wordnet-hypernyms --examples 80000
  python examples/tune_training.py --data train.txt --step-seconds 0.01

Trains the plain model of compare_samplers.py a little by each of a few plans: dense,
with negatives that a batch shares or of each example, uniform, hard, or both. Half of
the plans go on with twice the examples, until one is left: the fastest that reaches the
accuracy of the dense layer, less --within. Plans are judged on training examples held
out. Where a plan refreshes the rows of a set every so many steps, this program builds
the index anew, so seldom that as many rows are hashed.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from benchmarks import machine
from compare_samplers import Limits, Method, Tables, compile_step, prepare, train
from extreme_data import Prepared
from extreme_model import Config

import fsparse
from fsparse import Plan, Trial, Tuned, data
from fsparse.data import Dataset


def main(argv: list[str] | None = None) -> Tuned:
    """Runs the command line; returns what was found."""
    args = parse_args(argv)
    machine.show(machine.facts("jax", "jaxlib"))
    config, prepared = prepare(args.data)
    prepared = hold_out(prepared)
    tuned = fsparse.autotune(
        lambda plan, num_examples: run(config, prepared, plan, num_examples),
        num_rows=prepared.train.labels.num_columns,
        dim=config.width,
        batch_size=config.batch_size,
        num_examples=args.examples,
        within=args.within,
        step_seconds=args.step_seconds,
        max_seconds=args.max_seconds,
    )
    if args.json:
        found = {"plan": tuned.plan._asdict(), "why": tuned.why}
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return tuned


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="wordnet-hypernyms", help="name of a data set, or a file")
    add("--examples", type=int, default=80_000, help="that the last plans see")
    add("--within", type=float, default=0.02, help="accuracy that may be lost")
    add("--step-seconds", type=float, help="the most a step may take, instead")
    add("--max-seconds", type=float, default=60.0, help="the most a run may take")
    add("--json", type=Path, help="file for the plan")
    return parser.parse_args(argv)


def hold_out(prepared: Prepared) -> Prepared:
    """A fifth of the training set, or 5,000 examples, to judge plans by."""
    m = prepared.train.features.num_rows
    order = np.random.default_rng(0).permutation(m)
    held_out, rest = np.split(order, [min(5000, m // 5)])
    train, validation = (
        Dataset(*(data.take(rows, part) for rows in prepared.train))
        for part in (rest, held_out)
    )
    return prepared._replace(train=train, validation=validation)


def run(config: Config, prepared: Prepared, plan: Plan, num_examples: int) -> Trial:
    """A new model, trained by the plan, judged by examples held out."""
    n = prepared.train.labels.num_columns
    method = Method(plan.sampler or "dense", plan.scope, (plan.size or n) / n)
    rebuild_every = plan.refresh_every * max(n // max(plan.size, 1), 1)
    tables = Tables(plan.num_tables, plan.num_bits, rebuild_every)
    step = compile_step(config, method, prepared, tables)
    limits = Limits(np.inf, num_examples, (1.0,))
    (end,) = train(config, step, prepared, prepared.validation, limits, seed=0)
    examples, seconds, accuracy = end
    return Trial(accuracy, seconds, examples)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as e:
        sys.exit(f"tune_training: {e}")
