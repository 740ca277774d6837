"""Densified winner-take-all hashing: which of a few coordinates is the largest."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from fsparse._call import vary_over, varying_axes
from fsparse.lsh._codes import Family
from fsparse.lsh._densify import densify
from fsparse.lsh._inputs import Rows, SparseRows, clean, merged, row_indices
from fsparse.lsh._join import MAX_BITS, require_sizes, seeds

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dwta(Family):
    """Where coordinates compete, from both sides.

    A bin has ``bin_size`` positions of ``copies`` slots each; a slot holds a coordinate
    or, one in some positions, none.
    """

    dim: int = field(metadata={"static": True})
    num_tables: int = field(metadata={"static": True})
    num_hashes: int = field(metadata={"static": True})
    bin_size: int = field(metadata={"static": True})
    members: Array  # i32[num_tables * num_hashes, slots], dim where there is none
    places: Array  # i32[dim + 1, p], bin * slots + slot; beyond all bins at dim
    bin_seed: Array  # u32[2]

    @property
    def num_buckets(self) -> int:
        return self.bin_size**self.num_hashes

    @property
    def _copies(self) -> int:
        return self.members.shape[1] // self.bin_size

    def floats_a_row(self, x: Rows) -> int:
        bins = self.members.shape[0]
        if isinstance(x, SparseRows):
            return bins + x.ids.shape[1] * self.places.shape[1]
        return bins + self.dim

    def hash_rows(self, x: Rows) -> Array:
        x = clean(x, self.dim)
        if isinstance(x, SparseRows):
            slot, is_empty = self._sparse_winners(merged(x, self.dim))
        else:
            slot, is_empty = self._dense_winners(x)
        position = jnp.where(is_empty, 0, slot // self._copies)
        position = densify(position, is_empty, self.bin_seed)
        shape = self.num_tables, self.num_hashes, position.shape[1]
        digits = position.reshape(shape)
        weights = self.bin_size ** jnp.arange(self.num_hashes, dtype=jnp.int32)
        return jnp.sum(digits * weights[None, :, None], axis=1, dtype=jnp.int32).T

    def _dense_winners(self, x: Array) -> tuple[Array, Array]:
        """The slot of the largest value of each bin, ``i32[bins, b]``; what is empty.

        A slot of all bins and rows at a time: values lie by coordinate, so that each
        bin reads a line of them.
        """
        values = jnp.where(x == 0, -jnp.inf, x).T
        values = jnp.pad(values, ((0, 1), (0, 0)), constant_values=-jnp.inf)
        shape = self.members.shape[0], x.shape[0]

        def compete(slot: Array, leaders: tuple[Array, Array]) -> tuple[Array, Array]:
            best, winner = leaders
            challenger = values[self.members[:, slot]]
            winner = jnp.where(
                challenger > best, jnp.asarray(slot, winner.dtype), winner
            )
            return jnp.maximum(best, challenger), winner

        start = _filled(shape, -jnp.inf, values), _filled(shape, 0, self.members)
        best, winner = jax.lax.fori_loop(0, self.members.shape[1], compete, start)
        return winner, jnp.isneginf(best)

    def _sparse_winners(self, x: SparseRows) -> tuple[Array, Array]:
        """The same, from the coordinates that are there: the values, then the slots."""
        num_bins, slots = self.members.shape
        places = self.places[x.ids].reshape(len(x.ids), -1)
        at, slot = (places // slots, row_indices(places)), places % slots
        value = jnp.where(x.values == 0, -jnp.inf, x.values)
        value = jnp.repeat(value, self.places.shape[1], axis=1)
        best = _filled((num_bins, len(x.ids)), -jnp.inf, value)
        best = best.at[at].max(value, mode="drop")
        is_best = value == best.at[at].get(mode="fill", fill_value=jnp.inf)
        slot = jnp.where(is_best, slot, slots)
        first = _filled(best.shape, slots, slot).at[at].min(slot, mode="drop")
        return first, jnp.isneginf(best)


def _filled(shape: tuple[int, ...], fill: float, like: Array) -> Array:
    """An array of the type of another, and varying as it does."""
    return vary_over(jnp.full(shape, fill, like.dtype), varying_axes(like))


def dwta(
    key: Array,
    dim: int,
    *,
    num_tables: int = 50,
    num_hashes: int = 5,
    bin_size: int = 8,
) -> Family:
    """Positions of the largest coordinates of random bins.

    ``num_tables * num_hashes`` bins have ``bin_size`` positions each. The coordinates,
    ``p = ceil(positions / d)`` times each, are dealt out to the positions of all bins
    at random and as evenly as can be. The hash of a bin is the position of its largest
    value, ``bin_size`` at a time ranked as in winner-take-all hashing; the code of a
    table has its ``num_hashes`` positions as digits.

    Only coordinates that are not 0 compete: a negative value beats an absent one. Of
    equal values the lower position wins. A bin with none borrows the position of
    another one, in an order that all rows share.

    Args:
      key: PRNG key.
      dim: ``d``, coordinates of a row.
      num_tables: codes of a row.
      num_hashes: bins of a code.
      bin_size: positions of a bin, a power of two, at least 2.

    Returns:
      A :class:`Family` with ``num_buckets = bin_size**num_hashes``, of two maps, one of
      ``i32[d p]`` entries and one of up to twice as many. Values of an id that a row
      repeats add up. A row of zeros has code 0 in every table. Sparse rows are not made
      dense.

    Raises:
      TypeError: if a size is no static integer.
      ValueError: if a size is out of range, ``bin_size`` no power of two, or
        ``num_buckets`` more than 32,768.

    Nothing aliases.

    Source: Chen and Shrivastava, Densified Winner Take All Hashing, UAI 2018; the even
    deal is that of BOLT (arXiv 2303.17727) in its later sources.

    Example:
      >>> family = dwta(jax.random.key(0), 128, num_tables=8, num_hashes=4)
      >>> family.dim, family.num_tables, family.num_buckets
      (128, 8, 4096)
    """
    fn = "dwta"
    require_sizes(
        fn, dim=dim, num_tables=num_tables, num_hashes=num_hashes, bin_size=bin_size
    )
    _require_bins(fn, num_hashes, bin_size)
    deal, seed = jax.random.split(key)
    num_bins = num_tables * num_hashes
    location = _dealt(deal, dim, num_bins * bin_size)
    members, places = _maps(location, num_bins, bin_size)
    sizes = int(dim), int(num_tables), int(num_hashes), int(bin_size)
    return Dwta(*sizes, members, places, seeds(seed))


def _require_bins(fn: str, num_hashes: int, bin_size: int) -> None:
    if bin_size < 2 or bin_size & (bin_size - 1):
        raise ValueError(
            f"{fn}: bin_size must be a power of two and at least 2; got {bin_size}."
        )
    if bin_size**num_hashes > 2**MAX_BITS:
        raise ValueError(
            f"{fn}: bin_size**num_hashes must be at most {2**MAX_BITS}; got "
            f"{bin_size}**{num_hashes}. Use fewer hashes or smaller bins."
        )


def _dealt(key: Array, dim: int, num_locations: int) -> Array:
    """``i32[dim, p]``: locations for each coordinate, all used as evenly as can be."""
    last, order = jax.random.split(key)
    p = -(-num_locations // dim)
    rounds, rest = divmod(dim * p, num_locations)
    every = jnp.arange(num_locations, dtype=jnp.int32)
    extra = jax.random.permutation(last, every)[:rest]
    deck = jnp.concatenate([jnp.tile(every, rounds), extra])
    return jax.random.permutation(order, deck).reshape(dim, p)


def _maps(location: Array, num_bins: int, bin_size: int) -> tuple[Array, Array]:
    """From location ``bin * bin_size + position`` of each entry to both maps."""
    dim, p = location.shape
    num_locations = num_bins * bin_size
    copies = -(-dim * p // num_locations)
    order = jnp.argsort(location.ravel(), stable=True).astype(jnp.int32)
    rising = location.ravel()[order]
    first = jnp.searchsorted(rising, rising).astype(jnp.int32)
    place = rising * copies + jnp.arange(dim * p, dtype=jnp.int32) - first
    members = jnp.full(num_locations * copies, dim, jnp.int32).at[place].set(order // p)
    places = jnp.zeros(dim * p, jnp.int32).at[order].set(place).reshape(dim, p)
    beyond = jnp.full((1, p), num_locations * copies, jnp.int32)
    places = jnp.concatenate([places, beyond])
    return members.reshape(num_bins, bin_size * copies), places
