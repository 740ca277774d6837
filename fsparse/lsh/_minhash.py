"""MinHash of the set of coordinates that are not 0, by one permutation."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from fsparse._call import vary_over, varying_axes
from fsparse.lsh._codes import Family
from fsparse.lsh._densify import densify
from fsparse.lsh._inputs import Rows, SparseRows, clean, merged, num_rows, row_indices
from fsparse.lsh._join import hashed, joined, require_sizes, seeds

Array = jax.Array

EMPTY = 2**32 - 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MinHash(Family):
    """Seeds of two hash functions: of coordinates and of bins."""

    dim: int = field(metadata={"static": True})
    num_tables: int = field(metadata={"static": True})
    num_hashes: int = field(metadata={"static": True})
    num_bits: int = field(metadata={"static": True})
    coordinate_seed: Array  # u32[2]
    bin_seed: Array  # u32[2]

    @property
    def num_buckets(self) -> int:
        return 2**self.num_bits

    @property
    def _num_bins(self) -> int:
        return self.num_tables * self.num_hashes

    def floats_a_row(self, x: Rows) -> int:
        held = x.ids if isinstance(x, SparseRows) else x
        return held.shape[1] + self._num_bins

    def hash_rows(self, x: Rows) -> Array:
        x = clean(x, self.dim)
        least = self._least(x)
        is_empty = least == jnp.uint32(EMPTY)
        hashes = densify(least, is_empty, self.bin_seed)
        hashes = hashes.reshape(self.num_tables, self.num_hashes, num_rows(x))
        codes = joined(jnp.moveaxis(hashes, 1, 0), self.num_bits)
        return jnp.where(jnp.all(is_empty, axis=0)[None], 0, codes).T

    def _least(self, x: Rows) -> Array:
        """``u32[num_bins, b]``: the least hash of a coordinate in each bin."""
        at: tuple[Array, ...]
        if isinstance(x, SparseRows):
            ids, values = merged(x, self.dim)
            bins, h = self._placed(ids)
            at = bins, row_indices(bins)
        else:
            values = x.T
            bins, h = self._placed(jnp.arange(self.dim, dtype=jnp.int32)[:, None])
            at = (bins[:, 0],)
        h = jnp.where(values != 0, h, jnp.uint32(EMPTY))
        least = jnp.full((self._num_bins, num_rows(x)), EMPTY, jnp.uint32)
        return vary_over(least, varying_axes(h)).at[at].min(h)

    def _placed(self, ids: Array) -> tuple[Array, Array]:
        """The bin of each coordinate, and its hash, distinct within a bin."""
        h = hashed(ids, self.coordinate_seed)
        bins = (h % jnp.uint32(self._num_bins)).astype(jnp.int32)
        return bins, jnp.minimum(h, jnp.uint32(EMPTY - 1))


def minhash(
    key: Array,
    dim: int,
    *,
    num_tables: int = 50,
    num_hashes: int = 2,
    num_bits: int = 12,
) -> Family:
    """Least hashes of the set of coordinates that are not 0.

    One hash function sends the coordinates to ``num_tables * num_hashes`` bins; the
    hash of a bin is the least in it. Two rows agree in it with probability ``|A & B| /
    |A | B|``, of their sets ``A`` and ``B``. An empty bin borrows from another one, in
    an order that all rows share. The hashes of a table are mixed to ``num_bits`` bits,
    so that others agree by chance, too, with probability ``2**-num_bits``.

    Args:
      key: PRNG key.
      dim: ``d``, coordinates of a row.
      num_tables: codes of a row.
      num_hashes: bins of a code.
      num_bits: bits of a code, at most 15.

    Returns:
      A :class:`Family` with ``num_buckets = 2**num_bits``, of 16 bytes. Values do not
      matter, but whether they are 0; those of an id that a row repeats add up first.
      A row of zeros has code 0 in every table.

    Raises:
      TypeError: if a size is no static integer.
      ValueError: if a size is out of range.

    Nothing aliases.

    Source: Li, Owen and Zhang, NIPS 2012 (one permutation); Shrivastava, ICML 2017,
    section 4 (densification).

    Example:
      >>> family = minhash(jax.random.key(0), 10_000, num_tables=8)
      >>> family.dim, family.num_tables, family.num_buckets
      (10000, 8, 4096)
    """
    require_sizes(
        "minhash",
        dim=dim,
        num_tables=num_tables,
        num_hashes=num_hashes,
        num_bits=num_bits,
    )
    of_coordinates, of_bins = map(seeds, jax.random.split(key))
    sizes = int(dim), int(num_tables), int(num_hashes), int(num_bits)
    return MinHash(*sizes, of_coordinates, of_bins)
