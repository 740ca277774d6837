"""Dense Adam at the price of sparse: rows catch up when they are next named.

Between two gradients, dense Adam goes on moving a row by its decaying moments. What it
does in those steps depends on nothing but the row's own state and the learning rates,
so it can be made up for later: ``last[r]`` is the number of updates that row ``r``
reflects, and ``rates`` remembers the learning rates. The moves shrink like
``(b1 / sqrt(b2))**j``, so after some 200 of them (for the usual decays) only the
moments go on decaying, which takes no loop.

Rows lag behind until they are named: bring those that you are about to read up to date
with :func:`exact_adam_catch_up`, and all with :func:`exact_adam_flush` before the whole
table is evaluated or saved.
"""

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
    check_table,
    constants,
    new_key,
    require_like,
    seed_of,
    zeros_like,
)

_NUM_RATES = 1024  # every so many updates, all rows catch up
_NEGLIGIBLE = 1e-9  # size of a move, relative to the first, that is left out


class ExactAdamState(NamedTuple):
    """State of :func:`exact_adam_update`: ``8 d + 4`` bytes a row, or ``4 d + 4``."""

    mu: Array  # f32[n, d] or bf16[n, d]
    nu: Array  # f32[n, d] or bf16[n, d]
    last: Array  # i32[n], updates that a row reflects
    rates: Array  # f32[H], the learning rate of update t at t % H
    decay: Array  # f32[3]: b1, b2, eps
    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]
    key: Array  # u32[2], seeds the rounding of bfloat16


def exact_adam_init(
    table: Array,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    moment_dtype: jax.typing.DTypeLike | None = None,
    seed: int | Array = 0,
    _num_rates: int = _NUM_RATES,
) -> ExactAdamState:
    """Zero moments for every element of ``table``.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; only its shape is used.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator.
      moment_dtype: float32, the default, or bfloat16.
      seed: of the rounding of bfloat16.

    Returns:
      An :class:`ExactAdamState`, newly allocated: ``8 d + 4`` bytes a row, or
      ``4 d + 4``.

    Raises:
      TypeError: if ``moment_dtype`` is another.

    Example:
      >>> import jax.numpy as jnp
      >>> exact_adam_init(jnp.ones((2, 2))).last
      Array([0, 0], dtype=int32)
    """
    fn = "exact_adam_init"
    return ExactAdamState(
        mu=zeros_like(fn, table, moment_dtype),
        nu=zeros_like(fn, table, moment_dtype),
        last=jnp.zeros(table.shape[:1], jnp.int32),
        rates=jnp.zeros(_num_rates, jnp.float32),
        decay=constants(fn, b1=b1, b2=b2, eps=eps),
        count=jnp.zeros((), jnp.int32),
        key=new_key(seed),
    )


def exact_adam_update(
    table: Array,
    state: ExactAdamState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
) -> tuple[Array, ExactAdamState]:
    """Adam on the rows that ``grad`` names; equal to dense Adam once rows catch up.

    The rows named first make up for the updates they missed, then take an ordinary step
    of Adam. Every 1,024 updates all rows catch up, so that no learning rate is
    forgotten before every row has used it: one pass over the table and its moments.

    There is no weight decay. It would go on shrinking a row when its momentum has died
    out, so that no missed update could be left out.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: from :func:`exact_adam_init`; aliased with the result.
      grad: the gradient of ``table``, at rows that are up to date: see
        :func:`exact_adam_catch_up`.
      learning_rate: a scalar, traced or not.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.
    Kingma and Ba, arXiv 1412.6980.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> table = jnp.zeros((2, 1))
      >>> grad = row_grad(jnp.array([1]), jnp.full((1, 1), 4.0), num_rows=2)
      >>> state = exact_adam_init(table)
      >>> exact_adam_update(table, state, grad, learning_rate=0.5)[0].round(6)
      Array([[ 0. ],
             [-0.5]], dtype=float32)
    """
    fn = "exact_adam_update"
    arrays, _ = check(fn, grad, table)
    tables = _check_state(fn, table, state)
    count = state.count + 1
    b1, b2, eps = state.decay
    rates = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    biases = {"bias1": bias(b1, count), "bias2": bias(b2, count)}
    hyper = constants(fn, **rates, **biases, max_terms=_max_terms(state))
    seed = seed_of(state.key, state.count)
    tables = _row_ops.exact_adam_rows(
        *arrays, hyper, _history(state), state.count[None], seed, *tables
    )
    slot = count % state.rates.shape[0]
    state = state._replace(rates=state.rates.at[slot].set(hyper[0]), count=count)
    return _with_tables(state, _flush_in_time(tables, state))


