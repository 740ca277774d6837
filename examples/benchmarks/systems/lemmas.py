"""The model of examples/extreme_model.py on real batches, and the same in plain JAX.

Each has Adam on every parameter. Ours and the sampled ones have the same active
neurons; gradients of plain JAX are as large as the tables, PyTorch's are sparse.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import synthetic

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import extreme_data
import extreme_model
from extreme_model import Config, Params, State

from fsparse import losses
from fsparse.data import Batch, Dataset, from_lists, write_xc

_NUM_BATCHES = 64  # made before the clock starts, then used in turn


def by_fsparse(data: str) -> Callable[[], None]:
    """The step of the main example."""
    config, batches, state = start(data)

    def call() -> None:
        nonlocal state
        batch = next(batches)
        state, loss = extreme_model.train_step(config, state, batch, jnp.float32(1))
        jax.block_until_ready((state, loss))

    return call


def by_jax(data: str, sampled: bool) -> Callable[[], None]:
    """Plain JAX: `value_and_grad` of all parameters and optax's Adam, donated."""
    config, batches, state = start(data)
    loss_of = jax_sampled_loss if sampled else jax_dense_loss
    optimizer = optax.adam(config.learning_rate)
    params, moments = state.params, optimizer.init(state.params)
    key = jax.random.PRNGKey(0)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Params, moments: Any, batch: Batch, key: jax.Array) -> Any:
        key, own = jax.random.split(key)
        loss, grad = jax.value_and_grad(loss_of, argnums=1)(config, params, batch, own)
        direction, moments = optimizer.update(grad, moments)
        return optax.apply_updates(params, direction), moments, key, loss

    def call() -> None:
        nonlocal params, moments, key
        params, moments, key, loss = update(params, moments, next(batches), key)
        jax.block_until_ready((params, moments, loss))

    return call


def by_torch(data: str, sampled: bool) -> Callable[[], None]:
    """PyTorch, from the same parameters."""
    from systems import lemmas_torch

    config, batches, state = start(data)
    step = lemmas_torch.step(config, state.params, sampled=sampled)

    def call() -> None:
        step(next(batches))

    return call


def start(data: str) -> tuple[Config, Any, State]:
    """Settings, endless batches in random order, and everything that is learnt."""
    config = extreme_data.PRESETS.get(data, Config(width=8, batch_size=16))
    with tempfile.TemporaryDirectory() as folder:
        if data == "tiny":
            data = str(Path(folder) / "tiny.txt")
            write_xc(data, tiny())
        splits, notes = extreme_data.read(data, test=None, strict=True)
    train = extreme_data.prepare(splits, notes, config, 0).train
    order = np.random.default_rng(0).permutation(train.features.num_rows)
    batches = list(
        islice(extreme_data.batches(train, config.batch_size, order), _NUM_BATCHES)
    )
    sizes = train.features.num_columns, train.labels.num_columns
    return config, cycle(batches), extreme_model.init(config, *sizes, 0)


def tiny() -> Dataset:
    """200 examples of made-up data."""
    (batch,) = synthetic.batches(100, 5, 30, 1, 200, count=1)
    rows = ([sorted({*row}) for row in ids.tolist()] for ids in batch)
    return Dataset(from_lists(list(next(rows)), 100), from_lists(list(next(rows)), 30))


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
