"""Losses over an active set of neurons."""

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_together

Array = jax.Array


def sampled_softmax_loss(logits: Array, targets: Array, is_active: Array) -> Array:
    """Cross-entropy of each example, with the softmax over the active set only.

    ``loss[i] = -mean_l log softmax(logits[i])[targets[i, l]]``: the labels of an
    example share its probability mass evenly (BOLT's rule for several labels).

    Args:
      logits: ``f32[b, m]`` of the active set.
      targets: ``i32[b, l]`` columns of the labels, which must be active; anything
        outside ``[0, m)`` is padding.
      is_active: ``bool[m]`` or ``bool[b, m]``, false for padding of the active set.

    Returns:
      ``f32[b]`` in nats; 0 for an example without labels.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Values are not checked. A target at an inactive column counts with its logit, which
    the softmax's sum lacks: the loss is then no cross-entropy, and may be negative.
    :func:`fsparse.active_set` gives no such target.

    Nothing aliases. Differentiable to any order in ``logits``; gradients allocate
    ``f32[b, m]``.

    Example:
      >>> logits, targets = jnp.zeros((1, 4)), jnp.array([[2]])
      >>> sampled_softmax_loss(logits, targets, jnp.array([True] * 2 + [True, False]))
      Array([1.0986123], dtype=float32)
    """
    fn = "sampled_softmax_loss"
    logits, targets, is_active = _checked(fn, logits, targets, is_active)
    m = logits.shape[1]
    is_target = (targets >= 0) & (targets < m)
    log_z = jax.nn.logsumexp(jnp.where(is_active, logits, -jnp.inf), axis=1)
    chosen = jnp.take_along_axis(logits, jnp.where(is_target, targets, 0), axis=1)
    total = jnp.sum(jnp.where(is_target, log_z[:, None] - chosen, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(is_target, axis=1, dtype=jnp.float32), 1)


def sampled_sigmoid_loss(logits: Array, targets: Array, is_active: Array) -> Array:
    """Binary cross-entropy of each neuron of an active set: is it a label, or not?

    ``loss[i] = -sum_j log sigmoid(+-logits[i, j])``, plus where column ``j`` is among
    ``targets[i]`` and minus elsewhere: labels are independent, and may be many.

    Args:
      logits: ``f32[b, m]`` of the active set.
      targets: ``i32[b, l]`` columns of the labels, which may repeat; anything outside
        ``[0, m)`` is padding.
      is_active: ``bool[m]`` or ``bool[b, m]``, false for padding of the active set.

    Returns:
      ``f32[b]`` in nats; 0 for an example without labels, as padding examples are.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable to any order in ``logits``; gradients allocate
    ``f32[b, m]``.

    Source: BOLT (arXiv:2303.17727) sums it over the active neurons in this way.

    Example:
      >>> logits, targets = jnp.zeros((1, 4)), jnp.array([[2, 0]])
      >>> sampled_sigmoid_loss(logits, targets, jnp.array([True] * 3 + [False]))
      Array([2.0794415], dtype=float32)
    """
    fn = "sampled_sigmoid_loss"
    logits, targets, is_active = _checked(fn, logits, targets, is_active)
    b, m = logits.shape
    targets = jnp.where((targets >= 0) & (targets < m), targets, m)
    is_target, _ = vary_together(jnp.zeros((b, m), bool), targets)
    is_target = is_target.at[jnp.arange(b)[:, None], targets].set(True, mode="drop")
    counts = is_active & jnp.any(targets < m, axis=1)[:, None]
    wrong = jnp.where(counts, jnp.where(is_target, -logits, logits), 0.0)
    return jnp.sum(jnp.where(counts, jax.nn.softplus(wrong), 0.0), axis=1)


def _checked(
    fn: str, logits: Array, targets: Array, is_active: Array
) -> tuple[Array, ...]:
    logits, targets, is_active = _checks.as_arrays(
        fn, logits=logits, targets=targets, is_active=is_active
    )
    _checks.require_f32(fn, logits=logits)
    _checks.require_ids(fn, targets=targets)
    _checks.require_mask(fn, is_active=is_active)
    _checks.require_rank(fn, 2, logits=logits, targets=targets)
    _checks.require(
        fn,
        targets.shape[0] == logits.shape[0],
        "targets and logits must have a row for each example",
        targets=targets,
        logits=logits,
    )
    _checks.require(
        fn,
        is_active.shape in (logits.shape[1:], logits.shape),
        "is_active must have one entry for each column of logits",
        is_active=is_active,
        logits=logits,
    )
    return logits, targets, is_active
