"""The custom calls of the sampled softmax loss, and their twins.

The loss has a Jacobian with one row for each example, ``delta``. Forward mode takes its
products with a direction (`slope_op`), reverse mode its multiple (`delta_op`): each is
the transpose of the other, and neither is formed before it is wanted. Derivatives of
these two are those of the twins.

``is_active`` is ``bool[b, m]``, or ``bool[1, m]`` if examples share their columns.
``sums: f32[b, 2]`` are what the loss hands on: a shift and ``sum exp(logits - shift)``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching
from fsparse._call import define

Array = jax.Array


def _labels(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Which targets are columns, and how many: at least 1."""
    is_label = (targets >= 0) & (targets < logits.shape[1])
    return is_label, jnp.maximum(jnp.sum(is_label, axis=1, dtype=jnp.float32), 1)


def _at_labels(x: Array, targets: Array, is_label: Array) -> Array:
    """The sum of ``x[i, targets[i]]``."""
    chosen = jnp.take_along_axis(x, jnp.where(is_label, targets, 0), axis=1)
    return jnp.sum(jnp.where(is_label, chosen, 0.0), axis=1)


def _sum_exp(logits: Array, is_active: Array) -> tuple[Array, Array, Array]:
    """``exp(logits - shift)`` of the active columns, its sum, and the shift."""
    masked = jnp.where(is_active, logits, -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.max(masked, axis=1, initial=-jnp.inf))
    shift = jnp.where(jnp.isfinite(peak), peak, 0.0)
    e = jnp.exp(masked - shift[:, None])
    return e, jnp.sum(e, axis=1), shift


def _probabilities(logits: Array, targets: Array, is_active: Array) -> Array:
    """The softmax, 0 for examples without labels."""
    e, total, _ = _sum_exp(logits, is_active)
    has_labels = jnp.any(_labels(logits, targets)[0], axis=1)
    p = e / jnp.where(total == 0, 1.0, total)[:, None]
    return jnp.where(is_active & has_labels[:, None], p, 0.0)


def loss_twin(logits: Array, targets: Array, is_active: Array) -> tuple[Array, Array]:
    """``-mean_l log softmax(logits[i])[targets[i, l]]``, and the sums."""
    is_label, count = _labels(logits, targets)
    _, total, shift = _sum_exp(logits, is_active)
    log_z = jnp.log(total) + shift
    chosen = jnp.take_along_axis(logits, jnp.where(is_label, targets, 0), axis=1)
    each = jnp.where(is_label, log_z[:, None] - chosen, 0.0)
    return jnp.sum(each, axis=1) / count, jnp.stack([shift, total], axis=1)


def slope_twin(
    direction: Array, logits: Array, targets: Array, is_active: Array, sums: Array
) -> tuple[Array]:
    """``delta[i] . direction[i]``."""
    del sums
    is_label, count = _labels(logits, targets)
    p = _probabilities(logits, targets, is_active)
    mean = jnp.sum(jnp.where(is_active, p * direction, 0.0), axis=1)
    return (mean - _at_labels(direction, targets, is_label) / count,)


def delta_twin(
    ct: Array, logits: Array, targets: Array, is_active: Array, sums: Array
) -> tuple[Array]:
    """``ct[i] * delta[i]``: the softmax less each label's share."""
    del sums
    is_label, count = _labels(logits, targets)
    shares = is_label / count[:, None]
    examples = jnp.arange(logits.shape[0])[:, None]
    p = _probabilities(logits, targets, is_active)
    at = jnp.where(is_label, targets, logits.shape[1])
    return (ct[:, None] * p.at[examples, at].add(-shares, mode="drop"),)


def _batch(op: Any, mask_at: int) -> Any:
    """Mapped examples are more examples; columns that all share stay shared."""

    def rule(size: int, batched: list[bool], *operands: Array) -> tuple[Array, ...]:
        mask, is_mapped = operands[mask_at], batched[mask_at]
        spread = list(map(_batching.spread, [size] * len(operands), batched, operands))
        shape = spread[mask_at - 1].shape[:2]  # of targets
        spread[mask_at] = jnp.broadcast_to(spread[mask_at], (*shape, mask.shape[-1]))
        folded = list(map(_batching.fold, spread))
        if mask.shape[0] == 1 and not is_mapped:
            folded[mask_at] = mask
        return tuple(_batching.unfold(y, size) for y in op()(*folded))

    return rule


def _jvp(primals: Any, tangents: Any) -> Any:
    loss, sums = loss_op(*primals)
    if tangents[0] is None:
        return (loss, sums), (None, None)
    (slope,) = slope_op(tangents[0], *primals, sums)
    return (loss, sums), (slope, None)


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


loss_op: Any = define(
    "fsparse_softmax_loss",
    lambda logits, *_: [_f32(logits.shape[0]), _f32(logits.shape[0], 2)],
    loss_twin,
    batch=_batch(lambda: loss_op, 2),
    jvp=_jvp,
)
slope_op: Any = define(
    "fsparse_softmax_slope",
    lambda direction, *_: [_f32(direction.shape[0])],
    slope_twin,
    batch=_batch(lambda: slope_op, 3),
    linear=lambda ct, direction, *rest: delta_op(ct, *rest)[0],
)
delta_op: Any = define(
    "fsparse_softmax_delta",
    lambda ct, logits, *_: [_f32(*logits.shape)],
    delta_twin,
    batch=_batch(lambda: delta_op, 3),
    linear=lambda ct, _, *rest: slope_op(ct, *rest)[0],
)
