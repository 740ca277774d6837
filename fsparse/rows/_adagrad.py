"""Adagrad on rows, with an accumulator for each element or for each row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks, _row_ops
from fsparse.row_gradients import RowGrad
from fsparse.rows._inputs import (
    Array,
    Scalar,
    check,
    constants,
    new_key,
    require_like,
    seed_of,
    zeros_like,
)


class AdagradState(NamedTuple):
    """State of :func:`adagrad_update`: ``4 d`` bytes a row, or ``2 d``."""

    acc: Array  # f32[n, d] or bf16[n, d]
    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]
    key: Array  # u32[2], seeds the rounding of bfloat16


def adagrad_init(
    table: Array,
    *,
    initial: float = 0.0,
    moment_dtype: jax.typing.DTypeLike | None = None,
    seed: int | Array = 0,
) -> AdagradState:
    """Accumulators of ``initial`` for every element of ``table``.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; only its shape is used.
      initial: the sum of squares to start with.
      moment_dtype: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      An :class:`AdagradState`, newly allocated: ``4 d`` bytes a row, or ``2 d``.

    Raises:
      TypeError: if ``moment_dtype`` is another.

    Example:
      >>> import jax.numpy as jnp
      >>> adagrad_init(jnp.ones((1, 2)), initial=0.5).acc
      Array([[0.5, 0.5]], dtype=float32)
    """
    zeros = zeros_like("adagrad_init", table, moment_dtype)
    acc = jnp.full_like(zeros, initial)
    return AdagradState(acc, jnp.zeros((), jnp.int32), new_key(seed))


def adagrad_update(
    table: Array,
    state: AdagradState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> tuple[Array, AdagradState]:
    """Adagrad on the rows that ``grad`` names; equal to dense Adagrad.

    For each such row::

        acc += g**2
        u = g / (sqrt(acc) + eps)
        w = (1 - learning_rate * weight_decay) * w - learning_rate * u

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: from :func:`adagrad_init`; aliased with the result.
      grad: the gradient of ``table``.
      learning_rate: a scalar, traced or not.
      eps: added to the denominator.
      weight_decay: decoupled, for the rows named.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> table = jnp.zeros((2, 1))
      >>> grad = row_grad(jnp.array([1]), jnp.full((1, 1), 4.0), num_rows=2)
      >>> adagrad_update(table, adagrad_init(table), grad, learning_rate=0.5)[0]
      Array([[ 0. ],
             [-0.5]], dtype=float32)
    """
    fn = "adagrad_update"
    _checks.require_type(fn, AdagradState, state=state)
    arrays, (table, acc) = check(fn, grad, table, acc=state.acc)
    hyper = constants(
        fn, learning_rate=learning_rate, eps=eps, weight_decay=weight_decay
    )
    seed = seed_of(state.key, state.count)
    table, acc = _row_ops.adagrad_rows(*arrays, hyper, seed, table, acc)
    return table, AdagradState(acc, state.count + 1, state.key)


class RowwiseAdagradState(NamedTuple):
    """State of :func:`rowwise_adagrad_update`: 4 bytes a row."""

    acc: Array  # f32[n]
    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]
    key: Array  # u32[2], seeds the rounding of a bfloat16 table


def rowwise_adagrad_init(
    table: Array, *, initial: float = 0.0, seed: int | Array = 0
) -> RowwiseAdagradState:
    """An accumulator of ``initial`` for every row of ``table``.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; only its shape is used.
      initial: the sum of mean squares to start with.
      seed: of the rounding of a bfloat16 table.

    Returns:
      A :class:`RowwiseAdagradState`, newly allocated: 4 bytes a row.

    Example:
      >>> import jax.numpy as jnp
      >>> rowwise_adagrad_init(jnp.ones((2, 3))).acc
      Array([0., 0.], dtype=float32)
    """
    acc = jnp.full(table.shape[:1], initial, jnp.float32)
    return RowwiseAdagradState(acc, jnp.zeros((), jnp.int32), new_key(seed))


def rowwise_adagrad_update(
    table: Array,
    state: RowwiseAdagradState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> tuple[Array, RowwiseAdagradState]:
    """Adagrad with one step size for each row that ``grad`` names.

    As :func:`adagrad_update` with one accumulator a row, ``acc += mean(g**2)``: the
    optimizer of embedding tables that are too large for a second table.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: from :func:`rowwise_adagrad_init`; aliased with the result.
      grad: the gradient of ``table``.
      learning_rate: a scalar, traced or not.
      eps: added to the denominator.
      weight_decay: decoupled, for the rows named.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> table = jnp.zeros((1, 2))
      >>> grad = row_grad(jnp.array([0]), jnp.array([[1.0, 7.0]]), num_rows=1)
      >>> state = rowwise_adagrad_init(table)
      >>> rowwise_adagrad_update(table, state, grad, learning_rate=0.5)[0]
      Array([[-0.1, -0.7]], dtype=float32)
    """
    fn = "rowwise_adagrad_update"
    _checks.require_type(fn, RowwiseAdagradState, state=state)
    arrays, (table,) = check(fn, grad, table)
    (acc,) = _checks.as_arrays(fn, acc=state.acc)
    _checks.require_f32(fn, acc=acc)
    require_like(fn, table, "acc", acc, table.shape[:1])
    hyper = constants(
        fn, learning_rate=learning_rate, eps=eps, weight_decay=weight_decay
    )
    seed = seed_of(state.key, state.count)
    table, acc = _row_ops.rowwise_adagrad_rows(*arrays, hyper, seed, table, acc)
    return table, RowwiseAdagradState(acc, state.count + 1, state.key)
