"""Row optimizers of fsparse, and optax on dense gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fsparse
from fsparse import rows

Array = jax.Array
_OURS = {
    "sgd": rows.sgd,
    "momentum": partial(rows.sgd, momentum=0.9),
    "adagrad": rows.adagrad,
    "rowwise_adagrad": rows.rowwise_adagrad,
    "adam": rows.adam,
    "exact_adam": rows.exact_adam,
}


def named(labels: int, rows_named: int) -> np.ndarray:
    """Distinct rows in no order."""
    return np.random.default_rng(0).permutation(labels)[:rows_named].astype(np.int32)


def rows_update(
    labels: int, width: int, rows_named: int, optimizer: str
) -> Callable[[], None]:
    """In place, from the factors of a gradient."""
    table = jax.random.normal(jax.random.key(0), (labels, width))
    rule = _OURS[optimizer](1e-3)
    state = jax.jit(rule.init)(table)
    fsparse.use_huge_pages((table, state))
    ids = jnp.asarray(named(labels, rows_named))
    source = jax.random.normal(jax.random.key(1), (rows_named, width))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(table: Array, state: Any, ids: Array, source: Array) -> Any:
        grad = fsparse.row_grad(ids[:, None], source, num_rows=labels)
        return rule.update(table, state, grad)

    def call() -> None:
        nonlocal table, state
        table, state = jax.block_until_ready(update(table, state, ids, source))

    return call


def whole_update(
    labels: int, width: int, rows_named: int, optimizer: str
) -> Callable[[], None]:
    """In place, from a gradient as large as the table, which is there already."""
    import optax

    rules = {
        "sgd": optax.sgd,
        "momentum": partial(optax.sgd, momentum=0.9),
        "adagrad": optax.adagrad,
        "adam": optax.adam,
    }
    table = jax.random.normal(jax.random.key(0), (labels, width))
    rule = rules[optimizer](1e-3)
    state = jax.jit(rule.init)(table)
    grad = jnp.zeros_like(table).at[named(labels, rows_named)].set(0.1)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(table: Array, state: Any, grad: Array) -> Any:
        updates, state = rule.update(grad, state, table)
        return optax.apply_updates(table, updates), state

    def call() -> None:
        nonlocal table, state
        table, state = jax.block_until_ready(update(table, state, grad))

    return call
