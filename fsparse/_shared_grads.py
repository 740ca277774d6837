"""Both gradients of logits over a shared active set, by one visit of their cotangent.

    y[g, i, j] = x[g, i] . w[ids[g, j]]        with the cotangent v of y:
    z[g, i]    = sum_j v[g, i, j] w[ids[g, j]]      the gradient of x
    rows[g, j] = sum_i v[g, i, j] x[g, i]           the gradients of the rows

Each alone is a product of fsparse.matmul. Together they read v, the largest of the
arrays, once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from fsparse import _batching, reference
from fsparse._call import define, vary_together
from fsparse._precision import ALL_PARTS
from fsparse.matmul import gather_op, sampled_op, sum_examples_op

Array = jax.Array


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _types(v: Any, x: Any, w: Any, ids: Any, **_: int) -> list[jax.ShapeDtypeStruct]:
    del v, w
    return [_f32(*x.shape), _f32(*ids.shape, x.shape[2])]


def _twin(
    v: Array, x: Array, w: Array, ids: Array, **params: int
) -> tuple[Array, Array]:
    (z,) = reference.gather_matmul(v, w, ids, **params)
    (rows,) = reference.sum_examples(v, x, **params)
    return z, jnp.where(reference.valid(ids, w.shape[0])[..., None], rows, 0)


def _batch(
    size: int, batched: list[bool], *operands: Array, **params: int
) -> tuple[Array, ...]:
    """Mapped products are more groups, of one table or of one for each."""
    v, x, w, ids = operands
    v, x, ids = map(
        _batching.spread, [size] * 3, [*batched[:2], batched[3]], (v, x, ids)
    )
    if batched[2]:
        ids, w = _batching.shift_ids(ids, w.shape[1]), _batching.fold(w)
    v, x, ids = map(_batching.fold, (v, x, ids))
    outs = grads_op(v, x, w, ids, **params)
    return tuple(_batching.unfold(y, size) for y in outs)


def _jvp(primals: Any, tangents: Any, **params: int) -> Any:
    """The product rule, of ops that are linear in what moves."""
    (v, x, w, ids), (dv, dx, dw, _) = primals, tangents
    is_row = reference.valid(ids, w.shape[0])[..., None]
    of_z, of_rows = ((dv, w), (v, dw)), ((dv, x), (v, dx))
    moved = lambda pairs: [ab for ab in pairs if not any(a is None for a in ab)]  # noqa: E731
    dz = [gather_op(a, b, ids, **params)[0] for a, b in moved(of_z)]
    drows = [
        jnp.where(is_row, sum_examples_op(a, b, **params)[0], 0)
        for a, b in moved(of_rows)
    ]
    return grads_op(*primals, **params), (_sum(dz), _sum(drows))


def _sum(terms: list[Array]) -> Array | None:
    return sum(terms[1:], terms[0]) if terms else None


grads_op: Callable[..., Any] = define(
    "fsparse_sampled_grads",
    _types,
    _twin,
    batch=_batch,
    jvp=_jvp,
    attributes={"num_parts": ALL_PARTS},
)


# ---- the same for who differentiates ------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def tapped_matmul(
    x: Array, tap: Array, w: Array, ids: Array, num_parts: int = ALL_PARTS
) -> Array:
    """``y[g, i, j] = x[g, i] . (w[ids[g, j]] + tap[g, j])``, where the tap is 0.

    Its gradient in the tap is ``rows``. There is none in ``w``.
    """
    del tap
    return sampled_op(x, w, ids, num_parts=num_parts)[0]


def _forward(x: Any, tap: Any, w: Any, ids: Any, num_parts: int) -> tuple[Array, Any]:
    """Remembers the table if the gradient of ``x`` is wanted, too."""
    del tap
    (y,) = sampled_op(x.value, w.value, ids.value, num_parts=num_parts)
    return y, (x.value, w.value if x.perturbed else None, ids.value)


def _backward(num_parts: int, known: tuple[Array, Array | None, Array], v: Any) -> Any:
    x, w, ids = known
    if isinstance(v, SymbolicZero):
        v = jnp.zeros(v.shape, v.dtype)
    if w is None:
        (rows,) = sum_examples_op(*vary_together(v, x), num_parts=num_parts)
        return None, rows, None, None
    operands = vary_together(v, x, w, ids)
    z, rows = grads_op(*operands, num_parts=num_parts)
    return z, rows, None, None


tapped_matmul.defvjp(_forward, _backward, symbolic_zeros=True)
