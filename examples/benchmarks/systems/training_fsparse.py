"""A training step by fsparse: embedding bag, ReLU, a softmax over active labels."""

import time
from collections.abc import Callable
from functools import partial
from itertools import count, cycle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import synthetic

import fsparse
from fsparse import Table, lsh, rows, samplers

Array = jax.Array
REBUILT_EVERY = 1000  # steps
FUSED_FROM = 1 << 22  # logits, from which they are not held


def random_table(key: Array, n: int, d: int, dtype: Any) -> Array:
    """Rows of a length near 0.5: a block of them is drawn, and repeated."""
    block = 0.5 / d**0.5 * jax.random.normal(key, (min(n, 1 << 17), d))
    repeats = -(-n // len(block))
    return jnp.tile(block.astype(dtype), (repeats, 1))[:n]


def init(
    features: int, labels: int, width: int, dtype: str, moment_dtype: str
) -> tuple[Any, Any, Any]:
    """Parameters, the optimizer and its state."""
    keys = jax.random.split(jax.random.key(0))
    tables = {"embedding": features, "output": labels}
    params = {
        name: Table(jax.jit(random_table, static_argnums=(1, 2, 3))(k, n, width, dtype))
        for (name, n), k in zip(tables.items(), keys, strict=True)
    }
    adam = rows.adam(1e-3, moment_dtype=moment_dtype)
    optimizer = fsparse.multi_transform({"tables": adam})
    return params, optimizer, optimizer.init(params)


def step_of(optimizer: Any, choose: Any, fused: bool = False) -> Any:
    """``(params, state, index, seed, ids, labels) -> params, state, loss, active``."""

    def loss_fn(params: Any, index: Any, seed: Array, ids: Array, labels: Array) -> Any:
        h = jax.nn.relu(fsparse.embedding_bag(params["embedding"], ids))
        query = samplers.Query(labels, h, params["output"])
        active = choose(index, jax.random.key(seed), query)
        ids, targets, is_active, _ = active
        if fused:
            loss = fsparse.fused_softmax_loss(
                h, params["output"], ids, targets, is_active
            )
        else:
            logits = fsparse.sampled_matmul(h, params["output"], ids)
            loss = fsparse.sampled_softmax_loss(logits, targets, is_active)
        return loss.mean(), ids

    def step(params: Any, state: Any, index: Any, *batch: Array) -> Any:
        of_batch = fsparse.value_and_grad(loss_fn, has_aux=True)
        (loss, ids), grads = of_batch(params, index, *batch)
        return *optimizer.step(params, state, grads), loss, ids

    return step


def uniform_set(labels: int, negatives: int, size: int, per_example: bool) -> Any:
    """Chooses the labels of a batch and, beside them, uniform ones."""
    uniform = samplers.uniform(labels)

    def choose(_: None, key: Array, query: samplers.Query) -> fsparse.ActiveSet:
        drawn = uniform.sample(key, query, negatives, per_example)
        return fsparse.active_set(query.labels, drawn, num_rows=labels, size=size)

    return choose


def sampled(
    features: int,
    nonzeros: int,
    labels: int,
    labels_per_example: int,
    width: int,
    batch: int,
    negatives: int,
    dtype: str = "float32",
    moment_dtype: str = "float32",
    per_example: bool = False,
    huge_pages: bool = True,
    fused: bool = True,
    products: str = "highest",
) -> Callable[[], None]:
    """Uniform negatives, shared by the batch or of each example.

    With ``fused``, many logits are not held. ``products`` is their precision.
    """
    jax.config.update("jax_default_matmul_precision", products)
    params, optimizer, state = init(features, labels, width, dtype, moment_dtype)
    if huge_pages:
        fsparse.use_huge_pages((params, state))
    room = negatives + labels_per_example * batch
    size = min(negatives if per_example else room, labels)
    choose = uniform_set(labels, negatives, size, per_example)
    fused &= not per_example and batch * size >= FUSED_FROM
    made = step_of(optimizer, choose, fused)
    step = jax.jit(made, donate_argnums=(0, 1))
    data = cycle(on_device(features, nonzeros, labels, labels_per_example, batch))
    seeds = map(np.uint32, count())  # keys are made in the step

    def call() -> None:
        nonlocal params, state
        params, state, loss, _ = step(params, state, None, next(seeds), *next(data))
        jax.block_until_ready((params, state, loss))

    return call


def hashed(
    features: int,
    nonzeros: int,
    labels: int,
    labels_per_example: int,
    width: int,
    batch: int,
    negatives: int,
    refresh: bool,
) -> Callable[[], float]:
    """Half of the shared negatives hash as the batch does.

    Tables are kept up by refreshing the rows of each step in the step, or by building
    them anew every 1,000 steps, of which each step is charged its part.
    """
    params, optimizer, state = init(features, labels, width, "float32", "float32")
    uniform = samplers.uniform(labels)
    size = min(negatives + batch * labels_per_example, labels)

    def choose(index: Any, key: Array, query: samplers.Query) -> fsparse.ActiveSet:
        half = samplers.mix(lsh.sampler(index), uniform, 0.5)
        return fsparse.sample_active_set(half, key, query, size=size)

    plain = step_of(optimizer, choose)
    build = jax.jit(lsh.build)
    family = lsh.default_family(jax.random.key(2), labels, width)
    index = jax.block_until_ready(build(family, params["output"]))
    fsparse.use_huge_pages((params, state, index))
    began = time.perf_counter()
    jax.block_until_ready(build(family, params["output"]))
    charged = 0.0 if refresh else (time.perf_counter() - began) / REBUILT_EVERY

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params: Any, state: Any, index: Any, *batch: Array) -> Any:
        params, state, loss, ids = plain(params, state, index, *batch)
        index = lsh.refresh(index, params["output"], ids) if refresh else index
        return params, state, index, loss

    data = cycle(on_device(features, nonzeros, labels, labels_per_example, batch))
    seeds = map(np.uint32, count())  # keys are made in the step

    def call() -> float:
        nonlocal params, state, index
        began = time.perf_counter()
        params, state, index, loss = step(
            params, state, index, next(seeds), *next(data)
        )
        jax.block_until_ready((params, state, index, loss))
        return time.perf_counter() - began + charged

    return call


def on_device(*shape: int) -> list[tuple[Array, Array]]:
    """The batches as arrays."""
    return [(jnp.asarray(x), jnp.asarray(y)) for x, y in synthetic.batches(*shape)]
