"""Inference: the best ``k`` neurons of every example, among all or among some.

Products are formed a block at a time in cache, and only scores that beat the ``k``-th
best so far are looked at, so memory does not grow with how many are scored.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, _checks, quantized, reference
from fsparse._call import define
from fsparse.matmul import sampled_matmul
from fsparse.quantized import Int8Rows

Array = jax.Array
Op = Callable[..., tuple[Array, ...]]


def dense_top_k(x: Array, w: Array | Int8Rows, k: int) -> tuple[Array, Array]:
    """The ``k`` largest dot products of each example with the rows of a table.

    The largest of ``x[i] . w[r]`` over ``r``: ``jax.lax.top_k(x @ w.T, k)`` without the
    product.

    Args:
      x: ``f32[b, d]`` examples.
      w: ``f32[n, d]`` or ``bf16[n, d]`` table, or :class:`fsparse.Int8Rows`.
      k: how many, at least 1.

    Returns:
      ``f32[b, k]`` scores in descending order and ``i32[b, k]`` row ids. Equal scores
      rank by id. Where fewer than ``k`` scores are comparable (``k > n``, NaN, -inf)
      the rest are ``-inf`` with id ``n``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree or ``k < 1``.

    Nothing aliases. Memory: a fixed block and ``O(b k)`` for each thread. The scores
    are differentiable to any order in ``x`` and ``w``, whose gradient is dense, of the
    type of ``w``, unless :func:`fsparse.value_and_grad` takes it; the ids are constant.

    **Rows of 8 bits** are scored with examples rounded to 16 bits, by a scale ``s`` of
    ``max |x| / 32767``. But for f32 rounding a score is off by no more than
    ``(|x|_1 w.scale[r] + |w[r]|_1 s) / 2``. Its gradients are those of ``x . w.scale[r]
    w.values[r]``. An example that is not finite finds nothing. For exact scores, and
    the best rows of the table that was rounded, score some more candidates again::

        _, ids = dense_top_k(x, rows, k + 16)
        scores, ids = sampled_top_k(x, w, ids, k)

    Example:
      >>> import jax.numpy as jnp
      >>> scores, ids = dense_top_k(jnp.array([[1., 2.]]), jnp.eye(2), k=1)
      >>> scores, ids
      (Array([[2.]], dtype=float32), Array([[1]], dtype=int32))
    """
    fn = "dense_top_k"
    x, *table = _checked(fn, x, w)
    _checks.require_count(fn, 1, k=k)
    op = top_k_op if len(table) == 1 else int8_top_k_op
    scores, ids = op(x, *table, k=int(k))
    return scores, ids


def sampled_top_k(
    x: Array, w: Array | Int8Rows, ids: Array, k: int
) -> tuple[Array, Array]:
    """The ``k`` largest dot products of each example with rows of its own.

    The largest of ``x[i] . w[ids[i, j]]`` over ``j``: sparse inference, if ``ids`` come
    from :func:`fsparse.lsh.query`.

    Args:
      x: ``f32[b, d]`` examples.
      w: ``f32[n, d]`` or ``bf16[n, d]`` table, or :class:`fsparse.Int8Rows`, whose
        scores are those of :func:`dense_top_k`.
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
    x, *table = _checked(fn, x, w)
    x, *table, ids = _checks.as_arrays(fn, x=x, **_named(table), ids=ids)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 2, ids=ids)
    _checks.require(
        fn,
        ids.shape[0] == x.shape[0],
        "ids must have a row for each example",
        ids=ids,
        x=x,
    )
    _checks.require_count(fn, 1, k=k)
    op = sampled_top_k_op if len(table) == 1 else sampled_int8_top_k_op
    scores, best = op(x, *table, ids, k=int(k))
    return scores, best


def _checked(fn: str, x: Array, w: Array | Int8Rows) -> tuple[Array, ...]:
    """Examples, and the arrays of a table: one, or integers and their scale."""
    if isinstance(w, Int8Rows):
        return _checked_int8(fn, x, w)
    x, w = _checks.as_arrays(fn, x=x, w=w)
    _checks.require_f32(fn, x=x)
    _checks.require_table(fn, w=w)
    _checks.require_rank(fn, 2, x=x, w=w)
    _checks.require(
        fn, w.shape[1] == x.shape[1], "w.shape[1] must equal x.shape[1]", w=w, x=x
    )
    _checks.require_rows_fit(fn, w.shape[0])
    return x, w


