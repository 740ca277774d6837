"""Hashing of Euclidean distance by p-stable projections, p = 2."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from fsparse.lsh._codes import Family
from fsparse.lsh._inputs import Rows, clean
from fsparse.lsh._join import joined, require_positive, require_sizes
from fsparse.lsh._projections import project

Array = jax.Array

LARGEST = 2.0**31 - 128  # the largest float32 that an int32 holds


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class L2(Family):
    """Projections and shifts in units of the width of an interval."""

    dim: int = field(metadata={"static": True})
    num_tables: int = field(metadata={"static": True})
    num_hashes: int = field(metadata={"static": True})
    num_bits: int = field(metadata={"static": True})
    width: float = field(metadata={"static": True})
    directions: Array  # f32[dim, num_tables * num_hashes], a / width
    shifts: Array  # f32[num_tables * num_hashes], in [0, 1)
    origins: Array  # u32[num_tables * num_hashes], what interval 0 is numbered

    @property
    def num_buckets(self) -> int:
        return 2**self.num_bits

    def floats_a_row(self, x: Rows) -> int:
        return self.num_tables * self.num_hashes

    def hash_rows(self, x: Rows) -> Array:
        x = clean(x, self.dim)
        y = jnp.floor(project(x, self.directions) + self.shifts[None])
        # What overflows is defined: the ends of the line, and 0 for inf - inf.
        y = jnp.clip(jnp.nan_to_num(y, nan=0), -LARGEST, LARGEST)
        interval = jax.lax.bitcast_convert_type(y.astype(jnp.int32), jnp.uint32)
        # Else the few intervals near 0 would meet in the same buckets of every table.
        interval = interval + self.origins[None]
        interval = interval.reshape(len(y), self.num_tables, self.num_hashes)
        return joined(jnp.moveaxis(interval, 2, 0), self.num_bits)


def l2(
    key: Array,
    dim: int,
    *,
    num_tables: int = 50,
    num_hashes: int = 4,
    width: float = 1.0,
    num_bits: int = 12,
) -> Family:
    """Intervals of random projections: rows at a small distance agree in most.

    A hash is ``floor((a . x + u) / width)`` with ``a`` Gaussian and ``u`` uniform in
    ``[0, width)``. Two rows at distance ``c`` agree in it with probability ``1 - 2
    Phi(-r) - 2 / (sqrt(2 pi) r) (1 - exp(-r**2 / 2))``, ``r = width / c``. The
    ``num_hashes`` intervals of a table are mixed to ``num_bits`` bits, so that others
    agree by chance, too, with probability ``2**-num_bits``.

    Args:
      key: PRNG key.
      dim: ``d``, coordinates of a row.
      num_tables: codes of a row.
      num_hashes: projections of a code.
      width: of an interval, in units of distance.
      num_bits: bits of a code, at most 15.

    Returns:
      A :class:`Family` with ``num_buckets = 2**num_bits``, of ``f32[d, num_tables *
      num_hashes]`` directions. A row of zeros has codes of its own, as any other. A
      projection beyond ``2**31`` widths counts as the last interval.

    Raises:
      TypeError: if a size is no static integer.
      ValueError: if a size is out of range, or ``width`` is not in
        ``(0, 2**31)``.

    Nothing aliases.

    Source: Datar et al., SoCG 2004, section 3.2.

    Example:
      >>> family = l2(jax.random.key(0), 128, num_tables=8, width=2.0)
      >>> family.dim, family.num_tables, family.num_buckets
      (128, 8, 4096)
    """
    fn = "l2"
    require_sizes(
        fn, dim=dim, num_tables=num_tables, num_hashes=num_hashes, num_bits=num_bits
    )
    require_positive(fn, LARGEST, width=width)
    along, by, first = jax.random.split(key, 3)
    m = num_tables * num_hashes
    directions = jax.random.normal(along, (dim, m), jnp.float32) / float(width)
    shifts = jax.random.uniform(by, (m,), jnp.float32)
    origins = jax.random.bits(first, (m,), jnp.uint32)
    sizes = int(dim), int(num_tables), int(num_hashes), int(num_bits)
    return L2(*sizes, float(width), directions, shifts, origins)
