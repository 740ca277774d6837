"""Dense inference: the best ``k`` neurons of every example, by an exact search.

The product ``x @ w.T`` is formed a block at a time in cache, and only scores that beat
the ``k``-th best so far are looked at, so memory does not grow with ``n``.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from fsparse import _batching, _checks, reference
from fsparse._call import custom_call
from fsparse.matmul import sampled_matmul

Array = jax.Array


def dense_top_k(x: Array, w: Array, k: int) -> tuple[Array, Array]:
    """The ``k`` largest dot products of each example with the rows of a table.

    The largest of ``x[i] . w[r]`` over ``r``: ``jax.lax.top_k(x @ w.T, k)`` without the
    product.

    Args:
      x: ``f32[b, d]`` examples.
      w: ``f32[n, d]`` table.
      k: how many, at least 1.

    Returns:
      ``f32[b, k]`` scores in descending order and ``i32[b, k]`` row ids. Equal scores
      rank by id. Where fewer than ``k`` scores are comparable (``k > n``, NaN, -inf)
      the rest are ``-inf`` with id ``n``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree or ``k < 1``.

    Nothing aliases. Memory: a fixed block for each thread and ``O(b k)``. The scores
    are reverse-mode differentiable to any order in ``x`` and ``w``, whose gradient is
    dense, ``f32[n, d]``; the ids are constant.

    Example:
      >>> import jax.numpy as jnp
      >>> scores, ids = dense_top_k(jnp.array([[1., 2.]]), jnp.eye(2), k=1)
      >>> scores, ids
      (Array([[2.]], dtype=float32), Array([[1]], dtype=int32))
    """
    fn = "dense_top_k"
    x, w = _checks.as_arrays(fn, x=x, w=w)
    _checks.require_f32(fn, x=x, w=w)
    _checks.require_rank(fn, 2, x=x, w=w)
    _checks.require(
        fn, w.shape[1] == x.shape[1], "w.shape[1] must equal x.shape[1]", w=w, x=x
    )
    _checks.require_rows_fit(fn, w.shape[0])
    _checks.require_count(fn, 1, k=k)
    return _top_k(int(k))(x, w)


@cache
def _top_k(k: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    @jax.custom_vjp
    def top_k(x: Array, w: Array) -> tuple[Array, Array]:
        return _top_k_call(k)(x, w)

    def fwd(x: Array, w: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        scores, ids = top_k(x, w)
        return (scores, ids), (x, w, ids)

    def bwd(res: tuple[Array, ...], ct: tuple[Array, Array]) -> tuple[Array, Array]:
        x, w, ids = res
        return jax.vjp(lambda x, w: sampled_matmul(x, w, ids), x, w)[1](ct[0])

    top_k.defvjp(fwd, bwd)
    return top_k


@cache
def _top_k_call(k: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    def twin(x: Array, w: Array) -> tuple[Array, Array]:
        return reference.dense_top_k(x, w, k)

    @custom_vmap
    def call(x: Array, w: Array) -> tuple[Array, Array]:
        shape = (x.shape[0], k)
        out = [
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct(shape, jnp.int32),
        ]
        return custom_call("fsparse_dense_top_k", out, twin, x, w)

    @call.def_vmap
    def _(
        size: int, batched: list[bool], x: Array, w: Array
    ) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
        if batched[1]:  # other tables, other searches
            x = _batching.spread(size, batched[0], x)
            return jax.lax.map(lambda xw: call(*xw), (x, w)), (True, True)
        scores, ids = call(_batching.fold(x), w)
        return (
            _batching.unfold(scores, size),
            _batching.unfold(ids, size),
        ), (True, True)

    return call
