"""The mark of a wide table among parameters."""

from dataclasses import dataclass

import jax

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Table:
    """A wide table, whose gradient :func:`fsparse.value_and_grad` keeps by rows.

    A pytree with one leaf. Every op of fsparse takes a ``Table`` where it takes a
    table's array; to all else in JAX, ``jax.grad`` among it, it is a container, and its
    array is ``table.value``.

    Args:
      value: ``f32[n, d]`` or ``bf16[n, d]``; more axes in front for ``vmap``.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"embedding": Table(jnp.ones((4, 2))), "scale": jnp.ones(2)}
      >>> params["embedding"].shape
      (4, 2)
    """

    value: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array: ``(n, d)``."""
        return self.value.shape

    @property
    def dtype(self) -> jax.numpy.dtype:
        """Of the array."""
        return self.value.dtype