def _checked_int8(fn: str, x: Array, w: Int8Rows) -> tuple[Array, ...]:
    x, values, scale = _checks.as_arrays(fn, x=x, **_named([w.values, w.scale]))
    _checks.require_f32(fn, x=x, **{"w.scale": scale})
    _checks.require_int8(fn, **{"w.values": values})
    _checks.require_rank(fn, 2, x=x, **{"w.values": values})
    named = {"w.values": values, "w.scale": scale}
    _checks.require(
        fn,
        scale.shape == values.shape[:1],
        "w.scale must have one number for each row of w.values",
        **named,
    )
    _checks.require(
        fn,
        values.shape[1] == x.shape[1],
        "w.shape[1] must equal x.shape[1]",
        **{"w.values": values, "x": x},
    )
    _checks.require_rows_fit(fn, values.shape[0])
    return x, values, scale


def _named(table: list[Array]) -> dict[str, Array]:
    """The arrays of a table by what a message calls them."""
    names = ("w",) if len(table) == 1 else ("w.values", "w.scale")
    return dict(zip(names, table, strict=True))


# ---- the ops ------------------------------------------------------------------------


def _batch(
    op: Op, size: int, batched: list[bool], *operands: Array, k: int
) -> tuple[Array, ...]:
    if any(batched[1:]):  # other tables, other searches
        every = tuple(
            _batching.spread(size, on, x)
            for on, x in zip(batched, operands, strict=True)
        )
        return jax.lax.map(lambda xs: op(*xs, k=k), every)
    outs = op(_batching.fold(operands[0]), *operands[1:], k=k)
    return tuple(_batching.unfold(y, size) for y in outs)


def _sampled_batch(
    op: Op, size: int, batched: list[bool], x: Array, *others: Array, k: int
) -> tuple[Array, ...]:
    """Examples with ids of their own: a mapped table is a longer one."""
    *table, ids = others
    is_mapped = any(batched[1:-1])
    x = _batching.spread(size, batched[0], x)
    ids = _batching.spread(size, batched[-1], ids)
    n = table[0].shape[-2]
    if is_mapped:
        spread = map(partial(_batching.spread, size), batched[1:-1], table)
        table = [_batching.fold(t) for t in spread]
        ids = _batching.shift_ids(ids, n)
    outs = op(_batching.fold(x), *table, _batching.fold(ids), k=k)
    scores, best = (_batching.unfold(y, size) for y in outs)
    if is_mapped:
        best = jnp.where(best < size * n, best % max(n, 1), n)
    return scores, best


def _jvp_of(op: Op, primals: Any, tangents: Any, *, k: int) -> Any:
    """The scores are products of the rows found; the ids do not move."""
    (x, w, *_), (dx, dw, *_) = primals, tangents
    scores, ids = op(*primals, k=k)
    moved = [sampled_matmul(dx, w, ids)] if dx is not None else []
    moved += [sampled_matmul(x, dw, ids)] if dw is not None else []
    return (scores, ids), (sum(moved[1:], moved[0]), None)


def _int8_jvp_of(op: Op, primals: Any, tangents: Any, *, k: int) -> Any:
    """As if the examples were not rounded."""
    (x, values, scale, *_), (dx, _, dscale, *_) = primals, tangents
    scores, ids = op(*primals, k=k)
    products = quantized.products
    moved = [products(dx, values, scale, ids)] if dx is not None else []
    seen = quantized.as_scored(x)
    moved += [products(seen, values, dscale, ids)] if dscale is not None else []
    return (scores, ids), (sum(moved[1:], moved[0]) if moved else None, None)


def _types(x: Array, *_: Array, k: int) -> list[jax.ShapeDtypeStruct]:
    shape = (x.shape[0], k)
    return [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, jnp.int32)]


def _define(name: str, twin: Op, batch: Any, jvp: Any) -> Op:
    op: Op = define(
        name,
        _types,
        twin,
        batch=lambda *args, **params: batch(op, *args, **params),
        jvp=lambda *args, **params: jvp(op, *args, **params),
    )
    return op


top_k_op = _define("fsparse_dense_top_k", reference.dense_top_k, _batch, _jvp_of)
sampled_top_k_op = _define(
    "fsparse_sampled_top_k", reference.sampled_top_k, _sampled_batch, _jvp_of
)
int8_top_k_op = _define("fsparse_int8_top_k", quantized.top_k, _batch, _int8_jvp_of)
sampled_int8_top_k_op = _define(
    "fsparse_sampled_int8_top_k",
    quantized.sampled_top_k,
    _sampled_batch,
    _int8_jvp_of,
)
