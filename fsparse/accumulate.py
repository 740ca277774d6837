"""Gradients of large batches in small parts, and their norm."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.row_gradients import RowGrad
from fsparse.rows import global_norm

Array = jax.Array


def accumulate(
    value_and_grad_fun: Callable[..., Any], num_parts: int
) -> Callable[..., Any]:
    """Means of values and gradients over the parts of a batch, one part at a time.

    Dense gradients are added up; row gradients are put end to end, so that their memory
    follows the rows that all parts read.

    Args:
      value_and_grad_fun: ``(params, batch) -> (value, grads)``, such as
        ``fsparse.value_and_grad(loss)`` of a mean over the examples of ``batch``.
      num_parts: into how many equal parts the leading axis of each array of the batch
        is split.

    Returns:
      A function ``(params, batch) -> (value, grads)``. With a loss that is a mean over
      examples, both are those of the whole batch, up to rounding.

    Raises:
      TypeError: if ``num_parts`` is no static integer.
      ValueError: if it is below 1, or does not divide a leading axis.

    The parts run in a ``scan``: temporaries are those of one part. Every array of the
    batch is split, and all that the function returns beside row gradients is averaged:
    close over keys and shared active sets, and return no ids as ``aux``.

    Example:
      >>> import jax.numpy as jnp
      >>> import fsparse
      >>> loss = lambda table, ids: fsparse.take_rows(table, ids).mean()
      >>> table, ids = fsparse.Table(jnp.ones((3, 1))), jnp.array([0, 2, 2, 2])
      >>> value, grads = accumulate(fsparse.value_and_grad(loss), 2)(table, ids)
      >>> value, grads.to_dense()
      (Array(1., dtype=float32), Array([[0.25],
             [0.  ],
             [0.75]], dtype=float32))
    """
    _checks.require_count("accumulate", 1, num_parts=num_parts)

    def accumulated(params: Any, batch: Any) -> tuple[Any, Any]:
        parts = jax.tree.map(lambda x: _split(x, num_parts), batch)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(value_and_grad_fun, params, first)
        zeros = [jnp.zeros(x.shape, x.dtype) for x in _dense(shapes)]

        def body(total: list[Array], part: Any) -> tuple[list[Array], list[RowGrad]]:
            out = value_and_grad_fun(params, part)
            return [a + b for a, b in zip(total, _dense(out), strict=True)], _rows(out)

        total, rows = jax.lax.scan(body, zeros, parts)
        means = iter([x / num_parts for x in total])
        sums = iter([grad.sum() / num_parts for grad in rows])
        pick = lambda x: next(sums if isinstance(x, RowGrad) else means)  # noqa: E731
        value, grads = jax.tree.map(pick, shapes, is_leaf=_is_row_grad)
        return value, grads

    return accumulated


def clip_by_global_norm(grads: Any, max_norm: Array | float) -> Any:
    """Gradients scaled down so that their norm, all together, is at most ``max_norm``.

    ``grads * min(1, max_norm / norm)``, with the norm of :func:`fsparse.global_norm`.

    Args:
      grads: a pytree whose leaves are arrays and row gradients.
      max_norm: a positive scalar.

    Returns:
      A pytree of the same structure. Where the norm is NaN all gradients are.

    Raises:
      TypeError: if a row gradient's dtype is not as it must be.
      ValueError: if its shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> rows = row_grad(jnp.array([1, 1]), jnp.full((2, 1), 1.5), num_rows=4)
      >>> grads = clip_by_global_norm({"table": rows, "bias": jnp.array([4.0])}, 2.5)
      >>> grads["bias"], grads["table"].scale
      (Array([2.], dtype=float32), Array([0.5, 0.5], dtype=float32))
    """
    norm = global_norm(grads)
    factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
    factor = jnp.where(jnp.isnan(norm), jnp.nan, factor)
    return jax.tree.map(
        lambda g: g * factor if _is_row_grad(g) else g * factor.astype(g.dtype),
        grads,
        is_leaf=_is_row_grad,
    )


def _split(x: Array, num_parts: int) -> Array:
    x = jnp.asarray(x)
    if x.ndim == 0 or x.shape[0] % num_parts:
        raise ValueError(
            f"accumulate: num_parts={num_parts} must divide the leading axis of every "
            f"array of the batch; got {_checks.aval(x)}."
        )
    return x.reshape(num_parts, x.shape[0] // num_parts, *x.shape[1:])


def _is_row_grad(x: Any) -> bool:
    return isinstance(x, RowGrad)


def _dense(tree: Any) -> list[Any]:
    leaves = jax.tree.leaves(tree, is_leaf=_is_row_grad)
    return [x for x in leaves if not _is_row_grad(x)]


def _rows(tree: Any) -> list[RowGrad]:
    leaves = jax.tree.leaves(tree, is_leaf=_is_row_grad)
    return [x for x in leaves if _is_row_grad(x)]
