"""Rows centred and brought to one scale, without which angles tell little."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fsparse import _checks

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Standardizer:
    """``(x - mean) * scale``, made by :func:`standardizer`."""

    mean: Array  # f32[d]
    scale: Array  # f32[d], 0 for coordinates that are constant

    def __call__(self, x: Array) -> Array:
        """``f32[..., d]`` of rows ``f32[..., d]`` or ``bf16[..., d]``."""
        fn = "standardizer"
        (x,) = _checks.as_arrays(fn, x=x)
        _checks.require_table(fn, x=x)
        _checks.require(
            fn,
            x.ndim > 0 and x.shape[-1] == self.mean.shape[0],
            f"rows must have {self.mean.shape[0]} coordinates",
            x=x,
        )
        lead = (1,) * (x.ndim - 1)
        mean, scale = (a.reshape(*lead, -1) for a in (self.mean, self.scale))
        return (x.astype(jnp.float32) - mean) * scale


def standardizer(sample: Array) -> Standardizer:
    """Brings each coordinate to mean 0 and deviation 1, as of a sample.

    SimHash sees angles about the origin: of rows that are not centred all are small.

    Args:
      sample: ``f32[n, d]`` or ``bf16[n, d]``, ``n >= 1``. Rows with NaN or infinity are
        left out.

    Returns:
      A pytree, to be called with rows ``f32[..., d]`` or ``bf16[..., d]``. Coordinates
      that are constant in the sample become 0.

    Raises:
      TypeError: if ``sample`` is no such array.
      ValueError: if it has no rows.

    Example:
      >>> rows = jnp.array([[0.0, 7.0], [4.0, 7.0]])
      >>> standardizer(rows)(rows)
      Array([[-1.,  0.],
             [ 1.,  0.]], dtype=float32)
    """
    fn = "standardizer"
    (x,) = _checks.as_arrays(fn, sample=sample)
    _checks.require_table(fn, sample=x)
    _checks.require_rank(fn, 2, sample=x)
    _checks.require(fn, x.shape[0] > 0, "sample must have rows", sample=x)
    x = x.astype(jnp.float32)
    is_row = jnp.all(jnp.isfinite(x), axis=1, keepdims=True)
    n = jnp.maximum(jnp.sum(is_row), 1).astype(jnp.float32)
    # Shares first, and units of the largest: nothing overflows.
    largest = jnp.max(jnp.where(is_row, jnp.abs(x), 0), axis=0)
    unit = jnp.where(largest > 0, largest, 1)[None]
    part = jnp.where(is_row, x / unit, 0)
    mean = jnp.sum(part, axis=0) / n
    off = jnp.where(is_row, part - mean[None], 0)
    std = jnp.sqrt(jnp.sum(off**2, axis=0) / n)
    high = jnp.max(jnp.where(is_row, x, -jnp.inf), axis=0)
    low = jnp.min(jnp.where(is_row, x, jnp.inf), axis=0)
    varies = high > low
    scale = jnp.where(varies, 1 / jnp.where(varies, std, 1), 0) / unit[0]
    return Standardizer(mean * unit[0], scale)
