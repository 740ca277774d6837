"""What should a step train on? Samplers of training examples, on the whole clock.

Examples:
  python examples/adaptive_sampling.py --data letter --json rows.json --plot curves.png
  python examples/adaptive_sampling.py --data ctr --rows 500000 --settings stream
  python examples/adaptive_sampling.py --data letter --methods uniform nw loss --seeds 3
  python examples/adaptive_sampling.py --data criteo:train.txt --rows 2000000
  python examples/adaptive_sampling.py --show a.json b.json --plot curves.png

Of M = 4 b candidates a step trains on b. In the setting `stream` each candidate comes
once; in `epochs` the data come again. The learning rate of each method is the best of a
grid on a part of the training data, by seeds that are not reported, and falls to 0 as a
cosine over the run. Seconds are those of the whole loop but for judging: drawing,
hashing, scoring, selecting, training and updating, after compilation.

  uniform             trains on b random candidates
  uniform_equal_time  the same for as many seconds as nw takes, with more steps
  uniform_all         trains on all M candidates
  random_score        scores of noise: a check
  class_mean          the mean loss of the class
  cache, infobatch    the last loss of the example itself (epochs only)
  loss, gradient_norm a forward pass of all candidates; Katharopoulos and Fleuret 2018
  exact_nw            Nadaraya-Watson regression of the loss, in the class, exactly
  nw, nw_norm         the same by a sketch sliced by class, of losses or gradient norms
  nw_square           the same, the root of the mean squared loss
  nw_paper            a sketch of the loss given x alone, and a threshold

--json has a row a run: data, method, setting, seed, lr, accuracy (or what `metric`
says), loss, seconds, examples_trained, seconds_to_uniform_final (null: never reached),
its curve, and how much scores reduce the variance of gradients of fresh examples.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.progress
import sampling_data
import sampling_figures
import sampling_runs
from benchmarks import machine
from sampling_data import Options, Problem
from sampling_figures import Row
from sampling_methods import EQUAL_TIME, METHODS, RATIO, REVISITING, UNIFORM, Sampling
from sampling_runs import Compiled, Plan, Point, Run

from fsparse.data import clicks

SETTINGS = ("stream", "epochs")
_TUNING_SEED = 10_000
_POINTS = 10  # of a curve
_TIMED_RUNS = 3
CONSOLE = rich.console.Console(stderr=True)


class Tuned(NamedTuple):
    """A method and the learning rate that is best for it."""

    compiled: Compiled
    rate: float
    steps: int


def main(argv: list[str] | None = None) -> list[Row]:
    """Runs the command line; returns the rows."""
    args = parse_args(argv)
    if args.show:
        rows = [row for f in args.show for row in json.loads(f.read_text())]
        rows = [row for row in rows if row["method"] in args.methods]
    else:
        facts = machine.facts("jax", "jaxlib")
        machine.show(facts)
        rows = list(measure(args, facts))
    sampling_figures.show(rows)
    if args.plot:
        sampling_figures.plot(args.plot, rows)
    return rows


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = f"{', '.join(sampling_data.PROBLEMS)}, or KIND:FILE, "
    names += f"a file of your own of a KIND of {', '.join(clicks.FORMATS)}"
    add("--data", nargs="+", default=["letter"], metavar="NAME", help=names)
    add("--methods", nargs="+", default=[*METHODS], choices=METHODS, metavar="NAME")
    add("--settings", nargs="+", default=[*SETTINGS], choices=SETTINGS)
    add("--seeds", type=int, default=5, help="how many are reported")
    add("--tuning-seeds", type=int, default=3, help="for each rate of the grid")
    add("--steps", type=int, help="of a run, at most; a stream may be shorter")
    add("--grid", nargs="+", type=float, default=[1 / 3, 1.0, 3.0])
    add("--rows", type=int, help="training examples, at most")
    add("--batch", type=int, help="b, instead of that of the data set")
    add("--test-examples", type=int, default=10_000, help="that runs are judged on")
    add("--min-gain", type=float, default=1.1, help="of the off-switch; 0: always on")
    add("--selector", default="systematic", choices=["priority", "systematic"])
    add("--json", type=Path, help="file for the rows")
    add("--show", type=Path, nargs="+", help="show these files instead of training")
    add("--plot", type=Path, help="PNG of the metric against seconds and examples")
    args = parser.parse_args(argv)
    for name in args.data:
        kind, is_file, _ = name.partition(":")
        if name not in sampling_data.PROBLEMS and not (
            is_file and kind in clicks.FORMATS
        ):
            parser.error(f"--data must be {names}; got {name!r}")
    counts = "seeds", "tuning_seeds", "steps", "rows", "batch", "test_examples"
    for option in counts:
        value = getattr(args, option)
        if value is not None and value <= 0:
            parser.error(f"--{option.replace('_', '-')} must be positive; got {value}")
    if min(args.grid) <= 0:
        parser.error(f"--grid must be factors above 0; got {args.grid}")
    if args.min_gain < 0:
        parser.error(f"--min-gain must not be negative; got {args.min_gain}")
    return args


def measure(args: argparse.Namespace, facts: machine.Facts) -> Iterator[Row]:
    """All runs; the file is written as they come."""
    rows: list[Row] = []
    for name in args.data:
        problem = sampling_data.load(name, options_of(args))
        for setting in args.settings:
            own: list[Row] = []
            for row in compare(args, problem, setting):
                own.append(row | {"machine": facts})
                sampling_figures.add_seconds_to_uniform(own)
                if args.json:
                    write(args.json, rows + own)
            rows += own
    yield from rows


def options_of(args: argparse.Namespace) -> Options:
    """Of the data."""
    return Options(args.rows, args.test_examples, args.batch)


def write(path: Path, rows: list[Row]) -> None:
    """A row a line."""
    text = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    path.write_text(f"[\n{text}\n]\n")


# ---- one data set in one setting ----------------------------------------------------


def compare(args: argparse.Namespace, problem: Problem, setting: str) -> Iterator[Row]:
    """Tunes each method, then runs all methods with each seed in turn."""
    methods = [m for m in METHODS if m in args.methods]  # uniform is the first
    if setting == "stream":
        methods = [m for m in methods if m not in REVISITING]
    steps, chunk = sizes(args, problem, setting)
    total = len(methods) * (len(args.grid) * args.tuning_seeds + args.seeds)
    with rich.progress.Progress(console=CONSOLE, transient=True) as progress:
        task = progress.add_task(f"{problem.name}, {setting}", total=total)
        advance = lambda: progress.advance(task)  # noqa: E731
        tuned: dict[str, Tuned] = {}
        for name in sorted(methods, key=lambda name: name == EQUAL_TIME):
            plan = Plan(setting, _TUNING_SEED, 0.0, steps, chunk)
            if name == EQUAL_TIME:
                plan = plan._replace(steps=equal_steps(problem, tuned, plan))
            tuned[name] = tune(args, problem, name, plan, advance)
        for seed in range(args.seeds):
            for name in methods:
                yield report(problem, name, tuned[name], setting, seed, chunk)
                advance()


def sizes(args: argparse.Namespace, problem: Problem, setting: str) -> tuple[int, int]:
    """Steps of a run and of a chunk of it."""
    most = problem.epoch_steps
    if setting == "stream":
        most = len(problem.train.labels) // (RATIO * problem.batch)
    steps = min(most, args.steps or most)
    if steps == 0:
        raise ValueError(
            f"--batch must leave a step to a stream of {len(problem.train.labels)} "
            f"examples, {RATIO} x batch a step; got {problem.batch}."
        )
    chunk = max(steps // _POINTS, 1)
    return steps // chunk * chunk, chunk


def equal_steps(problem: Problem, tuned: dict[str, Tuned], plan: Plan) -> int:
    """Steps that uniform sampling does while the sketch does those of the plan."""
    if UNIFORM not in tuned or "nw" not in tuned:
        return plan.steps
    least = dict.fromkeys((UNIFORM, "nw"), np.inf)  # the least disturbed of a few
    for name in [UNIFORM, "nw"] * _TIMED_RUNS:
        own = plan._replace(rate=tuned[name].rate)
        end = validated(tuned[name].compiled, problem, own)
        least[name] = min(least[name], end.seconds)
    ratio = max(least["nw"] / least[UNIFORM], 1)
    num_chunks = round(ratio * plan.steps / plan.chunk)
    if plan.setting == "stream":
        most = len(problem.train.labels) // problem.batch // plan.chunk
        num_chunks = min(num_chunks, most)
    return num_chunks * plan.chunk


def tune(
    args: argparse.Namespace, problem: Problem, name: str, plan: Plan, advance: Any
) -> Tuned:
    """Compiles a method, and finds its learning rate on the validation part."""
    sampling = Sampling(min_gain=args.min_gain or None, selector=args.selector)
    compiled = sampling_runs.compile_method(name, problem, sampling, plan.chunk)
    rates = [factor * problem.rate for factor in args.grid]
    ends: list[tuple[float, float]] = []
    for rate in rates:
        points = []
        for i in range(args.tuning_seeds):
            own = plan._replace(rate=rate, seed=plan.seed + i)
            points.append(validated(compiled, problem, own))
            advance()
        ends.append(
            (mean_of(p.accuracy for p in points), mean_of(-p.loss for p in points))
        )
    best = max(range(len(rates)), key=ends.__getitem__)
    return Tuned(compiled, rates[best], plan.steps)


def validated(compiled: Compiled, problem: Problem, plan: Plan) -> Point:
    """The end of a run on the validation part."""
    done = sampling_runs.run(compiled, problem, plan, problem.validation, brief=True)
    return done.curve[-1]


def mean_of(values: Iterable[float]) -> float:
    """Of runs; the least of all numbers if one of them diverged."""
    return float(np.nan_to_num(np.mean([*values]), nan=-np.inf))


def report(
    problem: Problem, name: str, tuned: Tuned, setting: str, seed: int, chunk: int
) -> Row:
    """A run with a seed, as a row."""
    plan = Plan(setting, seed, tuned.rate, tuned.steps, chunk)
    done = sampling_runs.run(tuned.compiled, problem, plan, problem.test, brief=False)
    row = finite(row_of(problem, name, plan, done))
    end = done.curve[-1]
    CONSOLE.print(
        f"{name:>18} {setting} seed {seed} {problem.metric} {end.accuracy:.4f} "
        f"loss {end.loss:.4f} {end.seconds:.2f} s",
        highlight=False,
    )
    return row


def row_of(problem: Problem, name: str, plan: Plan, done: Run) -> Row:
    """What the file has of a run."""
    end = done.curve[-1]
    middle, last = [None, None, *done.variance_reduction][-2:]
    return {
        "data": problem.name,
        "method": name,
        "setting": plan.setting,
        "seed": plan.seed,
        "lr": plan.rate,
        "metric": problem.metric,
        "accuracy": end.accuracy,
        "loss": end.loss,
        "seconds": end.seconds,
        "examples_trained": end.examples_trained,
        "seconds_to_uniform_final": None,
        "variance_reduction_middle": middle,
        "variance_reduction_end": last,
        "effective_sample_size": done.effective_sample_size,
        "share_of_steps_on": done.share_on,
        "steps": plan.steps,
        "batch": problem.batch,
        "candidates": RATIO * problem.batch,
        "curve": [point._asdict() for point in done.curve],
    }


def finite(x: Any) -> Any:
    """What JSON can say: null in place of the NaN of a run that diverged."""
    if isinstance(x, dict):
        return {name: finite(value) for name, value in x.items()}
    if isinstance(x, list):
        return [finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError) as e:
        sys.exit(f"adaptive_sampling: {e}")
