"""Hash functions of ids, told apart by a seed and a number; nothing is stored."""

import jax
import jax.numpy as jnp
import numpy as np

from fsparse.reference import GOLDEN, mix

Array = jax.Array


def hashed(ids: Array, num_hashes: int, num_buckets: int, seed: int) -> Array:
    """``i32[..., num_hashes]`` in ``[0, num_buckets)``, one value of each function."""
    numbers = (np.arange(num_hashes) + 1) * GOLDEN + seed
    salts = mix(jnp.asarray((numbers % 2**32).astype(np.uint32)))
    words = mix(ids.astype(jnp.uint32)[..., None] ^ salts)
    return (mix(words + salts) % jnp.uint32(num_buckets)).astype(jnp.int32)
