"""Trains a classifier with very many labels, judges it, saves it and plots its course.

Examples:
  python examples/train_extreme.py --data polish-lemmas --seconds 180
  python examples/train_extreme.py --data wordnet-hypernyms --epochs 4 --json run.json
  python examples/train_extreme.py --data train.txt --test test.txt --width 256
  python examples/train_extreme.py --data baskets --table-dtype bfloat16
  python examples/train_extreme.py --data baskets --resume

--data is polish-lemmas, wordnet-hypernyms, baskets, or a file in the format of the
extreme classification repository (.txt or .txt.gz). Ctrl-C saves a checkpoint, from
which --resume goes on; with --epochs, to the same bits as if nothing had happened.
"""

import argparse
import contextlib
import json
import math
import resource
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import extreme_data
import extreme_model
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress
import rich.table
from extreme_data import Prepared
from extreme_model import Config, State

import fsparse
from fsparse import checkpoint, data, metrics
from fsparse.data import Dataset

_WARMUP_STEPS = 50
_CURVE_POINTS = 15
_TOP_K = 10
_EVALUATION_BATCH = 256
_REQUIREMENTS: list[tuple[str, Callable[[Any], bool], tuple[str, ...]]] = [
    ("at least 2", lambda x: x >= 2, ("width",)),
    (
        "at least 1",
        lambda x: x >= 1,
        ("batch_size", "label_capacity", "feature_capacity"),
    ),
    ("at least 0", lambda x: x >= 0, ("num_negatives", "min_count")),
    ("in [0, 1)", lambda x: 0 <= x < 1, ("feature_dropout",)),
    (
        "float32 or bfloat16",
        lambda x: x in ("float32", "bfloat16"),
        ("table_dtype",),
    ),
    ("in [0, 2**31)", lambda x: 0 <= x < 2**31, ("seed",)),
    (
        "positive and finite",
        lambda x: 0 < x < math.inf,
        ("scale", "epochs", "seconds", "checkpoint_every"),
    ),
    (
        "at least 0 and finite",
        lambda x: 0 <= x < math.inf,
        (
            "learning_rate",
            "embedding_learning_rate",
            "hidden_learning_rate",
            "margin",
            "log_q",
        ),
    ),
]
CONSOLE = rich.console.Console(stderr=True)


class Stop(NamedTuple):
    """When training ends: after so many steps, or so many seconds."""

    steps: int | None
    seconds: float | None

    def progress(self, step: int, seconds: float) -> float:
        """From 0 to 1; the learning rate falls with it, linearly, to 0."""
        if self.seconds is not None:
            return min(seconds / self.seconds, 1.0)
        assert self.steps is not None
        return min(step / max(self.steps, 1), 1.0)


class Point(NamedTuple):
    """A point of the training curve."""

    step: int
    seconds: float
    loss: float
    p_at_1: float | None  # on the validation set, if there is one


