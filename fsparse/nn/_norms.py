"""Normalisation of each example."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.nn._spec import Key, Layer, features_of

Array = jax.Array


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Units of mean 0 and variance 1: ``(x - mean) / sqrt(var + eps) * scale + bias``.

    ``apply(params, state, x)``: ``f32[..., width]`` to the same.

    Args:
      width: of the input.
      eps: added to the variance.

    ``params`` has ``scale`` and ``bias``, ``f32[width]``.

    Raises:
      TypeError: if ``width`` is no integer, or ``x`` is not float32.
      ValueError: if ``width < 1``, ``eps`` is negative, or ``x`` has another width.

    Source: Ba, Kiros and Hinton, arXiv:1607.06450.

    Example:
      >>> layer = LayerNorm(2)
      >>> layer.apply(*layer.init(None), jnp.array([[1.0, 3.0]]))[0].round(4)
      Array([[-1.,  1.]], dtype=float32)
    """

    width: int
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _checks.require_count("nn.LayerNorm", 1, width=self.width)
        _checks.require_between("nn.LayerNorm", 0, 1, eps=self.eps)

    def init(self, key: Key) -> tuple[dict[str, Array], tuple[()]]:
        """A scale of 1 and a bias of 0."""
        del key
        return {"scale": jnp.ones(self.width), "bias": jnp.zeros(self.width)}, ()

    def apply(
        self,
        params: dict[str, Array],
        state: Any,
        x: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """``f32[..., width]``."""
        del key, train
        x = features_of("nn.LayerNorm", x, self.width, "width")
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(x * x, axis=-1, keepdims=True)
        unit = x * jax.lax.rsqrt(variance + self.eps)
        return unit * params["scale"] + params["bias"], state


@dataclass(frozen=True)
class UnitNorm(Layer):
    """Examples of one length: ``length * x / |x|``; zeros stay zeros.

    ``apply(params, state, x)``: ``f32[..., d]`` to the same. Nothing is learnt.

    Args:
      length: of the output; before a softmax over rows of length 1, the largest logit.

    Raises:
      TypeError: if ``length`` is no number, or ``x`` is not float32.
      ValueError: if ``length`` is negative.

    Example:
      >>> UnitNorm(10.0).apply((), (), jnp.array([[3.0, 4.0], [0.0, 0.0]]))[0]
      Array([[6., 8.],
             [0., 0.]], dtype=float32)
    """

    length: float = 1.0

    def __post_init__(self) -> None:
        _checks.require_between("nn.UnitNorm", 0, 1e6, length=self.length)

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """``f32[..., d]``."""
        del params, key, train
        (x,) = _checks.as_arrays("nn.UnitNorm", x=x)
        _checks.require_f32("nn.UnitNorm", x=x)
        return self.length * unit(x), state


def unit(x: Array) -> Array:
    """Rows of length 1; rows of zeros stay zeros, with gradients of zero."""
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
    return x * jnp.where(squares > 0, inverse, 0)
