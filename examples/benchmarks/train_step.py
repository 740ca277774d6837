"""Training steps a second: fsparse beside the same model in plain JAX and PyTorch.

The model is that of examples/extreme_model.py on real batches of a data set. The peers,
each with Adam on every parameter:

  fsparse        active neurons; gradients and updates of the rows named
  jax sampled    active neurons; gradients as large as the tables, optax
  jax dense      softmax over all labels, optax
  torch sampled  active neurons; embeddings with sparse=True, SparseAdam
  torch dense    softmax over all labels, Adam; the bag with sparse=True, SparseAdam

The peers take turns, and a turn lasts --seconds or one step, whichever is longer; shown
are medians over the turns. PyTorch takes part if it is installed.

Example:
  python examples/benchmarks/train_step.py --rounds 5 --json train_step.json
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from operator import truediv
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import machine
import numpy as np
import optax
import rich.progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import extreme_data
import extreme_model
from extreme_model import Config, Params, State

from fsparse import losses
from fsparse.data import Batch

_NUM_BATCHES = 64  # made before the clock starts, then used in turn


class Peer(NamedTuple):
    """A model under training: `step` takes a batch and returns the loss when done."""

    name: str
    step: Callable[[Batch], float]


class Result(NamedTuple):
    """Medians over the rounds."""

    peer: str
    milliseconds: float
    examples_per_second: float
    times_fsparse: float
    loss: float  # of the last step, in nats: sampled and dense ones do not compare


def fsparse_peer(config: Config, state: State) -> Peer:
    """The step of the main example."""

    def step(batch: Batch) -> float:
        nonlocal state
        state, loss = extreme_model.train_step(config, state, batch, jnp.float32(1))
        return float(loss)

    return Peer("fsparse", step)


def jax_peer(
    name: str, loss_of: Callable[..., jax.Array], config: Config, params: Params
) -> Peer:
    """Plain JAX: `value_and_grad` of all parameters and optax's Adam, donated."""
    optimizer = optax.adam(config.learning_rate)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Params, moments: Any, batch: Batch, key: jax.Array) -> Any:
        loss, grad = jax.value_and_grad(loss_of, argnums=1)(config, params, batch, key)
        direction, moments = optimizer.update(grad, moments)
        return optax.apply_updates(params, direction), moments, loss

    moments = optimizer.init(params)
    key = jax.random.PRNGKey(0)

    def step(batch: Batch) -> float:
        nonlocal params, moments, key
        key, step_key = jax.random.split(key)
        params, moments, loss = update(params, moments, batch, step_key)
        return float(loss)

    return Peer(name, step)


def jax_hidden(config: Config, params: Params, batch: Batch) -> jax.Array:
    """Embedding bag and hidden layer by indexing and `@`: `f32[b, d]`."""
    rows = params.table.value.at[batch.feature_ids].get(mode="fill", fill_value=0)
    u = extreme_model.unit(jnp.einsum("bk,bkd->bd", batch.feature_weights, rows))
    w, b, v = params.hidden
    inner = u * np.sqrt(config.width) @ w.T + b
    h = extreme_model.unit(u + jax.nn.relu(inner) @ v.T)
    return (config.scale * h).at[:, -1].set(1.0)


def jax_dense_loss(
    config: Config, params: Params, batch: Batch, key: jax.Array
) -> jax.Array:
    """Softmax cross-entropy over all labels."""
    del key
    logits = jax_hidden(config, params, batch) @ params.output.value.T
    target = jnp.take_along_axis(logits, batch.label_ids, 1, mode="fill", fill_value=0)
    is_label = batch.label_ids < params.output.shape[0]
    loss = jax.nn.logsumexp(logits, axis=1, keepdims=True) - target
    return jnp.sum(loss, where=is_label) / jnp.sum(is_label)


def jax_sampled_loss(
    config: Config, params: Params, batch: Batch, key: jax.Array
) -> jax.Array:
    """Softmax cross-entropy in the active set, its rows by indexing."""
    n = params.output.shape[0]
    active = extreme_model.active_labels(config, key, batch.label_ids, n)
    rows = params.output.value.at[active.ids].get(mode="fill", fill_value=0)
    logits = jax_hidden(config, params, batch) @ rows.T
    loss = losses.sampled_softmax_loss(logits, active.targets, active.is_active)
    num_labels = jnp.sum(active.targets < active.ids.size, axis=1)
    return jnp.sum(loss * num_labels) / jnp.sum(num_labels)


