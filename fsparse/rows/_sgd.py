"""Gradient descent on rows, plain and with momentum."""

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
    seed_of,
    zeros_like,
)


def add_rows(
    table: Array, grad: RowGrad, *, scale: Scalar = 1.0, key: Array | None = None
) -> Array:
    """``w[r] += scale * g[r]`` for the rows that ``grad`` names.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      grad: the rows to add.
      scale: a scalar, traced or not.
      key: a key of ``jax.random``, or ``u32[2]``, that seeds the rounding of a bfloat16
        table; not used otherwise. Take another one each time.

    Returns:
      An array like ``table``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree, or a bfloat16 table comes without a key.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> grad = row_grad(jnp.array([1, 1]), jnp.ones((2, 2)), num_rows=3)
      >>> add_rows(jnp.zeros((3, 2)), grad, scale=0.5)
      Array([[0., 0.],
             [1., 1.],
             [0., 0.]], dtype=float32)
    """
    fn = "add_rows"
    arrays, (table,) = check(fn, grad, table)
    if key is None and table.dtype == jnp.bfloat16:
        raise ValueError(
            f"{fn}: a bfloat16 table must come with a key; got table: "
            f"{_checks.aval(table)}, key: None. Pass key=jax.random.key(step)."
        )
    hyper = -constants(fn, scale=scale, weight_decay=0.0)
    return _row_ops.sgd_rows(*arrays, hyper, _seed_of(fn, key), table)[0]


def _seed_of(fn: str, key: Array | None) -> Array:
    if key is None:
        return jnp.zeros(2, jnp.uint32)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.bits(key, (2,), jnp.uint32)
    _checks.require(fn, key.shape == (2,), "key must have two words", key=key)
    return key.astype(jnp.uint32)


class SgdState(NamedTuple):
    """State of :func:`sgd_update`."""

    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]
    key: Array  # u32[2], seeds the rounding of bfloat16


def sgd_init(table: Array, *, seed: int | Array = 0) -> SgdState:
    """A state with no moments.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; not used.
      seed: of the rounding of a bfloat16 table.

    Returns:
      An :class:`SgdState`.

    Example:
      >>> import jax.numpy as jnp
      >>> int(sgd_init(jnp.ones((1, 2))).count)
      0
    """
    del table  # for the signature that all optimizers have
    return SgdState(jnp.zeros((), jnp.int32), new_key(seed))


def sgd_update(
    table: Array,
    state: SgdState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    weight_decay: Scalar = 0.0,
) -> tuple[Array, SgdState]:
    """Gradient descent on the rows that ``grad`` names.

    ``w = (1 - learning_rate * weight_decay) * w - learning_rate * g``.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: from :func:`sgd_init`.
      grad: the gradient of ``table``.
      learning_rate: a scalar, traced or not.
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
      >>> table = jnp.zeros((2, 2))
      >>> grad = row_grad(jnp.array([1, 1]), jnp.ones((2, 2)), num_rows=2)
      >>> sgd_update(table, sgd_init(table), grad, learning_rate=0.5)[0]
      Array([[ 0.,  0.],
             [-1., -1.]], dtype=float32)
    """
    fn = "sgd_update"
    _checks.require_type(fn, SgdState, state=state)
    arrays, (table,) = check(fn, grad, table)
    hyper = constants(fn, learning_rate=learning_rate, weight_decay=weight_decay)
    seed = seed_of(state.key, state.count)
    (table,) = _row_ops.sgd_rows(*arrays, hyper, seed, table)
    return table, SgdState(state.count + 1, state.key)


class MomentumState(NamedTuple):
    """State of :func:`momentum_update`: ``4 d`` bytes a row, or ``2 d``."""

    trace: Array  # f32[n, d] or bf16[n, d]
    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]
    key: Array  # u32[2], seeds the rounding of bfloat16


def momentum_init(
    table: Array, *, moment_dtype: jax.typing.DTypeLike | None = None, seed: int = 0
) -> MomentumState:
    """A trace of zeros for every element of ``table``.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; only its shape is used.
      moment_dtype: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      A :class:`MomentumState`, newly allocated: ``4 d`` bytes a row, or ``2 d``.

    Raises:
      TypeError: if ``moment_dtype`` is another.

    Example:
      >>> import jax.numpy as jnp
      >>> momentum_init(jnp.ones((1, 2))).trace
      Array([[0., 0.]], dtype=float32)
    """
    trace = zeros_like("momentum_init", table, moment_dtype)
    return MomentumState(trace, jnp.zeros((), jnp.int32), new_key(seed))


def momentum_update(
    table: Array,
    state: MomentumState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    decay: Scalar = 0.9,
    nesterov: bool = False,
    weight_decay: Scalar = 0.0,
) -> tuple[Array, MomentumState]:
    """Gradient descent with momentum on the rows that ``grad`` names.

    For each such row::

        trace = decay * trace + g
        u = g + decay * trace if nesterov else trace
        w = (1 - learning_rate * weight_decay) * w - learning_rate * u

    The other rows, their traces too, stay as they are. Dense momentum would go on
    moving them.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: from :func:`momentum_init`; aliased with the result.
      grad: the gradient of ``table``.
      learning_rate: a scalar, traced or not.
      decay: of the trace.
      nesterov: whether the step looks ahead.
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
      >>> table = jnp.zeros((1, 1))
      >>> grad = row_grad(jnp.array([0]), jnp.ones((1, 1)), num_rows=1)
      >>> state = momentum_init(table)
      >>> table, state = momentum_update(table, state, grad, learning_rate=1.0)
      >>> momentum_update(table, state, grad, learning_rate=1.0)[0]
      Array([[-2.9]], dtype=float32)
    """
    fn = "momentum_update"
    _checks.require_type(fn, MomentumState, state=state)
    arrays, (table, trace) = check(fn, grad, table, trace=state.trace)
    rates = {"learning_rate": learning_rate, "decay": decay, "nesterov": nesterov}
    hyper = constants(fn, **rates, weight_decay=weight_decay)
    seed = seed_of(state.key, state.count)
    table, trace = _row_ops.momentum_rows(*arrays, hyper, seed, table, trace)
    return table, MomentumState(trace, state.count + 1, state.key)
