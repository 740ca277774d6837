"""Adam on rows, lazy: a row that is not named does not move."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks, _row_ops
from fsparse.row_gradients import RowGrad
from fsparse.rows._inputs import (
    Array,
    Scalar,
    bias,
    check,
    constants,
    new_key,
    seed_of,
    zeros_like,
)


class AdamState(NamedTuple):
    """State of :func:`adam_update`: ``8 d`` bytes a row, or ``4 d``."""

    mu: Array  # f32[n, d] or bf16[n, d]
    nu: Array  # f32[n, d] or bf16[n, d]
    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]
    key: Array  # u32[2], seeds the rounding of bfloat16


def adam_init(
    table: Array,
    *,
    moment_dtype: jax.typing.DTypeLike | None = None,
    seed: int | Array = 0,
) -> AdamState:
    """Zero moments for every element of ``table``.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; only its shape is used.
      moment_dtype: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      An :class:`AdamState`, newly allocated: ``8 d`` bytes a row, or ``4 d``.

    Raises:
      TypeError: if ``moment_dtype`` is another.

    Example:
      >>> import jax.numpy as jnp
      >>> adam_init(jnp.ones((1, 2))).mu
      Array([[0., 0.]], dtype=float32)
    """
    mu = zeros_like("adam_init", table, moment_dtype)
    nu = zeros_like("adam_init", table, moment_dtype)  # not mu: both are donated
    return AdamState(mu, nu, jnp.zeros((), jnp.int32), new_key(seed))


def adam_update(
    table: Array,
    state: AdamState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
) -> tuple[Array, AdamState]:
    """Lazy Adam, or AdamW, on the rows that ``grad`` names.

    For each such row, with ``t`` the number of updates of the whole table::

        mu = b1 * mu + (1 - b1) * g;   nu = b2 * nu + (1 - b2) * g**2
        u = (mu / (1 - b1**t)) / (sqrt(nu / (1 - b2**t)) + eps)
        w = (1 - learning_rate * weight_decay) * w - learning_rate * u

    The other rows, their moments too, stay as they are: SLIDE's and BOLT's rule. Dense
    Adam would go on moving them while their moments decay; so does
    :func:`exact_adam_update`.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: from :func:`adam_init`; aliased with the result.
      grad: the gradient of ``table``.
      learning_rate: a scalar, traced or not.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator.
      weight_decay: decoupled, for the rows named.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.
    Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> table = jnp.zeros((2, 1))
      >>> grad = row_grad(jnp.array([1]), jnp.full((1, 1), 4.0), num_rows=2)
      >>> adam_update(table, adam_init(table), grad, learning_rate=0.5)[0].round(6)
      Array([[ 0. ],
             [-0.5]], dtype=float32)
    """
    fn = "adam_update"
    _checks.require_type(fn, AdamState, state=state)
    arrays, (table, mu, nu) = check(fn, grad, table, mu=state.mu, nu=state.nu)
    count = state.count + 1
    rates = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    biases = {"bias1": bias(b1, count), "bias2": bias(b2, count)}
    hyper = constants(fn, **rates, **biases, weight_decay=weight_decay)
    seed = seed_of(state.key, state.count)
    table, mu, nu = _row_ops.adam_rows(*arrays, hyper, seed, table, mu, nu)
    return table, AdamState(mu, nu, count, state.key)
