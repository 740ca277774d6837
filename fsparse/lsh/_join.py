"""Several hashes as the code of one table."""

from functools import reduce
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.lsh._codes import require_at_most
from fsparse.reference import GOLDEN, mix

Array = jax.Array

MAX_BITS = 15  # codes are kept as u16, of which one value means absent


def require_sizes(fn: str, **sizes: int) -> None:
    """Sizes that must be at least 1, ``num_bits`` among them."""
    _checks.require_count(fn, 1, **sizes)
    require_at_most(fn, MAX_BITS, **{k: v for k, v in sizes.items() if k == "num_bits"})


def require_positive(fn: str, most: float, **values: Any) -> None:
    """Static numbers in ``(0, most]``."""
    for name, x in values.items():
        if not isinstance(x, Real):
            raise TypeError(
                f"{fn}: {name} must be a static number; got {type(x).__name__}."
            )
        if not 0 < float(x) <= most:
            raise ValueError(f"{fn}: {name} must be in (0, {most:g}]; got {x}.")


def seeds(key: Array) -> Array:
    """``u32[2]`` for `hashed`."""
    return jax.random.bits(key, (2,), jnp.uint32)


def hashed(x: Array, seed: Array) -> Array:
    """A bijection of 32 bits, chosen by the seed: ``u32`` like ``x``."""
    first, second = (s.reshape((1,) * x.ndim) for s in (seed[0], seed[1]))
    return mix(mix(x.astype(jnp.uint32) ^ first) + second)


def joined(hashes: Array, num_bits: int) -> Array:
    """``u32[k, ...]`` to ``i32[...]``: ``num_bits`` bits that depend on all ``k``."""
    step = lambda h, x: mix((h ^ x) + jnp.uint32(GOLDEN))  # noqa: E731
    h = reduce(step, hashes, jnp.zeros_like(hashes[0]))
    return (h >> jnp.uint32(32 - num_bits)).astype(jnp.int32)
