"""Several inputs made one."""

import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.nn._norms import unit
from fsparse.nn._spec import Key, Layer

Array = jax.Array


@dataclass(frozen=True)
class Concatenate(Layer):
    """Inputs joined along an axis.

    ``apply(params, state, *inputs)``. Nothing is learnt.

    Args:
      axis: along which; the last one by default.

    Raises:
      TypeError: if ``axis`` is no integer.
      ValueError: if there is no input, or the other axes differ.

    Example:
      >>> x = jnp.ones((2, 3))
      >>> Concatenate().apply((), (), x, x)[0].shape
      (2, 6)
    """

    axis: int = -1

    def __post_init__(self) -> None:
        try:
            operator.index(self.axis)
        except TypeError as e:
            raise TypeError(
                f"nn.Concatenate: axis must be an integer; got {self.axis!r}."
            ) from e

    def apply(
        self,
        params: Any,
        state: Any,
        *inputs: Array,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """The inputs as one array."""
        del params, key, train
        named = {f"input {i}": x for i, x in enumerate(inputs)}
        arrays = _checks.as_arrays("nn.Concatenate", **named)
        named = dict(zip(named, arrays, strict=True))
        _checks.require(
            "nn.Concatenate",
            _fit(arrays, self.axis),
            f"inputs must be one or more, with axis {self.axis} and all other axes "
            "alike",
            **named,
        )
        return jnp.concatenate(arrays, self.axis), state


def _fit(arrays: tuple[Array, ...], axis: int) -> bool:
    if not all(-x.ndim <= axis < x.ndim for x in arrays):
        return False
    sizes = [dict(enumerate(x.shape)) for x in arrays]
    for size, x in zip(sizes, arrays, strict=True):
        size[axis % x.ndim] = 0
    return bool(sizes) and all(size == sizes[0] for size in sizes)


@dataclass(frozen=True)
class DotProduct(Layer):
    """The product of two vectors an example: ``f32[b, d], f32[b, d] -> f32[b]``.

    Args:
      normalize: whether to divide by their lengths, for the cosine; of a vector of
        zeros it is 0.

    Raises:
      TypeError: if an input is not float32.
      ValueError: if the inputs differ in shape.

    Example:
      >>> x, y = jnp.array([[3.0, 4.0]]), jnp.array([[4.0, 3.0]])
      >>> DotProduct(normalize=True).apply((), (), x, y)[0].round(4)
      Array([0.96], dtype=float32)
    """

    normalize: bool = False

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        y: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """``f32[b]``."""
        del params, key, train
        fn = "nn.DotProduct"
        x, y = _checks.as_arrays(fn, x=x, y=y)
        _checks.require_f32(fn, x=x, y=y)
        _checks.require(
            fn, x.shape == y.shape and x.ndim > 0, "x and y must be alike", x=x, y=y
        )
        if self.normalize:
            x, y = unit(x), unit(y)
        return jnp.sum(x * y, axis=-1), state