class Run(NamedTuple):
    """Training so far."""

    state: State
    seconds: float  # without validation and saving
    curve: list[Point]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Runs the command line; returns what ``--json`` writes."""
    args = parse_args(argv)
    config = configured(args)
    _or_exit(lambda: check(args, config))
    prepared = _or_exit(lambda: prepare(args, config))
    for note in prepared.notes:
        CONSOLE.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    out = args.out or Path("runs") / prepared.name
    _or_exit(lambda: make_folders(out, args.json))
    path = out / "checkpoint.npz"
    settings = {
        "data": prepared.name,
        "seed": args.seed,
        "seconds": args.seconds,
        **config._asdict(),
        "training_set_crc32": fingerprint(prepared.train),
    }
    stop = stop_rule(config, prepared, args.seconds)
    save = saver(path, settings)
    if args.resume:
        run = _or_exit(lambda: resume(path, settings, config, prepared))
    else:
        run = start(config, prepared, args.seed)
    run = train(config, prepared, run, stop, args.seed, save, args.checkpoint_every)
    result = report(config, prepared, run, path)
    p_at_1 = result["p_at_1"]
    _or_exit(lambda: plot(out / "curve.png", prepared.name, run.curve, p_at_1))
    if args.json:
        text = json.dumps(result, indent=2) + "\n"
        _or_exit(lambda: args.json.write_text(text))
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line; every field of ``Config`` is an option."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="polish-lemmas", help="name of a data set, or a file")
    add("--test", type=Path, help="file of test examples; default: a tenth of --data")
    add("--strict", action="store_true", help="stop at the first malformed line")
    add("--seed", type=int, default=0)
    add("--seconds", type=float, help="how long to train, in place of --epochs")
    add("--json", type=Path, help="file for the figures")
    add("--out", type=Path, help="folder of checkpoint and plot; default: runs/NAME")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--checkpoint-every", type=float, default=120.0, help="seconds")
    group = parser.add_argument_group("model and training (defaults depend on --data)")
    for name, default in Config()._asdict().items():
        boolean = isinstance(default, bool)
        kind: dict[str, Any] = (
            {"action": argparse.BooleanOptionalAction}
            if boolean
            else {"type": type(default)}
        )
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, **kind)
    return parser.parse_args(argv)


def configured(args: argparse.Namespace) -> Config:
    """The preset of the data set, changed by the options that were given."""
    preset = extreme_data.PRESETS.get(args.data, Config())
    given = {k: getattr(args, k) for k in Config._fields}
    return preset._replace(**{k: v for k, v in given.items() if v is not None})


def check(args: argparse.Namespace, config: Config) -> None:
    """Refuses settings that make no sense, by the names of their options."""
    if args.seconds is not None and args.epochs is not None:
        raise ValueError("--seconds and --epochs exclude each other; give one of them.")
    if args.test is not None and args.data in extreme_data.PRESETS:
        raise ValueError(
            f"--test must go with a file as --data; got {args.data}, which has test "
            "examples of its own."
        )
    values = {**vars(args), **config._asdict()}
    for requirement, holds, names in _REQUIREMENTS:
        for name in names:
            if values[name] is not None and not holds(values[name]):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} must be {requirement}; got {values[name]}.")


def prepare(args: argparse.Namespace, config: Config) -> Prepared:
    """The data that the command line asks for."""
    splits, notes = extreme_data.read(args.data, test=args.test, strict=args.strict)
    return extreme_data.prepare(splits, notes, config, args.seed)


def make_folders(out: Path, json_path: Path | None) -> None:
    """Where the results go, before hours are spent on them."""
    out.mkdir(parents=True, exist_ok=True)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)


def fingerprint(dataset: Dataset) -> str:
    """The CRC-32 of all examples."""
    crc = 0
    for rows in dataset:
        for array in (rows.indptr, rows.ids, rows.values):
            crc = zlib.crc32(np.ascontiguousarray(array), crc)
    return f"{crc:08x}"


def stop_rule(config: Config, prepared: Prepared, seconds: float | None) -> Stop:
    """By the clock if ``seconds`` are given, else by epochs."""
    if seconds is not None:
        return Stop(None, seconds)
    m = prepared.train.features.num_rows
    epoch = extreme_data.steps_per_epoch(m, config.batch_size)
    return Stop(max(round(config.epochs * epoch), 1), None)


def start(config: Config, prepared: Prepared, seed: int) -> Run:
    """A new run, its output rows at the centroids or frequencies of the labels."""
    began = time.perf_counter()
    features, labels = prepared.train
    state = extreme_model.init(config, features.num_columns, labels.num_columns, seed)
    if config.centroids:
        sums = jnp.zeros(state.params.output.shape)
        examples = extreme_data.batches(prepared.train, config.batch_size)
        count = data.num_batches(features.num_rows, config.batch_size)
        for batch in track(examples, count, "centroids"):
            sums = extreme_model.add_to_centroids(config, sums, state.params, batch)
        state = extreme_model.start_at_centroids(config, state, sums)
    if config.log_q:
        counts = jnp.asarray(data.column_counts(labels), jnp.float32)
        state = extreme_model.start_at_frequencies(
            config, state, counts, features.num_rows
        )
    jax.block_until_ready(state)
    return Run(state, time.perf_counter() - began, [])


def saver(path: Path, settings: dict[str, Any]) -> Callable[[Run], None]:
    """A function that writes a checkpoint of a run."""

    def save(run: Run) -> None:
        progress = {"elapsed": run.seconds, "curve": run.curve}
        try:
            checkpoint.save(path, run.state, {**progress, "settings": settings})
        except OSError as e:
            sys.exit(
                f"train_extreme: cannot write {path}: {e}. The previous checkpoint, if "
                "there was one, is whole. Make room, then use --resume."
            )

    return save


def resume(
    path: Path, settings: dict[str, Any], config: Config, prepared: Prepared
) -> Run:
    """The run that a checkpoint holds, if it was made with the same settings."""
    if not path.exists():
        raise FileNotFoundError(
            f"--resume needs a checkpoint; there is no {path}. Start without --resume."
        )
    metadata = checkpoint.load_metadata(path)
    saved = metadata.get("settings", {})
    other = [
        f"{name}={value} (saved: {saved.get(name)})"
        for name, value in settings.items()
        if saved.get(name) != value
    ]
    if other:
        raise checkpoint.CheckpointError(
            f"{path}: a run resumes with the settings it was started with; got "
            f"{', '.join(other)}. Give the same options, or start anew without "
            "--resume."
        )
    features, labels = prepared.train
    like = jax.eval_shape(
        lambda: extreme_model.init(
            config, features.num_columns, labels.num_columns, settings["seed"]
        )
    )
    state, _ = checkpoint.load(path, like)
    curve = [Point(*point) for point in metadata["curve"]]
    return Run(state, metadata["elapsed"], curve)


def train(
    config: Config,
    prepared: Prepared,
    run: Run,
    stop: Stop,
    seed: int,
    save: Callable[[Run], None],
    checkpoint_every: float,
) -> Run:
    """Steps until ``stop`` says so; saves on the way, at the end and on Ctrl-C."""
    state, seconds, curve = run
    fsparse.use_huge_pages(state)
    step, loss = int(state.step), None
    bar, task = start_bar()
    done = stop.progress(step, seconds)
    next_point = next((p for p in _points() if p > done), 1.0)
    next_save = seconds + checkpoint_every
    with catch_interrupts() as interrupted, bar:
        while done < 1 and not interrupted:
            state, order, first = begin_round(config, prepared, state, step, seed)
            began = time.perf_counter() - seconds
            for batch in extreme_data.batches(
                prepared.train, config.batch_size, order, first
            ):
                rate = min(1.0, (step + 1) / _WARMUP_STEPS) * (1 - done)
                previous, step = loss, step + 1
                state, loss = extreme_model.train_step(
                    config, state, batch, jnp.float32(rate)
                )
                # One step stays under way while the next batch is prepared.
                shown = float(loss if previous is None else previous)
                seconds = time.perf_counter() - began
                done = stop.progress(step, seconds)
                show(bar, task, config, step, seconds, done, shown)
                if done >= next_point or done >= 1:
                    last = float(loss)
                    point = measure(config, prepared, state, step, seconds, last)
                    curve = [*curve, point]
                    next_point = next((p for p in _points() if p > done), 1.0)
                if seconds >= next_save:
                    save(Run(state, seconds, curve))
                    next_save = seconds + checkpoint_every
                began = time.perf_counter() - seconds
                if done >= 1 or interrupted:
                    break
        run = Run(state, seconds, curve)
        save(run)
    if interrupted:
        sys.exit(
            f"train_extreme: stopped at step {step}, and saved. Go on with --resume."
        )
    return run


def begin_round(
    config: Config, prepared: Prepared, state: State, step: int, seed: int
) -> tuple[State, np.ndarray, int]:
    """The state, the examples of the step's round, and its first batch."""
    m = prepared.train.features.num_rows
    current = extreme_data.round_of(step, m, config.batch_size)
    codes = None
    if config.neighbours:
        if step == current.start:
            key = jax.random.fold_in(state.key, current.number)
            codes = extreme_model.label_codes(state.params.output, key)
            state = state._replace(codes=codes)
        codes = np.asarray(state.codes)
    order = extreme_data.order_of_round(current.number, prepared.train, seed, codes)
    return state, order, step - current.start


