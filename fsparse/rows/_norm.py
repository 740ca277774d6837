"""Norms of row gradients, for clipping and for monitoring."""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _row_ops, reference
from fsparse.row_gradients import RowGrad
from fsparse.rows._inputs import Array, check_grad


def sum_squares(grad: RowGrad) -> Array:
    """The sum over rows ``r`` of ``|g[r]|**2``: the square of the dense norm.

    What occurs of one row is added first. Nothing of the size of the table is formed.

    Args:
      grad: a row gradient.

    Returns:
      ``f32[]``. Its bits do not depend on the number of threads.

    Raises:
      TypeError: if ``grad`` is no row gradient.
      ValueError: if its shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> grad = row_grad(jnp.array([1, 1, 2]), jnp.ones((3, 1)), num_rows=4)
      >>> sum_squares(grad)
      Array(5., dtype=float32)
    """
    arrays = check_grad("sum_squares", grad)
    num_rows = jnp.full(1, grad.num_rows, jnp.int32)
    return _row_ops.sum_squares(*arrays, num_rows)[0][0]


def global_norm(grads: Any) -> Array:
    """The Euclidean norm of all gradients of a model together.

    Args:
      grads: a pytree whose leaves are row gradients and arrays.

    Returns:
      ``f32[]``; its derivative at 0 is 0.

    Raises:
      TypeError: if a dtype of a row gradient is not as it must be.
      ValueError: if its shapes disagree.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import row_grad
      >>> rows = row_grad(jnp.array([1, 1]), jnp.full((2, 1), 1.5), num_rows=4)
      >>> global_norm({"table": rows, "bias": jnp.array([4.0])})
      Array(5., dtype=float32)
    """
    leaves = jax.tree.leaves(grads, is_leaf=lambda x: isinstance(x, RowGrad))
    total = jnp.zeros((), jnp.float32)
    for x in leaves:
        is_rows = isinstance(x, RowGrad)
        total += (
            sum_squares(x) if is_rows else jnp.sum(jnp.square(x), dtype=jnp.float32)
        )
    return reference.sqrt(total)