def exact_adam_catch_up(
    table: Array, state: ExactAdamState, ids: Array
) -> tuple[Array, ExactAdamState]:
    """Brings the rows that are about to be read up to date.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: of :func:`exact_adam_update`; aliased with the result.
      ids: ``i32[t]`` rows; they may repeat, and ids outside ``[0, n)`` are padding.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> table = jnp.zeros((2, 1))
      >>> state = exact_adam_init(table)
      >>> table, state = exact_adam_catch_up(table, state, jnp.array([1, 1, 2]))
    """
    fn = "exact_adam_catch_up"
    (ids,) = _checks.as_arrays(fn, ids=ids)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 1, ids=ids)
    return _with_tables(state, _catch_up(_check_state(fn, table, state), state, ids))


def exact_adam_flush(
    table: Array, state: ExactAdamState
) -> tuple[Array, ExactAdamState]:
    """Brings all rows up to date: then the table is that of dense Adam.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]``; aliased with the result.
      state: of :func:`exact_adam_update`; aliased with the result.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> table = jnp.zeros((2, 1))
      >>> table, state = exact_adam_flush(table, exact_adam_init(table))
    """
    tables = _check_state("exact_adam_flush", table, state)
    return _with_tables(state, _flush(tables, state))


# ---- parts --------------------------------------------------------------------------


def _check_state(fn: str, table: Array, state: ExactAdamState) -> tuple[Array, ...]:
    """The table, its moments and ``last``."""
    _checks.require_type(fn, ExactAdamState, state=state)
    tables = check_table(fn, table, mu=state.mu, nu=state.nu)
    (last,) = _checks.as_arrays(fn, last=state.last)
    _checks.require_ids(fn, last=last)
    require_like(fn, tables[0], "last", last, tables[0].shape[:1])
    return *tables, last


def _with_tables(
    state: ExactAdamState, tables: tuple[Array, ...]
) -> tuple[Array, ExactAdamState]:
    table, mu, nu, last = tables
    return table, state._replace(mu=mu, nu=nu, last=last)


def _history(state: ExactAdamState) -> Array:
    """``lr / (1 - b1**t)`` and ``1 / sqrt(1 - b2**t)`` of the last H updates ``t``."""
    slots = state.rates.shape[0]
    slot = jnp.arange(slots, dtype=jnp.int32)
    latest = state.count - (state.count - slot) % slots
    t = jnp.maximum(latest, 1)  # slots not yet used
    alpha = state.rates / bias(state.decay[0], t)
    return jnp.stack([alpha, 1 / jnp.sqrt(bias(state.decay[1], t))], axis=1)


def _max_terms(state: ExactAdamState) -> Array:
    """Moves until the next is negligible: ``f32[]``, at most H."""
    slots = state.rates.shape[0]
    b1, b2, _ = jax.lax.stop_gradient(state.decay)
    ratio = b1 / jnp.sqrt(b2)
    enough = jnp.floor(jnp.log(_NEGLIGIBLE) / jnp.log(jnp.minimum(ratio, 1))) + 1
    return jnp.where(ratio < 1, jnp.minimum(enough, slots), slots)


def _catch_up(
    tables: tuple[Array, ...], state: ExactAdamState, ids: Array
) -> tuple[Array, ...]:
    hyper = jnp.append(state.decay, _max_terms(state))
    # Not the bits of the update that follows, which rounds the same rows.
    seed = seed_of(state.key.at[1].set(~state.key[1]), state.count)
    return _row_ops.adam_catch_up(
        ids, hyper, _history(state), state.count[None], seed, *tables
    )


def _flush(tables: tuple[Array, ...], state: ExactAdamState) -> tuple[Array, ...]:
    every = jnp.arange(tables[0].shape[0], dtype=jnp.int32)
    return _catch_up(tables, state, every)


def _flush_in_time(
    tables: tuple[Array, ...], state: ExactAdamState
) -> tuple[Array, ...]:
    """All rows catch up before updates overwrite rates that one may still need.

    After an update, not before: there the read that led to the gradient would not have
    to precede this, and XLA would copy the table.
    """
    is_due = state.count % state.rates.shape[0] == 0
    return jax.lax.cond(
        is_due, lambda *rows: _flush(rows, state), lambda *rows: rows, *tables
    )