def measure(
    config: Config,
    prepared: Prepared,
    state: State,
    step: int,
    seconds: float,
    loss: float,
) -> Point:
    """A point of the curve; prints it where there is no progress bar to look at."""
    text, p_at_1 = f"step {step}  {seconds:.0f} s  loss {loss:.4f}", None
    if prepared.validation.labels.num_rows:
        is_hit, _, _ = top_hits(config, state, prepared.validation)
        p_at_1 = float(np.mean(is_hit[:, 0]))
        text += f"  validation P@1 {p_at_1:.4f}"
    CONSOLE.print(text, highlight=False)
    return Point(step, seconds, loss, p_at_1)


def top_hits(
    config: Config,
    state: State,
    dataset: Dataset,
    weights: np.ndarray | None = None,
    show_progress: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`bool[m, 10]` hits, and `f32[m]` propensity gained and possible at 1."""
    m, n = dataset.labels.num_rows, dataset.labels.num_columns
    gains = jnp.asarray(np.ones(n, np.float32) if weights is None else weights)
    examples = extreme_data.batches(dataset, _EVALUATION_BATCH)
    count = data.num_batches(m, _EVALUATION_BATCH)
    parts = []
    for batch in track(examples, count, "test set") if show_progress else examples:
        ids = extreme_model.predict(config, state.params, batch, _TOP_K)
        labels = jnp.asarray(batch.label_ids)
        is_hit = metrics.hits(ids, labels, num_labels=n)
        parts.append((is_hit, *metrics.propensity_gains(1, ids, labels, gains)))
    hits, gained, possible = (
        np.concatenate([np.asarray(p) for p in column])[:m]
        for column in zip(*parts, strict=True)
    )
    return hits, gained, possible


def report(config: Config, prepared: Prepared, run: Run, path: Path) -> dict[str, Any]:
    """Judges the model on the test set; prints and returns the figures."""
    weights = metrics.inverse_propensities(prepared.label_counts, prepared.num_train)
    is_hit, gained, possible = top_hits(
        config, run.state, prepared.test, weights, show_progress=True
    )
    steps, m = int(run.state.step), prepared.train.labels.num_rows
    epochs = steps / extreme_data.steps_per_epoch(m, config.batch_size)
    result = {
        "data": prepared.name,
        "n_labels": len(prepared.label_counts),
        "n_features": prepared.train.features.num_columns,
        "n_train": prepared.num_train,
        "n_validation": prepared.validation.labels.num_rows,
        "n_test": len(is_hit),
        "p_at_1": float(np.mean(metrics.precision_at(1, is_hit))),
        "p_at_5": float(np.mean(metrics.precision_at(5, is_hit))),
        "hit_at_5": float(np.mean(metrics.hit_at(5, is_hit))),
        "hit_at_10": float(np.mean(metrics.hit_at(10, is_hit))),
        "psp_at_1": float(np.sum(gained) / np.sum(possible)),
        "steps": steps,
        "train_seconds": run.seconds,
        "examples_per_second": epochs * m / run.seconds,
        "state_bytes": extreme_model.state_bytes(run.state),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "checkpoint": str(path),
        "notes": prepared.notes,
        "config": config._asdict(),
        "curve": [point._asdict() for point in run.curve],
    }
    value_column = rich.table.Column("value", overflow="fold")
    table = rich.table.Table("figure", value_column, title=prepared.name)
    for key, value in result.items():
        if isinstance(value, (int, float, str)):
            shown = f"{value:.4f}" if isinstance(value, float) else f"{value}"
            table.add_row(key, shown)
    rich.console.Console().print(table)
    return result


def plot(path: Path, name: str, curve: list[Point], p_at_1: float) -> None:
    """The training curve as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seconds = [point.seconds for point in curve]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    p_at_1s = np.array([point.p_at_1 for point in curve], float)
    left.plot(seconds, p_at_1s, "o-", label="validation")
    left.axhline(p_at_1, color="gray", linestyle="--", label=f"test: {p_at_1:.3f}")
    left.set(xlabel="training time (s)", ylabel="P@1", title=name)
    left.legend()
    right.plot(seconds, [point.loss for point in curve], "o-", color="tab:orange")
    right.set(xlabel="training time (s)", ylabel="loss in the active set (nats)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


@contextlib.contextmanager
def catch_interrupts() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM fills; a second one ends the process."""
    caught: list[int] = []

    def note(number: int, _frame: Any) -> None:
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def start_bar() -> tuple[rich.progress.Progress, rich.progress.TaskID]:
    """The progress bar of training."""
    bar = rich.progress.Progress(
        rich.progress.TextColumn("training"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[figures]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("ETA {task.fields[eta]}"),
        console=CONSOLE,
    )
    return bar, bar.add_task("training", total=1.0, figures="", eta="-:--")


def show(
    bar: rich.progress.Progress,
    task: rich.progress.TaskID,
    config: Config,
    step: int,
    seconds: float,
    done: float,
    loss: float,
) -> None:
    """Moves the bar."""
    rate = step * config.batch_size / max(seconds, 1e-9)
    left = seconds * (1 - done) / max(done, 1e-9)
    figures = f"loss {loss:.4f}  {rate:,.0f} examples/s"
    eta = f"{int(left) // 60}:{int(left) % 60:02d}"
    bar.update(task, completed=done, figures=figures, eta=eta)


def track(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
    """The items, with a progress bar."""
    return rich.progress.track(items, description, total, console=CONSOLE)


def _points() -> list[float]:
    """Where in training a point of the curve is measured; early ones stand closer."""
    return [(i / _CURVE_POINTS) ** 1.5 for i in range(1, _CURVE_POINTS)]


def _or_exit(call: Callable[[], Any]) -> Any:
    """What the call returns; its complaint about the user's input ends the program."""
    try:
        return call()
    except (ValueError, OSError, RuntimeError, ImportError) as e:
        sys.exit(f"train_extreme: {e}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("train_extreme: interrupted outside of training; nothing new to save.")
