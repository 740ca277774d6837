"""Rows centred and brought to one scale, without which angles tell little."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fsparse import _checks

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Standardizer:
    """``(x - mean) / std``, made by :func:`standardizer`."""

    mean: Array  # f32[d]
    std: Array  # f32[d], infinite for coordinates that are constant

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
        mean, std = (a.reshape(*lead, -1) for a in (self.mean, self.std))
        return (x.astype(jnp.float32) - mean) / std


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
    high = jnp.max(jnp.where(is_row, x, -jnp.inf), axis=0)
    low = jnp.min(jnp.where(is_row, x, jnp.inf), axis=0)
    # In units of the largest value: no square overflows.
    unit = jnp.maximum(jnp.abs(high), jnp.abs(low))
    is_varied = (high > low) & (unit > 0)
    unit = jnp.where(is_varied, unit, 1)
    part = jnp.where(is_row, x / unit[None], 0)
    mean = jnp.sum(part, axis=0) / n
    off = jnp.where(is_row, part - mean[None], 0)
    std = jnp.sqrt(jnp.sum(off * off, axis=0) / n)
    std = jnp.where(is_varied & (std * unit > 0), std * unit, jnp.inf)
    return Standardizer(mean * unit, std)