def torch_peers(config: Config, params: Params) -> list[Peer]:
    """The same two models in PyTorch; none if it is not installed."""
    if machine.version("torch") is None:
        return []
    import torch_model

    return [
        Peer("torch sampled", torch_model.step(config, params, sampled=True)),
        Peer("torch dense", torch_model.step(config, params, sampled=False)),
    ]


def make_peers(config: Config, num_features: int, num_labels: int) -> list[Peer]:
    """Every peer from the same parameters, each with copies of its own."""
    state = extreme_model.init(config, num_features, num_labels, 0)

    def copy() -> Params:
        return jax.tree.map(jnp.copy, state.params)

    return [
        jax_peer("jax sampled", jax_sampled_loss, config, copy()),
        jax_peer("jax dense", jax_dense_loss, config, copy()),
        *torch_peers(config, state.params),
        fsparse_peer(config, state),
    ]


def make_batches(config: Config, name: str) -> tuple[list[Batch], int, int]:
    """Batches of the training set in random order, and its numbers of columns."""
    splits, notes = extreme_data.read(name, test=None, strict=True)
    train = extreme_data.prepare(splits, notes, config, 0).train
    order = np.random.default_rng(0).permutation(train.features.num_rows)
    batches = extreme_data.batches(train, config.batch_size, order)
    first = list(islice(batches, _NUM_BATCHES))
    return first, train.features.num_columns, train.labels.num_columns


def turn(peer: Peer, batches: Iterator[Batch], seconds: float) -> tuple[float, float]:
    """Seconds a step, and the last loss."""
    start, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - start < seconds:
        loss = peer.step(next(batches))
        steps += 1
    return (time.perf_counter() - start) / steps, loss


def compare(
    peers: list[Peer], batches: list[Batch], rounds: int, seconds: float
) -> list[Result]:
    """Alternates, so that a slow minute of the machine falls on every peer.

    A first round compiles and is not counted.
    """
    endless, turns = cycle(batches), rich.progress.Progress()
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    last = {}
    with turns:
        for i in turns.track(range(rounds + 1), description="rounds"):
            for peer in peers:
                spent, last[peer.name] = turn(peer, endless, seconds if i else 0)
                times[peer.name] += [spent] if i else []
    return summarize(times, last, batches[0].label_ids.shape[0])


def summarize(
    times: dict[str, list[float]], losses: dict[str, float], batch_size: int
) -> list[Result]:
    """Medians; the ratio is the median of the rounds' ratios."""
    return [
        Result(
            name,
            1e3 * statistics.median(seconds),
            batch_size / statistics.median(seconds),
            statistics.median(map(truediv, seconds, times["fsparse"])),
            losses[name],
        )
        for name, seconds in times.items()
    ]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="polish-lemmas", help="name of a data set, or a file")
    add("--width", type=int, help="units of the hidden layer (default: as in training)")
    add("--rounds", type=int, default=5, help="turns of each peer (default: 5)")
    add("--seconds", type=float, default=5.0, help="of a turn (default: 5)")
    add("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not arguments.seconds > 0:
        parser.error("--rounds and --seconds must be positive")
    return arguments


def main() -> None:
    """Measures and prints."""
    arguments = parse_arguments()
    found = machine.facts("jax", "jaxlib", "optax", "torch")
    machine.show(found)
    config = extreme_data.PRESETS.get(arguments.data, Config())
    config = config._replace(width=arguments.width or config.width)
    batches, num_features, num_labels = make_batches(config, arguments.data)
    print(f"{config}\n{num_features} features, {num_labels} labels")
    peers = make_peers(config, num_features, num_labels)
    results = compare(peers, batches, arguments.rounds, arguments.seconds)
    print(
        f"\n{'peer':<15}{'ms/step':>10}{'examples/s':>12}{'x fsparse':>11}{'loss':>9}"
    )
    for name, ms, rate, ratio, loss in results:
        print(f"{name:<15}{ms:>10.1f}{rate:>12,.0f}{ratio:>11.2f}{loss:>9.4f}")
    if arguments.json:
        results_json = [result._asdict() for result in results]
        sizes = {"num_features": num_features, "num_labels": num_labels}
        figures = {
            "machine": found,
            **sizes,
            "config": config._asdict(),
            "results": results_json,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
