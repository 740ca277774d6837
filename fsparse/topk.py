"""Dense inference: the best ``k`` neurons of every example, by an exact search.

The product ``x @ w.T`` is formed a block at a time in cache, and only scores that beat
the ``k``-th best so far are looked at, so memory does not grow with ``n``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, _checks, reference
from fsparse._call import define
from fsparse.matmul import sampled_matmul

Array = jax.Array


def dense_top_k(x: Array, w: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest dot products of each example with the rows of a table.

    The largest of ``x[i] . w[r]`` over ``r``: ``jax.lax.top_k(x @ w.T, k)`` without the
    product.

    Args:
      x: ``f32[b, d]`` examples.
      w: ``f32[n, d]`` or ``bf16[n, d]`` table.
      k: how many, at least 1.

    Returns:
      ``f32[b, k]`` scores in descending order and ``i32[b, k]`` row ids. Equal scores
      rank by id. Where fewer than ``k`` scores are comparable (``k > n``, NaN, -inf)
      the rest are ``-inf`` with id ``n``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree or ``k < 1``.

    Nothing aliases. Memory: a fixed block for each thread and ``O(b k)``. The scores
    are differentiable to any order in ``x`` and ``w``, whose gradient is dense, of the
    type of ``w``, unless :func:`fsparse.value_and_grad` takes it; the ids are constant.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, ids = dense_top_k(jnp.array([[1., 2.]]), jnp.eye(2), k=1)
      >>> scores, ids
      (Array([[2.]], dtype=float32), Array([[1]], dtype=int32))
    """
    fn = "dense_top_k"
    x, w = _checks.as_arrays(fn, x=x, w=w)
    _checks.require_f32(fn, x=x)
    _checks.require_table(fn, w=w)
    _checks.require_rank(fn, 2, x=x, w=w)
    _checks.require(
        fn, w.shape[1] == x.shape[1], "w.shape[1] must equal x.shape[1]", w=w, x=x
    )
    _checks.require_rows_fit(fn, w.shape[0])
    _checks.require_count(fn, 1, k=k)
    scores, ids = top_k_op(x, w, k=int(k))
    return scores, ids


def _batch(
    size: int, batched: list[bool], x: Array, w: Array, *, k: int
) -> tuple[Array, ...]:
    if batched[1]:  # other tables, other searches
        x = _batching.spread(size, batched[0], x)
        return jax.lax.map(lambda xw: top_k_op(*xw, k=k), (x, w))
    outs = top_k_op(_batching.fold(x), w, k=k)
    return tuple(_batching.unfold(y, size) for y in outs)


def _jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any], *, k: int) -> Any:
    """The scores are products of the rows found; the ids do not move."""
    (x, w), (dx, dw) = primals, tangents
    scores, ids = top_k_op(x, w, k=k)
    moved = [sampled_matmul(dx, w, ids)] if dx is not None else []
    moved += [sampled_matmul(x, dw, ids)] if dw is not None else []
    return (scores, ids), (sum(moved[1:], moved[0]), None)


def _types(x: Array, w: Array, *, k: int) -> list[jax.ShapeDtypeStruct]:
    shape = (x.shape[0], k)
    return [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, jnp.int32)]


top_k_op = define(
    "fsparse_dense_top_k", _types, reference.dense_top_k, batch=_batch, jvp=_jvp
)
