"""Functions of each unit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.nn._spec import Key, Layer, require_choice

Array = jax.Array
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "leaky_relu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}


@dataclass(frozen=True)
class Activation(Layer):
    """A function of each unit, by its name in ``jax.nn``.

    ``apply(params, state, x)``: ``f32[...]`` to the same. Nothing is learnt.

    Args:
      name: "elu", "gelu", "leaky_relu", "relu", "sigmoid", "silu", "softplus" or
        "tanh".

    Raises:
      TypeError: if ``x`` is not float32.
      ValueError: if there is no such function.

    Example:
      >>> Activation("relu").apply((), (), jnp.array([-1.0, 2.0]))[0]
      Array([0., 2.], dtype=float32)
    """

    name: str

    def __post_init__(self) -> None:
        require_choice("nn.Activation", sorted(FUNCTIONS), name=self.name)

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """Of the shape of ``x``."""
        del params, key, train
        (x,) = _checks.as_arrays("nn.Activation", x=x)
        _checks.require_f32("nn.Activation", x=x)
        return FUNCTIONS[self.name](x), state
