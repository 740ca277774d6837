"""The same step in plain JAX and optax: over all labels, over some, and by hand."""

from collections.abc import Callable
from functools import partial
from itertools import count, cycle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from systems.training_fsparse import on_device, random_table

Array = jax.Array
Loss = Callable[..., Array]
RATE, B1, B2, EPS = 1e-3, 0.9, 0.999, 1e-8


def init(features: int, labels: int, width: int) -> dict[str, Array]:
    """Two tables in f32. XLA's matmul of bf16 is slower than that of f32 on CPUs."""
    keys = jax.random.split(jax.random.key(0))
    table = jax.jit(random_table, static_argnums=(1, 2, 3))
    return {
        "embedding": table(keys[0], features, width, "float32"),
        "output": table(keys[1], labels, width, "float32"),
    }


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean over examples, whose labels share the mass."""
    chosen = jnp.take_along_axis(logits, targets, axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.mean(chosen, axis=1))


def with_random_rows(
    seed: Array, targets: Array, negatives: int, n: int
) -> tuple[Array, Array]:
    """The batch's labels and uniform rows, sorted, each once; and where labels are."""
    drawn = jax.random.randint(jax.random.key(seed), (negatives,), 0, n)
    every = jnp.concatenate([targets.ravel(), drawn])
    ids = jnp.unique(every, size=len(every), fill_value=n)
    return ids, jnp.searchsorted(ids, targets)


def dense_loss(params: Any, seed: Array, ids: Array, targets: Array) -> Array:
    """Over all labels."""
    del seed
    h = jax.nn.relu(jnp.sum(params["embedding"][ids], axis=1))
    return cross_entropy(h @ params["output"].T, targets)


def sampled_loss(
    negatives: int, params: Any, seed: Array, ids: Array, targets: Array
) -> Array:
    """Over some labels; its gradients are as large as the tables."""
    n = len(params["output"])
    h = jax.nn.relu(jnp.sum(params["embedding"][ids], axis=1))
    active, columns = with_random_rows(seed, targets, negatives, n)
    rows = params["output"].at[active].get(mode="fill", fill_value=0)
    logits = jnp.where(active < n, h @ rows.T, -jnp.inf)
    return cross_entropy(logits, columns)


def by_optax(loss_fn: Loss, params: Any) -> tuple[Callable[..., Any], Any]:
    """A step with Adam on everything, in place."""
    optimizer = optax.adam(RATE)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, *batch: Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    return step, optimizer.init(params)


def by_hand(negatives: int, params: Any) -> tuple[Callable[..., Any], Any]:
    """What an expert would write: gradients of the gathered rows, scattered Adam."""

    def loss_fn(some: Any, places: Array, columns: Array, is_row: Array) -> Array:
        h = jax.nn.relu(jnp.sum(some["embedding"][places], axis=1))
        return cross_entropy(jnp.where(is_row, h @ some["output"].T, -jnp.inf), columns)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, seed: Array, ids: Array, targets: Array) -> Any:
        n, count = len(params["output"]), state["count"] + 1
        used = jnp.unique(ids, size=ids.size, fill_value=len(params["embedding"]))
        active, columns = with_random_rows(seed, targets, negatives, n)
        rows = {"embedding": used, "output": active}
        some = {name: at(params[name], rows[name]) for name in rows}
        places = jnp.searchsorted(used, ids)
        loss, grads = jax.value_and_grad(loss_fn)(some, places, columns, active < n)
        moved = {
            name: adam_rows(params[name], state[name], rows[name], grads[name], count)
            for name in rows
        }
        state = {name: moments for name, (_, moments) in moved.items()}
        return (
            {name: x for name, (x, _) in moved.items()},
            state | {"count": count},
            loss,
        )

    moments = jax.tree.map(lambda x: (jnp.zeros_like(x), jnp.zeros_like(x)), params)
    return step, moments | {"count": jnp.zeros((), jnp.int32)}


def adam_rows(table: Array, moments: Any, ids: Array, grad: Array, count: Array) -> Any:
    """Adam on the rows named, each once."""
    mu = B1 * at(moments[0], ids) + (1 - B1) * grad
    nu = B2 * at(moments[1], ids) + (1 - B2) * grad**2
    scale = RATE * jnp.sqrt(1 - B2**count) / (1 - B1**count)
    rows = at(table, ids) - scale * mu / (jnp.sqrt(nu) + EPS)
    news = [
        old.at[ids].set(new, mode="drop", unique_indices=True, indices_are_sorted=True)
        for old, new in zip((table, *moments), (rows, mu, nu), strict=True)
    ]
    return news[0], tuple(news[1:])


def at(table: Array, ids: Array) -> Array:
    """Rows that are there; zeros for padding."""
    return table.at[ids].get(mode="fill", fill_value=0, indices_are_sorted=True)


def step_of(how: str, negatives: int, params: Any) -> tuple[Callable[..., Any], Any]:
    """A step and its state; ``how`` is dense, sampled, or by hand."""
    if how == "by hand":
        return by_hand(negatives, params)
    sampled = partial(sampled_loss, negatives)
    return by_optax(dense_loss if how == "dense" else sampled, params)


def train(
    how: str,
    features: int,
    nonzeros: int,
    labels: int,
    labels_per_example: int,
    width: int,
    batch: int,
    negatives: int,
) -> Callable[[], None]:
    """A step of any of them, in place."""
    params = init(features, labels, width)
    step, state = step_of(how, negatives, params)
    data = cycle(on_device(features, nonzeros, labels, labels_per_example, batch))
    seeds = map(np.uint32, count())  # keys are made in the step

    def call() -> None:
        nonlocal params, state
        params, state, loss = step(params, state, next(seeds), *next(data))
        jax.block_until_ready((params, state, loss))

    return call
