"""Bins that no coordinate of a row fell into take the value of another bin."""

import jax
import jax.numpy as jnp

from fsparse._call import vary_over, varying_axes
from fsparse.lsh._join import hashed

Array = jax.Array

ATTEMPTS = 32


def densify(values: Array, is_empty: Array, seed: Array) -> Array:
    """Fills empty bins: ``[n, b]`` values of ``n`` bins for each of ``b`` rows.

    Bin ``i`` asks the bins ``hash(i, attempt) % n`` in turn; after `ATTEMPTS` of them,
    the first bin that is not empty. The order in which it asks is the same for all
    rows, so the borrowed hashes of two rows agree as often as their own. Rows with no
    bin to borrow from stay as they are.
    """
    n = values.shape[0]
    bins = jnp.arange(n, dtype=jnp.uint32)

    def is_missing(state: tuple[Array, Array, Array]) -> Array:
        attempt, _, missing = state
        return (attempt < ATTEMPTS) & jnp.any(missing)

    def ask(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        attempt, filled, missing = state
        asked = hashed(bins + attempt.astype(jnp.uint32) * jnp.uint32(n), seed)
        asked = (asked % jnp.uint32(n)).astype(jnp.int32)
        has_value = missing & ~is_empty[asked]
        filled = jnp.where(has_value, values[asked], filled)
        return attempt + 1, filled, missing & ~has_value

    start = vary_over(jnp.int32(0), varying_axes(values))
    missing = is_empty & ~jnp.all(is_empty, axis=0, keepdims=True)
    _, filled, missing = jax.lax.while_loop(is_missing, ask, (start, values, missing))
    first = jnp.argmin(is_empty, axis=0, keepdims=True)
    return jnp.where(missing, jnp.take_along_axis(values, first, axis=0), filled)
