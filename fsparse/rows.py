"""Optimizers that update only the rows of a table that a batch touched.

A row gradient is kept factored: row ``r`` of the dense gradient is

    sum of scale[i, j] * x[i]  over the (i, j) with ids[i, j] == r.

An embedding bag's gradient has this form with ``scale`` its weights and ``x`` the
cotangent of its output; the gradient of ``take_rows(w, ids)`` has it with one id an
example (:func:`row_grad`). Nothing of size ``n * d`` or ``b * k * d`` is formed: each
row's gradient is summed in cache, applied at once, and forgotten.

Every table and moment is overwritten in place when the caller's jitted step donates it.
If it does not, XLA copies first and the old value stays valid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _batching, _checks, reference
from fsparse._call import define
from fsparse.matmul import scatter_outer

Array = jax.Array
Scalar = Array | float


class RowGrad(NamedTuple):
    """A factored gradient of a few rows of a table."""

    ids: Array  # i32[b, k], padding outside [0, n)
    scale: Array  # f32[b, k]
    x: Array  # f32[b, d]

    def to_dense(self, num_rows: int) -> Array:
        """The same gradient as ``f32[num_rows, d]``, newly allocated.

        Raises as :func:`fsparse.scatter_outer` does.
        """
        return scatter_outer(self.scale, self.x, self.ids, num_rows=num_rows)


def row_grad(ids: Array, rows: Array) -> RowGrad:
    """A row gradient from one gradient for each id.

    Ids may repeat; their gradients are added.

    Args:
      ids: ``i32[m]`` rows of a table; ids outside it are padding.
      rows: ``f32[m, d]``, most often the gradient of ``take_rows(table, ids)``.

    Returns:
      A :class:`RowGrad` with one id an example.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> row_grad(jnp.array([1, 1]), jnp.ones((2, 2))).to_dense(2)
      Array([[0., 0.],
             [2., 2.]], dtype=float32)
    """
    fn = "row_grad"
    ids, rows = _checks.as_arrays(fn, ids=ids, rows=rows)
    _checks.require_ids(fn, ids=ids)
    _checks.require_f32(fn, rows=rows)
    _checks.require_rank(fn, 1, ids=ids)
    _checks.require_rank(fn, 2, rows=rows)
    _checks.require(
        fn,
        ids.shape[0] == rows.shape[0],
        "ids and rows must have one row gradient for each id",
        ids=ids,
        rows=rows,
    )
    return RowGrad(ids[:, None], jnp.ones((ids.shape[0], 1), jnp.float32), rows)


class AdagradState(NamedTuple):
    """Accumulated squares of :func:`adagrad_update`."""

    acc: Array  # f32[n, d]


class AdamState(NamedTuple):
    """Moments of :func:`adam_update`: ``8 d`` bytes a row."""

    mu: Array  # f32[n, d]
    nu: Array  # f32[n, d]
    # i32[], updates so far, as optax names it; tuple.count is hidden
    count: Array  # type: ignore[assignment]


def sgd_update(table: Array, grad: RowGrad, *, learning_rate: Scalar) -> Array:
    """Gradient descent on the rows that ``grad`` names.

    ``w[r] -= learning_rate * g[r]``.

    Args:
      table: ``f32[n, d]``; aliased with the result.
      grad: the row gradient; ids outside ``[0, n)`` are padding.
      learning_rate: a scalar, traced or not.

    Returns:
      ``f32[n, d]``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.
    Reverse-mode differentiable to any order; a gradient allocates like the pure-JAX
    twin, ``f32[b k, d]`` and ``f32[n, d]``.

    Example:
      >>> import jax.numpy as jnp
      >>> grad = row_grad(jnp.array([1, 1]), jnp.ones((2, 2)))
      >>> sgd_update(jnp.zeros((3, 2)), grad, learning_rate=0.5)
      Array([[ 0.,  0.],
             [-1., -1.],
             [ 0.,  0.]], dtype=float32)
    """
    fn = "sgd_update"
    grad, table = _check(fn, grad, table=table)
    hyper = _hyper(fn, learning_rate=learning_rate)
    return _sgd_rows(*grad, hyper, table)[0]


def adagrad_init(table: Array, *, initial: float = 0.0) -> AdagradState:
    """Accumulators of ``initial`` for every element of ``table``.

    Args:
      table: ``f32[n, d]``; only its shape and dtype are used.
      initial: the sum of squares to start with.

    Returns:
      An :class:`AdagradState`, newly allocated: ``4 d`` bytes a row.

    Example:
      >>> import jax.numpy as jnp
      >>> adagrad_init(jnp.ones((1, 2)), initial=0.5).acc
      Array([[0.5, 0.5]], dtype=float32)
    """
    return AdagradState(jnp.full_like(table, initial))


def adagrad_update(
    table: Array,
    state: AdagradState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    eps: float = 1e-8,
) -> tuple[Array, AdagradState]:
    """Adagrad on the rows that ``grad`` names; equal to dense Adagrad.

    ``acc += g**2;  w -= learning_rate * g / (sqrt(acc) + eps)``.

    Args:
      table: ``f32[n, d]``; aliased with the result.
      state: from :func:`adagrad_init`; aliased with the result.
      grad: the row gradient; ids outside ``[0, n)`` are padding.
      learning_rate: a scalar, traced or not.
      eps: added to the denominator.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.
    Reverse-mode differentiable to any order; a gradient allocates like the pure-JAX
    twin, ``f32[b k, d]`` and ``f32[n, d]``.
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.

    Example:
      >>> import jax.numpy as jnp
      >>> table = jnp.zeros((2, 1))
      >>> grad = row_grad(jnp.array([1]), jnp.full((1, 1), 4.0))
      >>> adagrad_update(table, adagrad_init(table), grad, learning_rate=0.5)[0]
      Array([[ 0. ],
             [-0.5]], dtype=float32)
    """
    fn = "adagrad_update"
    _checks.require_type(fn, AdagradState, state=state)
    grad, table, acc = _check(fn, grad, table=table, acc=state.acc)
    hyper = _hyper(fn, learning_rate=learning_rate, eps=eps)
    table, acc = _adagrad_rows(*grad, hyper, table, acc)
    return table, AdagradState(acc)


def adam_init(table: Array) -> AdamState:
    """Zero moments for every element of ``table``.

    Args:
      table: ``f32[n, d]``; only its shape and dtype are used.

    Returns:
      An :class:`AdamState`, newly allocated: ``8 d`` bytes a row.

    Example:
      >>> import jax.numpy as jnp
      >>> adam_init(jnp.ones((1, 2))).mu
      Array([[0., 0.]], dtype=float32)
    """
    mu, nu = jnp.zeros_like(table), jnp.zeros_like(table)
    return AdamState(mu, nu, jnp.zeros((), jnp.int32))


def adam_update(
    table: Array,
    state: AdamState,
    grad: RowGrad,
    *,
    learning_rate: Scalar,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Array, AdamState]:
    """Lazy Adam on the rows that ``grad`` names.

    For each such row, with ``t`` the number of updates of the whole table::

        mu = b1 mu + (1 - b1) g;   nu = b2 nu + (1 - b2) g**2
        w -= learning_rate * (mu / (1 - b1**t)) / (sqrt(nu / (1 - b2**t)) + eps)

    The other rows, their moments too, stay as they are: SLIDE's and BOLT's rule. Dense
    Adam would go on moving them while their moments decay.

    Args:
      table: ``f32[n, d]``; aliased with the result.
      state: from :func:`adam_init`; aliased with the result.
      grad: the row gradient; ids outside ``[0, n)`` are padding.
      learning_rate: a scalar, traced or not.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator.

    Returns:
      The new table and state.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    A NaN or infinite gradient makes its own row non-finite and no other.
    Reverse-mode differentiable to any order; a gradient allocates like the pure-JAX
    twin, ``f32[b k, d]`` and ``f32[n, d]``.
    Kingma and Ba, arXiv 1412.6980.

    Example:
      >>> import jax.numpy as jnp
      >>> table = jnp.zeros((2, 1))
      >>> grad = row_grad(jnp.array([1]), jnp.full((1, 1), 4.0))
      >>> adam_update(table, adam_init(table), grad, learning_rate=0.5)[0]
      Array([[ 0. ],
             [-0.5]], dtype=float32)

    Example:
      >>> table, grad = jnp.zeros((2, 1)), row_grad(jnp.array([1]), jnp.array([[3.0]]))
      >>> adam_update(table, adam_init(table), grad, learning_rate=0.5)[0]
      Array([[ 0. ],
             [-0.5]], dtype=float32)
    """
    fn = "adam_update"
    _checks.require_type(fn, AdamState, state=state)
    grad, table, mu, nu = _check(fn, grad, table=table, mu=state.mu, nu=state.nu)
    count = state.count + 1
    t = count.astype(jnp.float32)
    rates = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    hyper = _hyper(fn, **rates, bias1=1 - b1**t, bias2=1 - b2**t)
    table, mu, nu = _adam_rows(*grad, hyper, table, mu, nu)
    return table, AdamState(mu, nu, count)


# ---- custom calls -------------------------------------------------------------------


def _row_optimizer(name: str, twin: Callable[..., Any], num_tables: int) -> Any:
    """An op ``(ids, scale, x, hyper, *tables) -> tables``, each table aliased.

    Under vmap the tables are stacked, or broadcast if they are not mapped, since each
    of the mapped updates gives a table of its own.
    """

    def batch(size: int, batched: list[bool], *operands: Array) -> tuple[Array, ...]:
        spread = list(map(_batching.spread, [size] * len(operands), batched, operands))
        if batched[3]:  # a learning rate for each: no single call has two
            return jax.lax.map(lambda xs: op(*xs), spread)
        ids, scale, x, _, *tables = spread
        ids = _batching.shift_ids(ids, tables[0].shape[1])
        row_gradient = map(_batching.fold, (ids, scale, x))
        outs = op(*row_gradient, operands[3], *map(_batching.fold, tables))
        return tuple(_batching.unfold(out, size) for out in outs)

    def types(*operands: Array) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in operands[4:]]

    aliases = {4 + i: i for i in range(num_tables)}
    op = define(name, types, twin, batch=batch, aliases=aliases)
    return op


_sgd_rows = _row_optimizer("fsparse_sgd_rows", reference.sgd_rows, 1)
_adagrad_rows = _row_optimizer("fsparse_adagrad_rows", reference.adagrad_rows, 2)
_adam_rows = _row_optimizer("fsparse_adam_rows", reference.adam_rows, 3)


def _hyper(fn: str, **values: Scalar) -> Array:
    scalars = _checks.as_arrays(fn, **values)
    _checks.require_rank(fn, 0, **dict(zip(values, scalars, strict=True)))
    return jnp.stack([v.astype(jnp.float32) for v in scalars])


def _check(fn: str, grad: RowGrad, **tables: Array) -> tuple[Any, ...]:
    """The row gradient and the table and its moments, as arrays that fit together."""
    _checks.require_type(fn, RowGrad, grad=grad)
    arrays = grad._asdict() | tables
    arrays = dict(zip(arrays, _checks.as_arrays(fn, **arrays), strict=True))
    ids, scale, x, table, *_ = arrays.values()
    moments = {name: arrays[name] for name in list(tables)[1:]}
    _checks.require_f32(fn, table=table, scale=scale, x=x, **moments)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 2, table=table, ids=ids, scale=scale, x=x)
    _checks.require_rows_fit(fn, table.shape[0])
    _checks.require(
        fn,
        ids.shape == scale.shape and ids.shape[0] == x.shape[0],
        "ids and scale must have one shape [b, k], and x b rows",
        ids=ids,
        scale=scale,
        x=x,
    )
    _checks.require(
        fn,
        x.shape[1] == table.shape[1],
        "x.shape[1] must equal table.shape[1]",
        x=x,
        table=table,
    )
    for name, moment in moments.items():
        _checks.require(
            fn,
            moment.shape == table.shape,
            f"{name} must have the shape of table; was it made for another table?",
            **{name: moment, "table": table},
        )
    return RowGrad(ids, scale, x), table, *moments.values()
