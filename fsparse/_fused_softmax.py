"""The softmax loss of shared logits that are never held, and its gradients at once.

    y[g, i, j] = x[g, i] . w[ids[g, j]] + offsets[g, j]
    loss[g, i] = -mean_l log softmax(y[g, i])[targets[g, i, l]]

`loss_op` hands on ``sums: f32[g, b, 2]``, as that of ``_softmax.py`` does. `grads_op`
makes ``y`` anew, a tile at a time, and with ``v`` its cotangent gives::

    z = v w[ids]         rows = v^T x         columns[j] = sum_i v[i, j]

Any derivative but those that `tapped_loss` and a fixed table want is that of the ops
that hold the logits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, _softmax, reference
from fsparse._call import define, vary_together
from fsparse._precision import ALL_PARTS
from fsparse.matmul import gather_op, sampled_op, sum_examples_op

Array = jax.Array


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# ---- the same with logits that are held ---------------------------------------------


def _examples(y: Array, targets: Array, is_active: Array) -> tuple[Array, Array, Array]:
    """All groups as examples of one loss."""
    g, b, m = y.shape
    mask = is_active if g == 1 else jnp.repeat(is_active, b, axis=0)
    return y.reshape(g * b, m), targets.reshape(g * b, targets.shape[2]), mask


def _logits(x: Array, w: Array, ids: Array, offsets: Array, **params: int) -> Array:
    return sampled_op(x, w, ids, **params)[0] + offsets[:, None]


def _held_loss(
    x: Array,
    w: Array,
    ids: Array,
    offsets: Array,
    targets: Array,
    is_active: Array,
    **params: int,
) -> tuple[Array, Array]:
    y = _logits(x, w, ids, offsets, **params)
    loss, sums = _softmax.loss_op(*_examples(y, targets, is_active))
    return loss.reshape(y.shape[:2]), sums.reshape(*y.shape[:2], 2)


def _held_grads(
    ct: Array,
    sums: Array,
    x: Array,
    w: Array,
    ids: Array,
    offsets: Array,
    targets: Array,
    is_active: Array,
    **params: int,
) -> tuple[Array, Array, Array]:
    y = _logits(x, w, ids, offsets, **params)
    rest = _examples(y, targets, is_active)
    (v,) = _softmax.delta_op(ct.ravel(), *rest, sums.reshape(-1, 2))
    v = v.reshape(y.shape)
    (rows,) = sum_examples_op(v, x, **params)
    rows = jnp.where(reference.valid(ids, w.shape[0])[..., None], rows, 0)
    return gather_op(v, w, ids, **params)[0], rows, jnp.sum(v, axis=1)


def _jvp_of(fun: Callable[..., Any], primals: Any, tangents: Any, **params: int) -> Any:
    """The results of ``fun`` and their tangents, for the operands that move."""
    moving = [i for i, t in enumerate(tangents) if t is not None]

    def of_moving(*xs: Array) -> Any:
        args = list(primals)
        for i, x in zip(moving, xs, strict=True):
            args[i] = x
        return fun(*args, **params)

    primal, tangent = (tuple(a[i] for i in moving) for a in (primals, tangents))
    return jax.jvp(of_moving, primal, tangent)


# ---- the ops ------------------------------------------------------------------------


def _batch_loss(
    size: int, batched: list[bool], *operands: Array, **params: int
) -> tuple[Array, ...]:
    """Mapped examples of one set are more of its examples; others are more groups."""
    x, *shared, targets, is_active = operands
    if any(batched[i] for i in (1, 2, 3, 5)):
        return _batch_groups(loss_op, 1, size, batched, *operands, **params)
    x, targets = map(_batching.spread, [size] * 2, batched[::4], (x, targets))
    x, targets = map(_batching.fold_into_examples, (x, targets))
    outs = loss_op(x, *shared, targets, is_active, **params)
    return tuple(_batching.unfold_from_examples(y, size) for y in outs)


def _batch_groups(
    op: Callable[..., Any],
    w_at: int,
    size: int,
    batched: list[bool],
    *operands: Array,
    **params: int,
) -> tuple[Array, ...]:
    """Mapped problems are more groups, of one table or of one for each."""
    w, xs = operands[w_at], list(operands)
    others = [i for i in range(len(xs)) if i != w_at]
    for i in others:
        xs[i] = _batching.spread(size, batched[i], xs[i])
    if batched[w_at]:
        xs[w_at + 1] = _batching.shift_ids(xs[w_at + 1], w.shape[1])
        xs[w_at] = _batching.fold(w)
    for i in others:
        xs[i] = _batching.fold(xs[i])
    return tuple(_batching.unfold(y, size) for y in op(*xs, **params))


def _loss_jvp(primals: Any, tangents: Any, **params: int) -> Any:
    """Where only ``x`` moves, no logits are held for it either."""
    dx, *others = tangents
    if dx is None or any(t is not None for t in others):
        outs, moved = _jvp_of(_held_loss, primals, tangents, **params)
        return outs, (moved[0], None)
    loss, sums = loss_op(*primals, **params)
    operands = vary_together(jnp.ones_like(loss), sums, *primals)
    z, _, _ = grads_op(*operands, **params)
    return (loss, sums), (jnp.sum(z * dx, axis=2), None)


def _grads_jvp(primals: Any, tangents: Any, **params: int) -> Any:
    ct, sums, *others = tangents
    del sums  # they follow from the others
    return _jvp_of(_held_grads, primals, (ct, None, *others), **params)


loss_op: Any = define(
    "fsparse_fused_softmax_loss",
    lambda x, *_, **__: [_f32(*x.shape[:2]), _f32(*x.shape[:2], 2)],
    _held_loss,
    batch=_batch_loss,
    jvp=_loss_jvp,
    attributes={"num_parts": ALL_PARTS},
)
grads_op: Any = define(
    "fsparse_fused_softmax_grads",
    lambda ct, sums, x, w, ids, *_, **__: [
        _f32(*x.shape),
        _f32(*ids.shape, x.shape[2]),
        _f32(*ids.shape),
    ],
    _held_grads,
    batch=lambda *args, **p: _batch_groups(grads_op, 3, *args, **p),
    jvp=_grads_jvp,
    attributes={"num_parts": ALL_PARTS},
)


# ---- for who differentiates in rows -------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tapped_loss(
    num_parts: int, tap: Array, x: Array, w: Array, *rest: Array
) -> tuple[Array, Array]:
    """`loss_op` with rows ``w[ids] + tap``, where the tap is 0.

    Its gradient in the tap is ``rows``. There is none in ``w``, nor of the sums.
    """
    del tap
    loss, sums = loss_op(x, w, *rest, num_parts=num_parts)
    return loss, sums


def _forward(num_parts: int, tap: Array, *operands: Array) -> tuple[Any, Any]:
    del tap
    loss, sums = loss_op(*operands, num_parts=num_parts)
    return (loss, sums), (sums, operands)


def _backward(num_parts: int, known: Any, cts: tuple[Array, Array]) -> Any:
    sums, operands = known
    operands = vary_together(cts[0], sums, *operands)
    z, rows, columns = grads_op(*operands, num_parts=num_parts)
    return rows, z, None, None, columns, None, None


tapped_loss.defvjp(_forward, _backward)
