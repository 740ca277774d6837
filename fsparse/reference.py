"""The pure-JAX twin of every custom call: specification, oracle, fallback.

Each twin takes and returns what the C++ handler of the same name does. In the matmul
family ``g`` counts independent products (the batch, when active sets are per example
and ``b == 1``) and ``b`` the examples that share one set of ids. An id outside
``[0, n)`` marks padding: it selects a row of zeros and receives nothing.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def valid(ids: Array, num_rows: int) -> Array:
    """Which ids name a row: ``bool`` of the shape of ``ids``."""
    return (ids >= 0) & (ids < num_rows)


def take_rows(w: Array, ids: Array) -> Array:
    """``w[ids]`` as f32 with zeros for padding: ``f32[..., d]``."""
    if w.shape[0] == 0:
        return jnp.zeros((*ids.shape, w.shape[1]), jnp.float32)
    safe = jnp.where(valid(ids, w.shape[0]), ids, 0)
    return jnp.where(valid(ids, w.shape[0])[..., None], w[safe].astype(jnp.float32), 0)


def sampled_matmul(x: Array, w: Array, ids: Array) -> tuple[Array]:
    """``y[g, i, j] = x[g, i] . w[ids[g, j]]``: ``f32[g, b, m]``."""
    y = jnp.einsum("gbd,gmd->gbm", x, take_rows(w, ids), precision="highest")
    return (jnp.where(valid(ids, w.shape[0])[:, None, :], y, 0),)


def gather_matmul(v: Array, w: Array, ids: Array) -> tuple[Array]:
    """``z[g, i] = sum_j v[g, i, j] w[ids[g, j]]``: ``f32[g, b, d]``."""
    v = jnp.where(valid(ids, w.shape[0])[:, None, :], v, 0)
    return (jnp.einsum("gbm,gmd->gbd", v, take_rows(w, ids), precision="highest"),)


def num_products(v: Array) -> int:
    """Rows of scratch that the handler of `scatter_outer` wants: see matmul_ffi.cc."""
    g, b, m = v.shape
    return 0 if b == 1 else g * m


def scatter_outer(v: Array, x: Array, ids: Array, num_rows: int) -> tuple[Array, Array]:
    """``out[ids[g, j]] += sum_i v[g, i, j] x[g, i]``: ``f32[num_rows, d]``, scratch."""
    rows = jnp.einsum("gbm,gbd->gmd", v, x, precision="highest")
    safe = jnp.where(valid(ids, num_rows), ids, num_rows)
    out = jnp.zeros((num_rows, x.shape[-1]), x.dtype)
    scratch = jnp.zeros((num_products(v), x.shape[-1]), x.dtype)
    return out.at[safe].add(rows, mode="drop"), scratch


def coalesce(ids: Array, scale: Array, x: Array, num_rows: int) -> tuple[Array, Array]:
    """Sums a factored row gradient by row.

    Returns:
      ``i32[b * k]`` distinct row ids in rising order, padded with ``num_rows``, and
      ``f32[b * k, d]`` the gradients of those rows.
    """
    is_row = valid(ids, num_rows)
    flat = jnp.where(is_row, ids, num_rows).ravel()
    rows, inverse = jnp.unique(
        flat, size=flat.size, fill_value=num_rows, return_inverse=True
    )
    scale = jnp.where(is_row, scale, 0)
    outer = (scale[:, :, None] * x[:, None, :]).reshape(flat.size, x.shape[-1])
    summed = jnp.zeros_like(outer).at[inverse.ravel()].add(outer)
    return rows, summed


def sqrt(x: Array) -> Array:
    """The square root, with derivative 0 at 0.

    So ``g / (sqrt(g**2) + eps)`` has its derivative ``1 / eps`` at ``g == 0``, where
    the chain rule alone finds ``inf * 0``.
    """
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


def sgd_rows(
    ids: Array, scale: Array, x: Array, hyper: Array, table: Array
) -> tuple[Array]:
    """``w -= learning_rate * g`` for the rows named."""
    rows, g = coalesce(ids, scale, x, table.shape[0])
    return (table.at[rows].add(-hyper[0] * g, mode="drop"),)


def adagrad_rows(
    ids: Array, scale: Array, x: Array, hyper: Array, table: Array, acc: Array
) -> tuple[Array, Array]:
    """``acc += g**2; w -= learning_rate * g / (sqrt(acc) + eps)``."""
    rows, g = coalesce(ids, scale, x, table.shape[0])
    learning_rate, eps = hyper
    new_acc = take_rows(acc, rows) + g**2
    step = learning_rate * g / (sqrt(new_acc) + eps)
    return (
        table.at[rows].add(-step, mode="drop"),
        acc.at[rows].set(new_acc, mode="drop"),
    )


def adam_rows(
    ids: Array,
    scale: Array,
    x: Array,
    hyper: Array,
    table: Array,
    mu: Array,
    nu: Array,
) -> tuple[Array, Array, Array]:
    """Adam on the rows named, with bias corrections given in ``hyper``."""
    rows, g = coalesce(ids, scale, x, table.shape[0])
    learning_rate, b1, b2, eps, bias1, bias2 = hyper
    new_mu = b1 * take_rows(mu, rows) + (1 - b1) * g
    new_nu = b2 * take_rows(nu, rows) + (1 - b2) * g**2
    step = learning_rate * (new_mu / bias1) / (sqrt(new_nu / bias2) + eps)
    return (
        table.at[rows].add(-step, mode="drop"),
        mu.at[rows].set(new_mu, mode="drop"),
        nu.at[rows].set(new_nu, mode="drop"),
    )


def dense_top_k(x: Array, w: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest ``x @ w.T`` of each row and their ids, best first.

    Where fewer than ``k`` scores are comparable (``k > n``, NaN, -inf), the rest are
    ``-inf`` with id ``n``.
    """
    n = w.shape[0]
    scores = jnp.matmul(x, w.T.astype(jnp.float32), precision="highest")
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    scores = jnp.pad(scores, ((0, 0), (0, k)), constant_values=-jnp.inf)
    best, ids = jax.lax.top_k(scores, k)
    return best, jnp.where(jnp.isneginf(best), n, ids).astype(jnp.int32)
