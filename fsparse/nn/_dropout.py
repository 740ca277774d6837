"""Noise while training."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.nn._spec import Key, Layer, training_key

Array = jax.Array


@dataclass(frozen=True)
class Dropout(Layer):
    """While training, zeros for a share of the units, and the others larger for it.

    ``apply(params, state, x, key=key, train=True)``: each unit is kept with probability
    ``1 - rate``, and divided by that. Without ``train``, the input.

    Args:
      rate: share that is dropped, in ``[0, 1)``.

    Raises:
      TypeError: if ``rate`` is no number, or ``x`` is not float32.
      ValueError: if ``rate`` is out of range, or ``key`` is None while training.

    Source: Srivastava et al., JMLR 2014.

    Example:
      >>> x = jnp.ones((1, 4))
      >>> Dropout(0.5).apply((), (), x)[0]
      Array([[1., 1., 1., 1.]], dtype=float32)
      >>> key = jax.random.key(1)
      >>> set(Dropout(0.5).apply((), (), x, key=key, train=True)[0].ravel().tolist())
      {0.0, 2.0}
    """

    rate: float

    def __post_init__(self) -> None:
        fn = "nn.Dropout"
        _checks.require_between(fn, 0, 1, rate=self.rate)
        if self.rate == 1:
            raise ValueError(
                f"{fn}: rate must be less than 1, or nothing is left; got {self.rate}."
            )

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
        del params
        (x,) = _checks.as_arrays("nn.Dropout", x=x)
        _checks.require_f32("nn.Dropout", x=x)
        if not train or self.rate == 0:
            return x, state
        key = training_key("nn.Dropout", key, train)
        keep = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), 0.0), state
