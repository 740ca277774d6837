"""SimHash: the signs of random projections."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from fsparse.lsh._codes import Family
from fsparse.lsh._hadamard_codes import hadamard_codes
from fsparse.lsh._inputs import Rows, SparseRows, clean, densified
from fsparse.lsh._join import require_positive, require_sizes
from fsparse.lsh._sign_codes import sign_codes

Array = jax.Array

KINDS = ("dense", "sparse", "hadamard")


@dataclass(frozen=True)
class _Signs(Family):
    """Bit ``k`` of a table is ``projection > 0``; which projections, subclasses say."""

    dim: int = field(metadata={"static": True})
    num_tables: int = field(metadata={"static": True})
    num_bits: int = field(metadata={"static": True})

    @property
    def num_buckets(self) -> int:
        return 2**self.num_bits

    def hash_rows(self, x: Rows) -> Array:
        return self.probe_rows(x, 1)[..., 0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SimHash(_Signs):
    """Projections on directions that are stored."""

    directions: Array  # f32[dim, num_tables * num_bits], or bf16 for +-1 and 0

    def floats_a_row(self, x: Rows) -> int:
        return self.num_tables * self.num_bits

    def probe_rows(self, x: Rows, num_probes: int) -> Array:
        return sign_codes(x, self.directions, self.num_bits, num_probes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HadamardSimHash(_Signs):
    """Projections on the rows of ``H D3 H D2 H D1``, by fast transforms."""

    signs: Array  # f32[r, 3, n], n the next power of two from dim, r n >= all bits

    def floats_a_row(self, x: Rows) -> int:
        return self.signs.shape[0] * self.signs.shape[2]

    def probe_rows(self, x: Rows, num_probes: int) -> Array:
        if isinstance(x, SparseRows):
            x = densified(clean(x, self.dim), self.dim)
        sizes = self.num_tables, self.num_bits, num_probes
        return hadamard_codes(x, self.signs, *sizes)


def simhash(
    key: Array,
    dim: int,
    *,
    num_tables: int = 64,
    num_bits: int = 10,
    kind: str = "dense",
    density: float = 1 / 3,
) -> Family:
    """Signs of random projections: rows at a small angle agree in most bits.

    Bit ``k`` of table ``t`` is ``x . a[t, k] > 0``; two rows agree in it with
    probability ``1 - angle / pi``. A row of zeros has code 0.

    Args:
      key: PRNG key.
      dim: ``d``, coordinates of a row.
      num_tables: codes of a row.
      num_bits: bits of a code, at most 15.
      kind: where the directions come from.

        - ``"dense"``: Gaussian, ``f32[d, num_tables * num_bits]``.
        - ``"sparse"``: +-1 with probability ``density``, else 0. Stored in full as
          bf16, which holds them exactly, in half the memory: a product over all
          entries in order is faster than one over a third of them by index.
        - ``"hadamard"``: the rows of ``H D3 H D2 H D1``, with ``H`` of Walsh-Hadamard
          and diagonals of random signs. Stored are 3 signs for each coordinate and
          each ``n`` bits, ``n`` the next power of two from ``d``; a row costs
          ``n log n`` for each ``n`` bits. Sparse rows are made dense, ``f32[n]`` each,
          a block of them at a time.
      density: of ``"sparse"``: 1/3, or ``d ** -0.5`` for rows that are not sparse
        themselves. A direction of zeros, likely only if ``density * d`` is small, gives
        bits that are always 0.

    Returns:
      A :class:`Family` with ``num_buckets = 2**num_bits``. It has :func:`probes`. If
      ``dim`` is less than the number of bits the directions are dependent; they work.

    Raises:
      TypeError: if a size is no static integer.
      ValueError: if a size is out of range, or ``kind`` or ``density`` is.

    Nothing aliases.

    Source: Charikar, STOC 2002, section 3; ``"sparse"``: Achlioptas, JCSS 2003, and Li,
    Hastie and Church, KDD 2006; ``"hadamard"``: Andoni et al., NeurIPS 2015, section 6.

    Example:
      >>> family = simhash(jax.random.key(0), 128, num_tables=8, num_bits=6)
      >>> family.dim, family.num_tables, family.num_buckets
      (128, 8, 64)
    """
    fn = "simhash"
    require_sizes(fn, dim=dim, num_tables=num_tables, num_bits=num_bits)
    if kind not in KINDS:
        raise ValueError(f"{fn}: kind must be one of {', '.join(KINDS)}; got {kind}.")
    require_positive(fn, 1, density=density)
    sizes = int(dim), int(num_tables), int(num_bits)
    if kind == "hadamard":
        return HadamardSimHash(*sizes, _rotations(key, *sizes))
    shape = dim, num_tables * num_bits
    draw: Callable[..., Array] = _gaussian if kind == "dense" else _ternary
    return SimHash(*sizes, draw(key, shape, float(density)))


def _gaussian(key: Array, shape: tuple[int, ...], density: float) -> Array:
    del density  # Gaussian directions are dense.
    return jax.random.normal(key, shape, jnp.float32)


def _ternary(key: Array, shape: tuple[int, ...], density: float) -> Array:
    of_signs, where = jax.random.split(key)
    is_zero = jax.random.uniform(where, shape, jnp.float32) >= density
    return jnp.where(is_zero, 0, _signs(of_signs, shape)).astype(jnp.bfloat16)


def _rotations(key: Array, dim: int, num_tables: int, num_bits: int) -> Array:
    n = 1 << (dim - 1).bit_length()
    return _signs(key, (-(-num_tables * num_bits // n), 3, n))


def _signs(key: Array, shape: tuple[int, ...]) -> Array:
    """As ``jax.random.rademacher``, whose bits depend on ``jax_enable_x64``."""
    is_one = jax.random.bits(key, shape, jnp.uint8) < 128
    return jnp.where(is_one, jnp.float32(1), jnp.float32(-1))
