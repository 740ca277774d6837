"""The dense layer."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.nn._products import product
from fsparse.nn._spec import Key, Layer, features_of

Array = jax.Array


@dataclass(frozen=True)
class Linear(Layer):
    """A dense layer: ``y = x @ kernel.T + bias``.

    ``apply(params, state, x)``: ``f32[..., in_width]`` to ``f32[..., width]``.

    Args:
      in_width: of the input.
      width: of the output.
      bias: whether there is one.
      init_scale: the kernel starts normal, with deviation
        ``init_scale / sqrt(in_width)``; ``2**0.5`` suits a ReLU that follows, 0 the
        last layer of a residual.

    ``params["kernel"]`` is ``f32[width, in_width]``, a row for each unit, and
    ``params["bias"]``, if any, ``f32[width]``.

    Raises:
      TypeError: if a size is no integer, or ``x`` is not float32.
      ValueError: if a size is less than 1, ``init_scale`` is negative, or ``x`` has
        another width.

    Example:
      >>> layer = Linear(3, 2)
      >>> params, state = layer.init(jax.random.key(0))
      >>> layer.apply(params, state, jnp.zeros((1, 3)))[0]
      Array([[0., 0.]], dtype=float32)
    """

    in_width: int
    width: int
    bias: bool = True
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        fn = "nn.Linear"
        _checks.require_count(fn, 1, in_width=self.in_width, width=self.width)
        _checks.require_between(fn, 0, 1e6, init_scale=self.init_scale)

    def init(self, key: Key) -> tuple[dict[str, Array], tuple[()]]:
        """A random kernel, and a bias of zeros."""
        scale = self.init_scale / self.in_width**0.5
        kernel = scale * jax.random.normal(key, (self.width, self.in_width))
        bias = {"bias": jnp.zeros(self.width)} if self.bias else {}
        return {"kernel": kernel, **bias}, ()

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
        x = features_of("nn.Linear", x, self.in_width, "in_width")
        y = product(x, params["kernel"])
        return (y + params["bias"] if self.bias else y), state
