"""Inference: the best ``k`` neurons of every example, among all or among some.

Products are formed a block at a time in cache, and only scores that beat the ``k``-th
best so far are looked at, so memory does not grow with how many are scored.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, _checks, reference
from fsparse._call import define
from fsparse.matmul import sampled_matmul

Array = jax.Array
Op = Callable[..., tuple[Array, ...]]


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


def sampled_top_k(x: Array, w: Array, ids: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest dot products of each example with rows of its own.

    The largest of ``x[i] . w[ids[i, j]]`` over ``j``: sparse inference, if ``ids`` come
    from :func:`fsparse.lsh.query`.

    Args:
      x: ``f32[b, d]`` examples.
      w: ``f32[n, d]`` or ``bf16[n, d]`` table.
      ids: ``i32[b, m]`` candidates, distinct in each row (one that is there twice may
        be found twice); ids outside ``[0, n)`` are padding.
      k: how many, at least 1.

    Returns:
      ``f32[b, k]`` scores in descending order and ``i32[b, k]`` row ids. Equal scores
      rank as in ``ids``. Where fewer than ``k`` scores are comparable (padding, NaN,
      -inf) the rest are ``-inf`` with id ``n``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree or ``k < 1``.

    Nothing aliases. Memory: ``O(b k)`` beside a block for each thread. The scores are
    differentiable in ``x`` and ``w`` as those of :func:`dense_top_k`.

    Example:
      >>> import jax.numpy as jnp
      >>> x, ids = jnp.array([[1., 2., 3.]]), jnp.array([[0, 1]])
      >>> scores, best = sampled_top_k(x, jnp.eye(3), ids, k=1)
      >>> scores, best
      (Array([[2.]], dtype=float32), Array([[1]], dtype=int32))
    """
    fn = "sampled_top_k"
    x, w, ids = _checks.as_arrays(fn, x=x, w=w, ids=ids)
    _checks.require_f32(fn, x=x)
    _checks.require_table(fn, w=w)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 2, x=x, w=w, ids=ids)
    _checks.require(
        fn, w.shape[1] == x.shape[1], "w.shape[1] must equal x.shape[1]", w=w, x=x
    )
    _checks.require(
        fn,
        ids.shape[0] == x.shape[0],
        "ids must have a row for each example",
        ids=ids,
        x=x,
    )
    _checks.require_rows_fit(fn, w.shape[0])
    _checks.require_count(fn, 1, k=k)
    scores, best = sampled_top_k_op(x, w, ids, k=int(k))
    return scores, best


# ---- the ops ------------------------------------------------------------------------


def _batch(
    size: int, batched: list[bool], x: Array, w: Array, *, k: int
) -> tuple[Array, ...]:
    if batched[1]:  # other tables, other searches
        x = _batching.spread(size, batched[0], x)
        return jax.lax.map(lambda xw: top_k_op(*xw, k=k), (x, w))
    outs = top_k_op(_batching.fold(x), w, k=k)
    return tuple(_batching.unfold(y, size) for y in outs)


def _sampled_batch(
    size: int, batched: list[bool], x: Array, w: Array, ids: Array, *, k: int
) -> tuple[Array, ...]:
    """Examples with ids of their own: a mapped table is a longer one."""
    x = _batching.spread(size, batched[0], x)
    ids = _batching.spread(size, batched[2], ids)
    n = w.shape[-2]
    if batched[1]:
        w, ids = _batching.fold(w), _batching.shift_ids(ids, n)
    outs = sampled_top_k_op(_batching.fold(x), w, _batching.fold(ids), k=k)
    scores, best = (_batching.unfold(y, size) for y in outs)
    if batched[1]:
        best = jnp.where(best < size * n, best % max(n, 1), n)
    return scores, best


def _jvp_of(op: Op, primals: Any, tangents: Any, *, k: int) -> Any:
    """The scores are products of the rows found; the ids do not move."""
    (x, w, *_), (dx, dw, *_) = primals, tangents
    scores, ids = op(*primals, k=k)
    moved = [sampled_matmul(dx, w, ids)] if dx is not None else []
    moved += [sampled_matmul(x, dw, ids)] if dw is not None else []
    return (scores, ids), (sum(moved[1:], moved[0]), None)


def _types(x: Array, *_: Array, k: int) -> list[jax.ShapeDtypeStruct]:
    shape = (x.shape[0], k)
    return [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, jnp.int32)]


top_k_op: Op = define(
    "fsparse_dense_top_k",
    _types,
    reference.dense_top_k,
    batch=_batch,
    jvp=lambda *args, **params: _jvp_of(top_k_op, *args, **params),
)
sampled_top_k_op: Op = define(
    "fsparse_sampled_top_k",
    _types,
    reference.sampled_top_k,
    batch=_sampled_batch,
    jvp=lambda *args, **params: _jvp_of(sampled_top_k_op, *args, **params),
)
