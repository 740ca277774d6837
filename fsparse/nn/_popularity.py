"""The sampler by popularity, with its counts in a model's state.

:func:`fsparse.samplers.popularity` holds its sums as constants of the program; a model
is made before its labels are counted, so here they are arrays.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsparse._popularity import weights_of, widths_of
from fsparse._queries import Query, ids_of, shape_of_sample
from fsparse.reference import valid
from fsparse.samplers import Sampler

Array = jax.Array


def popularity_state(counts: Any, power: float) -> dict[str, Array]:
    """Where the draws of each row end, and the log of the chance to miss it."""
    weights = weights_of("nn.SparseLinear", counts, power, smoothing=1.0)
    _, widths = widths_of(weights)  # no row is left out: all have been smoothed
    ends = np.cumsum(widths)[:-1].astype(np.uint32)
    log_miss = np.log1p(-widths * 2.0**-32).astype(np.float32)
    return {"ends": jnp.asarray(ends), "log_miss": jnp.asarray(log_miss)}


def popularity_sampler(state: dict[str, Array]) -> Sampler:
    """As :func:`fsparse.samplers.popularity`, of a state."""
    fn, ends, log_miss = "nn.SparseLinear", state["ends"], state["log_miss"]
    n = log_miss.shape[0]

    def sample(key: Array, query: Query, size: int, per_example: bool) -> Array:
        shape = shape_of_sample(fn, query, size, per_example, n)
        bits = jax.random.bits(key, shape, jnp.uint32)
        return jnp.searchsorted(ends, bits, side="right").astype(jnp.int32)

    def log_q(ids: Array, size: int) -> Array:
        return log_chance(state, ids_of(fn, ids, size), size)

    return Sampler(sample, log_q, n)


def log_chance(state: dict[str, Array], ids: Array, size: Array | int) -> Array:
    """Of being among ``size`` draws, a number that may be traced; 0 for padding."""
    log_miss = state["log_miss"]
    is_row = valid(ids, log_miss.shape[0])
    of_row = log_miss[jnp.where(is_row, ids, 0)]
    return jnp.where(is_row, jnp.log(-jnp.expm1(size * of_row)), 0)
