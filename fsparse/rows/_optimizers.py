"""The row optimizers as values: their constants bound, their rates on a schedule."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from fsparse.row_gradients import RowGrad
from fsparse.rows import _adagrad, _adam, _exact_adam, _sgd
from fsparse.rows._inputs import Array, Scalar

Rate = Scalar | Callable[[Array], Scalar]
DType = jax.typing.DTypeLike | None


def _up_to_date(table: Array, state: Any, ids: Array | None) -> tuple[Array, Any]:
    del ids  # no row ever lags behind
    return table, state


class RowOptimizer(NamedTuple):
    """Pure functions that move the rows of one table.

    ``init(table) -> state``; ``update(table, state, grad) -> (table, state)``; and
    ``catch_up(table, state, ids) -> (table, state)`` for rows about to be read, or for
    all rows if ``ids`` is None, which does nothing but in :func:`exact_adam`. What is
    overwritten is told in :mod:`fsparse.rows`.
    """

    init: Callable[[Array], Any]
    update: Callable[[Array, Any, RowGrad], tuple[Array, Any]]
    catch_up: Callable[[Array, Any, Array | None], tuple[Array, Any]] = _up_to_date


def sgd(
    learning_rate: Rate,
    *,
    momentum: Scalar | None = None,
    nesterov: bool = False,
    weight_decay: Scalar = 0.0,
    moment_dtype: DType = None,
    seed: int = 0,
) -> RowOptimizer:
    """Gradient descent on rows, see :func:`sgd_update` and :func:`momentum_update`.

    Args:
      learning_rate: a scalar, or a schedule: a function of the number of updates so
        far, such as optax's.
      momentum: decay of the trace of gradients; None for no trace.
      nesterov: whether the step looks ahead.
      weight_decay: decoupled, for the rows named.
      moment_dtype: of the trace: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      A :class:`RowOptimizer`.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> optimizer = sgd(lambda count: 1 / (1 + count))
      >>> table = jnp.zeros((1, 1))
      >>> grad = row_grad(jnp.array([0]), jnp.ones((1, 1)), num_rows=1)
      >>> table, state = optimizer.update(table, optimizer.init(table), grad)
      >>> optimizer.update(table, state, grad)[0]
      Array([[-1.5]], dtype=float32)
    """
    if momentum is None:
        update = partial(_sgd.sgd_update, weight_decay=weight_decay)
        return _scheduled(learning_rate, partial(_sgd.sgd_init, seed=seed), update)
    init = partial(_sgd.momentum_init, moment_dtype=moment_dtype, seed=seed)
    constants: dict[str, Any] = {
        "decay": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
    }
    return _scheduled(learning_rate, init, partial(_sgd.momentum_update, **constants))


def adagrad(
    learning_rate: Rate,
    *,
    initial: float = 0.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    moment_dtype: DType = None,
    seed: int = 0,
) -> RowOptimizer:
    """Adagrad on rows, see :func:`adagrad_update`.

    Args:
      learning_rate: a scalar, or a function of the number of updates so far.
      initial: the sum of squares to start with.
      eps: added to the denominator.
      weight_decay: decoupled, for the rows named.
      moment_dtype: of the accumulator: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      A :class:`RowOptimizer`.

    Example:
      >>> import jax.numpy as jnp
      >>> adagrad(0.1, initial=0.5).init(jnp.ones((1, 2))).acc
      Array([[0.5, 0.5]], dtype=float32)
    """
    moments: dict[str, Any] = {
        "initial": initial,
        "moment_dtype": moment_dtype,
        "seed": seed,
    }
    init = partial(_adagrad.adagrad_init, **moments)
    update = partial(_adagrad.adagrad_update, eps=eps, weight_decay=weight_decay)
    return _scheduled(learning_rate, init, update)


def rowwise_adagrad(
    learning_rate: Rate,
    *,
    initial: float = 0.0,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    seed: int = 0,
) -> RowOptimizer:
    """Adagrad with one accumulator a row, see :func:`rowwise_adagrad_update`.

    Args:
      learning_rate: a scalar, or a function of the number of updates so far.
      initial: the sum of mean squares to start with.
      eps: added to the denominator.
      weight_decay: decoupled, for the rows named.
      seed: of the rounding of a bfloat16 table.

    Returns:
      A :class:`RowOptimizer`.

    Example:
      >>> import jax.numpy as jnp
      >>> rowwise_adagrad(0.1).init(jnp.ones((3, 2))).acc
      Array([0., 0., 0.], dtype=float32)
    """
    init = partial(_adagrad.rowwise_adagrad_init, initial=initial, seed=seed)
    constants: dict[str, Any] = {"eps": eps, "weight_decay": weight_decay}
    update = partial(_adagrad.rowwise_adagrad_update, **constants)
    return _scheduled(learning_rate, init, update)


def adam(
    learning_rate: Rate,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    moment_dtype: DType = None,
    seed: int = 0,
) -> RowOptimizer:
    """Lazy Adam on rows, see :func:`adam_update`.

    Args:
      learning_rate: a scalar, or a function of the number of updates so far.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator.
      weight_decay: decoupled, for the rows named.
      moment_dtype: of both moments: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      A :class:`RowOptimizer`.

    Example:
      >>> import jax.numpy as jnp
      >>> adam(1e-3, moment_dtype=jnp.bfloat16).init(jnp.ones((1, 2))).nu.dtype
      dtype(bfloat16)
    """
    init = partial(_adam.adam_init, moment_dtype=moment_dtype, seed=seed)
    constants: dict[str, Any] = {
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "weight_decay": weight_decay,
    }
    return _scheduled(learning_rate, init, partial(_adam.adam_update, **constants))


def exact_adam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    moment_dtype: DType = None,
    seed: int = 0,
) -> RowOptimizer:
    """Adam whose rows catch up with dense Adam, see :func:`exact_adam_update`.

    Call ``catch_up`` with the ids that a step is about to read, and with None before
    the whole table is read: rows that have not caught up are those of an earlier step.

    Args:
      learning_rate: a scalar, or a function of the number of updates so far.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator.
      moment_dtype: of both moments: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      A :class:`RowOptimizer`.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> optimizer, table = exact_adam(0.5), jnp.zeros((2, 1))
      >>> state = optimizer.init(table)
      >>> table, state = optimizer.catch_up(table, state, jnp.array([1]))
      >>> grad = row_grad(jnp.array([1]), jnp.full((1, 1), 4.0), num_rows=2)
      >>> table, state = optimizer.update(table, state, grad)
      >>> optimizer.catch_up(table, state, None)[0].round(6)
      Array([[ 0. ],
             [-0.5]], dtype=float32)
    """
    constants: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    moments: dict[str, Any] = {"moment_dtype": moment_dtype, "seed": seed}
    init = partial(_exact_adam.exact_adam_init, **constants, **moments)

    def catch_up(table: Array, state: Any, ids: Array | None) -> tuple[Array, Any]:
        if ids is None:
            return _exact_adam.exact_adam_flush(table, state)
        return _exact_adam.exact_adam_catch_up(table, state, ids)

    scheduled = _scheduled(learning_rate, init, _exact_adam.exact_adam_update)
    return scheduled._replace(catch_up=catch_up)


def _scheduled(
    learning_rate: Rate, init: Callable[..., Any], update: Callable[..., Any]
) -> RowOptimizer:
    def update_on_schedule(table: Array, state: Any, grad: RowGrad) -> Any:
        at = learning_rate(state.count) if callable(learning_rate) else learning_rate
        return update(table, state, grad, learning_rate=at)

    return RowOptimizer(init, update_on_schedule)
