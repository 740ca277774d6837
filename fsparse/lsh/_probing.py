"""Codes of signs, and which bits to flip: the sets of least total cost, exactly.

With costs in rising order, a set of ranks costs no less than every set it dominates:
those got by lowering ranks and leaving some out. A set that dominates ``num_probes``
others is never among the best, whatever the costs, so few sets are candidates.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def probes_of(margins: Array, sets: Array, num_probes: int) -> Array:
    """``i32[..., num_probes]``: the code of the signs, then those nearest to it.

    Args:
      margins: ``f32[..., k]``; bit ``i`` of the code is ``margins[..., i] > 0``.
      sets: those of `flip_sets`.
      num_probes: ``1 <= num_probes <= 2**k``.
    """
    code = _packed(margins > 0)[..., None]
    return code if num_probes == 1 else code ^ _best_flips(margins, sets, num_probes)


def _packed(bits: Array) -> Array:
    weights = 2 ** jnp.arange(bits.shape[-1], dtype=jnp.int32)
    weights = weights.reshape(*[1] * (bits.ndim - 1), -1)
    return jnp.sum(jnp.where(bits, weights, 0), axis=-1, dtype=jnp.int32)


def _best_flips(margins: Array, sets: Array, num_probes: int) -> Array:
    """Masks of bits, in rising order of total ``|margin|``."""
    costs = jnp.nan_to_num(jnp.abs(margins), nan=jnp.inf)
    costs, bits = jax.lax.top_k(-costs, sets.shape[1])
    totals, masks = _of_sets(-costs, bits, sets)
    if num_probes <= 3:  # none, the first, the second: there is no choice
        return masks
    _, best = jax.lax.top_k(-totals, num_probes)
    return jnp.take_along_axis(masks, best, axis=-1)


def _of_sets(costs: Array, bits: Array, sets: Array) -> tuple[Array, Array]:
    """The cost and the mask of every candidate, a rank at a time."""
    shape = (*costs.shape[:-1], len(sets))
    totals, masks = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32)
    for rank in range(sets.shape[1]):
        is_in = sets[:, rank].reshape(*[1] * (len(shape) - 1), -1)
        totals += jnp.where(is_in, costs[..., rank, None], 0)
        masks += jnp.where(is_in, jnp.left_shift(1, bits[..., rank, None]), 0)
    return totals, masks


def flip_sets(num_bits: int, num_probes: int) -> np.ndarray:
    """`candidates` without the ranks that are in none, but the first."""
    sets = candidates(num_bits, num_probes)
    return sets[:, : max(int(sets.any(axis=0).sum()), 1)]


@cache
def candidates(num_bits: int, num_probes: int) -> np.ndarray:
    """``bool[c, num_bits]``: the sets of ranks that may be among the best."""
    frontier: list[tuple[int, ...]] = [()]
    found = set(frontier)
    while frontier:
        above = {s for ranks in frontier for s in _covers(ranks, num_bits)} - found
        frontier = [s for s in above if num_dominated(s) <= num_probes]
        found.update(frontier)
    order = sorted(found, key=lambda ranks: (num_dominated(ranks), ranks))
    return np.array([[r + 1 in ranks for r in range(num_bits)] for ranks in order])


def _covers(ranks: tuple[int, ...], num_bits: int) -> list[tuple[int, ...]]:
    """The next sets above: one rank raised by 1, or rank 1 put in."""
    raised = [
        (*ranks[:i], r + 1, *ranks[i + 1 :])
        for i, r in enumerate(ranks)
        if r < num_bits and r + 1 not in ranks
    ]
    return raised if 1 in ranks else [*raised, (1, *ranks)]


@cache
def num_dominated(ranks: tuple[int, ...]) -> int:
    """How many sets cost no more than this one for certain, itself among them.

    ``ways[v]`` counts the choices so far whose largest rank is ``v``, 0 for none.
    """
    ways = [1]
    for r in ranks:
        below = [sum(ways[:v]) for v in range(1, r + 1)]
        ways = [ways[0], *below]
    return sum(ways)
