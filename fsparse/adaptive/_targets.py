"""Targets: how far an example would move the model, from what a step computed anyway.

The variance of a weighted gradient is least if examples are chosen in proportion to the
norms of their gradients. That of the gradient in the last layer's logits is at hand,
and bounds the norm in all parameters up to a constant of the network: Katharopoulos and
Fleuret, "Not all samples are created equal", ICML 2018, section 3.3.
"""

import jax
import jax.numpy as jnp

from fsparse import _checks

Array = jax.Array


def softmax_gradient_norm(logits: Array, labels: Array) -> Array:
    """Norm of the gradient of the cross-entropy in the logits.

    ``||softmax(logits[i]) - onehot(labels[i])||_2``, between 0 and ``sqrt(2)``.

    Args:
      logits: ``f32[b, c]``.
      labels: ``i32[b]``; anything outside ``[0, c)`` is no label.

    Returns:
      ``f32[b]``; 0 for an example without a label, NaN where a logit is NaN.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Gradients are those of a constant.

    Example:
      >>> softmax_gradient_norm(jnp.zeros((1, 2)), jnp.array([0]))
      Array([0.70710677], dtype=float32)
    """
    fn = "adaptive.softmax_gradient_norm"
    logits, labels = _checks.as_arrays(fn, logits=logits, labels=labels)
    _checks.require_rank(fn, 2, logits=logits)
    _checks.require_rank(fn, 1, labels=labels)
    _checks.require(
        fn,
        labels.shape == logits.shape[:1],
        "labels must have one for each row of logits",
        logits=logits,
        labels=labels,
    )
    is_active = jnp.ones(logits.shape, bool)
    return _norm(fn, logits, labels[:, None], is_active)


def sampled_softmax_gradient_norm(
    logits: Array, targets: Array, is_active: Array
) -> Array:
    """Norm of the gradient of :func:`fsparse.sampled_softmax_loss` in its logits.

    ``||softmax(logits[i]) - mean_l onehot(targets[i, l])||_2`` over the active columns.

    Args:
      logits: ``f32[b, m]`` of the active set.
      targets: ``i32[b, l]`` columns of the labels; anything outside ``[0, m)`` is
        padding.
      is_active: ``bool[m]`` or ``bool[b, m]``, false for padding of the active set.

    Returns:
      ``f32[b]``; 0 for an example without labels or without active columns, NaN where
      an active logit is NaN.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Gradients are those of a constant.

    Example:
      >>> is_active = jnp.array([True, True, False])
      >>> sampled_softmax_gradient_norm(jnp.zeros((1, 3)), jnp.array([[0]]), is_active)
      Array([0.70710677], dtype=float32)
    """
    fn = "adaptive.sampled_softmax_gradient_norm"
    logits, targets, is_active = _checks.as_arrays(
        fn, logits=logits, targets=targets, is_active=is_active
    )
    return _norm(fn, logits, targets, is_active)


def binary_gradient_norm(logits: Array, labels: Array) -> Array:
    """Norm of the gradient of the logistic loss in the logit.

    ``|sigmoid(logits[i]) - labels[i]|``.

    Args:
      logits: ``f32[b]``.
      labels: ``f32[b]`` probabilities of class 1, such as 0 and 1.

    Returns:
      ``f32[b]``, NaN where an argument is NaN. For labels of 0 and 1, small norms have
      the relative precision of large ones.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Gradients are those of a constant.

    Example:
      >>> binary_gradient_norm(jnp.zeros(2), jnp.array([0.0, 1.0]))
      Array([0.5, 0.5], dtype=float32)
    """
    fn = "adaptive.binary_gradient_norm"
    logits, labels = _pair(fn, logits=logits, labels=labels)
    up, down = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    return jnp.abs((1 - labels) * up - labels * down)


def excess_loss(loss: Array, irreducible: Array) -> Array:
    """What training can still take from a loss: ``max(loss - irreducible, 0)``.

    Args:
      loss: ``f32[b]`` of the model that is trained.
      irreducible: ``f32[b]`` of a model that was trained on other examples: what is
        left there is noise.

    Returns:
      ``f32[b]``, NaN where an argument is NaN.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Gradients are those of a constant. Mindermann et al., "Prioritized
    training on points that are learnable, worth learning, and not yet learnt", ICML
    2022, where negative values count, too.

    Example:
      >>> excess_loss(jnp.array([2.0, 1.0]), jnp.array([0.5, 3.0]))
      Array([1.5, 0. ], dtype=float32)
    """
    fn = "adaptive.excess_loss"
    loss, irreducible = _pair(fn, loss=loss, irreducible=irreducible)
    return jnp.maximum(loss - irreducible, 0)


def _pair(fn: str, **arrays: Array) -> tuple[Array, ...]:
    out = _checks.as_arrays(fn, **arrays)
    named = dict(zip(arrays, out, strict=True))
    _checks.require_f32(fn, **named)
    _checks.require_rank(fn, 1, **named)
    alike = out[0].shape == out[1].shape
    _checks.require(fn, alike, f"{' and '.join(named)} must have one shape", **named)
    return tuple(map(jax.lax.stop_gradient, out))


def _norm(fn: str, logits: Array, targets: Array, is_active: Array) -> Array:
    _checks.require_f32(fn, logits=logits)
    _checks.require_ids(fn, targets=targets)
    _checks.require_mask(fn, is_active=is_active)
    _checks.require_rank(fn, 2, logits=logits, targets=targets)
    fits = targets.shape[0] == logits.shape[0]
    fits &= is_active.shape in (logits.shape[1:], logits.shape)
    _checks.require(
        fn,
        fits,
        "targets must have a row for each example, is_active an entry for each column",
        logits=logits,
        targets=targets,
        is_active=is_active,
    )
    p = jnp.where(is_active, jax.lax.stop_gradient(logits), -jnp.inf)
    shares = _shares(targets, logits.shape)
    norms = jnp.linalg.norm(jax.nn.softmax(p, axis=1) - shares, axis=1)
    is_some = jnp.any(jnp.broadcast_to(is_active, logits.shape), axis=1)
    return jnp.where(is_some & jnp.any(shares > 0, axis=1), norms, 0)


def _shares(targets: Array, shape: tuple[int, ...]) -> Array:
    """``f32[b, m]``: the distribution that the labels of an example ask for."""
    b, m = shape
    is_target = (targets >= 0) & (targets < m)
    count = jnp.maximum(jnp.sum(is_target, axis=1, dtype=jnp.float32), 1)
    columns = jnp.where(is_target, targets, m)
    each = jnp.broadcast_to(1 / count[:, None], columns.shape)
    rows = jnp.arange(b, dtype=jnp.int32)[:, None]
    return jnp.zeros(shape, jnp.float32).at[rows, columns].add(each, mode="drop")
