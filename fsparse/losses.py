"""Losses over an active set of neurons."""

import jax
import jax.numpy as jnp

from fsparse import _checks, _fused_softmax, _softmax
from fsparse._call import vary_together
from fsparse._precision import num_parts

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
    ``f32[b, m]``. On CPU exp is a polynomial, right within 2 units in the last place,
    and 0 below ``exp(-86.9)``.

    Example:
      >>> logits, targets = jnp.zeros((1, 4)), jnp.array([[2]])
      >>> sampled_softmax_loss(logits, targets, jnp.array([True] * 2 + [True, False]))
      Array([1.0986123], dtype=float32)
    """
    fn = "sampled_softmax_loss"
    logits, targets, is_active = _checked(fn, logits, targets, is_active)
    if is_active.ndim == 1:
        is_active = is_active[None]
    return _softmax.loss_op(*vary_together(logits, targets, is_active))[0]


def fused_softmax_loss(
    x: Array,
    w: Array,
    ids: Array,
    targets: Array,
    is_active: Array,
    offsets: Array | None = None,
) -> Array:
    """:func:`sampled_softmax_loss` of logits that are never held: for large batches.

    ``loss[i]`` is that of ``y[i, j] = x[i] . w[ids[j]] + offsets[j]``, which is made a
    tile at a time, and once more for the gradients. That is a third more products than
    the two functions need, and no memory for ``y`` and its gradient: faster once these
    outgrow the caches, from some 4 million logits on.

    Args:
      x: ``f32[b, d]`` inputs.
      w: ``f32[n, d]`` or ``bf16[n, d]`` weights, a row for each neuron.
      ids: ``i32[m]`` active rows, shared by all examples; padding has logit
        ``offsets[j]``.
      targets: ``i32[b, l]`` columns of the labels, which must be active; anything
        outside ``[0, m)`` is padding.
      is_active: ``bool[m]``, false for padding of the active set.
      offsets: ``f32[m]`` added to each example's logits, such as a bias or
        ``-log q``; by default 0.

    Returns:
      ``f32[b]`` in nats; 0 for an example without labels.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Values are not checked, as there. Differentiable to any order in
    ``x``, ``w`` and ``offsets``. Gradients of :func:`fsparse.value_and_grad` in a
    Table, and those of JAX in ``x`` alone, hold no logits: they allocate their own
    shapes, and for threads' parts of them up to 32 MB, or 7 ``f32[b, d]`` if that is
    more, and a few ``f32[m, d]``. Others, and higher ones, hold ``f32[b, m]``. Products
    are as precise as those of :func:`sampled_matmul`.

    Source: losses fused with the last layer, as in Wijmans et al., Cut Your Losses in
    Large-Vocabulary Language Models (arXiv:2411.09009), here over an active set.

    Example:
      >>> x, w, ids = jnp.zeros((1, 2)), jnp.ones((9, 2)), jnp.array([0, 4, 7])
      >>> fused_softmax_loss(x, w, ids, jnp.array([[1]]), jnp.array([True] * 3))
      Array([1.0986123], dtype=float32)
    """
    if offsets is None:
        offsets = jnp.zeros(jnp.shape(ids), jnp.float32)
    x, w, *shared = _checked_product(x, w, ids, offsets, targets, is_active)
    operands = x[None], w, *(a[None] for a in shared)
    return _fused_softmax.loss_op(*operands, num_parts=num_parts())[0][0]


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


def _checked_product(
    x: Array, w: Array, ids: Array, offsets: Array, targets: Array, is_active: Array
) -> tuple[Array, ...]:
    """The operands of the fused loss."""
    fn = "fused_softmax_loss"
    x, w, ids, offsets, targets, is_active = _checks.as_arrays(
        fn, x=x, w=w, ids=ids, offsets=offsets, targets=targets, is_active=is_active
    )
    _checks.require_table(fn, w=w)
    _checks.require_f32(fn, x=x, offsets=offsets)
    _checks.require_ids(fn, ids=ids, targets=targets)
    _checks.require_mask(fn, is_active=is_active)
    _checks.require_rank(fn, 2, x=x, w=w, targets=targets)
    _checks.require_rank(fn, 1, ids=ids, offsets=offsets)
    _checks.require_rows_fit(fn, w.shape[0])
    _checks.require(
        fn, w.shape[1] == x.shape[1], "w.shape[1] must equal x.shape[1]", w=w, x=x
    )
    _checks.require(
        fn,
        targets.shape[0] == x.shape[0],
        "targets and x must have a row for each example",
        targets=targets,
        x=x,
    )
    for name, a in {"offsets": offsets, "is_active": is_active}.items():
        _checks.require(
            fn,
            a.shape == ids.shape,
            f"{name} must have one entry for each of ids",
            **{name: a},
            ids=ids,
        )
    return x, w, ids, offsets, targets, is_active
