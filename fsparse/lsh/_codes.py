"""What every hash family has, and its codes for any number of rows.

Rows are hashed a block at a time, so that memory does not grow with their number.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_over, vary_together, varying_axes
from fsparse.lsh._inputs import BLOCK_ROWS, Rows, block_of, num_rows, open_rows

Array = jax.Array

BLOCK_FLOATS = 2**22


class Family:
    """A hash family: a pytree of random choices, with static sizes.

    Attributes:
      dim: coordinates of a row.
      num_tables: codes of a row.
      num_buckets: every code lies in ``[0, num_buckets)``.
    """

    dim: int
    num_tables: int

    @property
    def num_buckets(self) -> int:
        """Every code lies in ``[0, num_buckets)``."""
        raise NotImplementedError

    def floats_a_row(self, x: Rows) -> int:
        """What hashing a row takes in memory, roughly: blocks are cut by it."""
        raise NotImplementedError

    def hash_rows(self, x: Rows) -> Array:
        """``i32[b, num_tables]`` of rows that may have to be cleaned first."""
        raise NotImplementedError

    def probe_rows(self, x: Rows, num_probes: int) -> Array:
        """``i32[b, num_tables, num_probes]``, likewise."""
        raise ValueError(
            "probes: family must be one that can probe neighbours, which simhash can; "
            f"got {type(self).__name__}. Use more tables, or num_probes=1 by codes."
        )


def codes(family: Family, x: Rows) -> Array:
    """The code of each row in each table.

    Args:
      family: made by :func:`simhash`, :func:`dwta`, :func:`minhash` or :func:`l2`.
      x: ``f32[b, dim]`` or ``bf16[b, dim]`` rows, or :class:`SparseRows` of
        ``i32[b, s]`` ids and ``f32[b, s]`` or ``bf16[b, s]`` values, in which an id
        outside ``[0, dim)`` is padding and values of equal ids add up.

    Returns:
      ``i32[b, num_tables]``, each in ``[0, family.num_buckets)``.

    Raises:
      TypeError: if ``family`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree.

    A row with NaN or infinity has the codes of the row of zeros. Nothing aliases, and
    codes have no gradients. Memory: a block of at most 4,096 rows at a time. The bits
    are the same for any number of threads and, on CPU, for a row alone and in a batch.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=2, num_bits=4)
      >>> same = lsh.codes(family, jnp.array([[1., 2., 3.], [2., 4., 6.]]))
      >>> bool((same[0] == same[1]).all())
      True
    """
    fn = "codes"
    _checks.require_type(fn, Family, family=family)
    return _codes(family, open_rows(fn, family.dim, x))


def probes(family: Family, x: Rows, num_probes: int) -> Array:
    """The code of each row in each table, and the likeliest others beside it.

    SimHash: the codes that differ by flipping a set of bits, in rising order of the
    sum of ``|projection|`` over the set. A neighbour of a row most likely has its
    code, or one of these: more probes do the work of more tables.

    Args:
      family: made by :func:`simhash`.
      x: rows, as for :func:`codes`.
      num_probes: codes for each table, from 1 to ``family.num_buckets``.

    Returns:
      ``i32[b, num_tables, num_probes]``, distinct within a table. The first is the one
      of :func:`codes`. Equal sums are ordered in a fixed way.

    Raises:
      TypeError: if ``family`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, ``num_probes`` is out of range, or the family
        has no probes.

    Nothing aliases, and codes have no gradients. Memory: a block at a time.

    Source: Lv et al., Multi-probe LSH, VLDB 2007, section 4 (sets of perturbations in
    order of a score), with the bits of Charikar 2002 in place of intervals.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=2, num_bits=4)
      >>> lsh.probes(family, jnp.ones((5, 3)), num_probes=3).shape
      (5, 2, 3)
    """
    fn = "probes"
    _checks.require_type(fn, Family, family=family)
    _checks.require_count(fn, 1, num_probes=num_probes)
    require_at_most(fn, family.num_buckets, num_probes=num_probes)
    return _probes(family, open_rows(fn, family.dim, x), int(num_probes))


def require_at_most(fn: str, most: int, **values: int) -> None:
    """Sizes with an upper bound."""
    for name, x in values.items():
        if x > most:
            raise ValueError(
                f"{fn}: {name} must be at most {most}; got {x}. Make it smaller."
            )


@jax.jit
def _codes(family: Family, x: Rows) -> Array:
    family, x = _constant(family, x)
    return _by_blocks(family, x, (family.num_tables,), family.hash_rows)


@jax.jit(static_argnums=2)
def _probes(family: Family, x: Rows, num_probes: int) -> Array:
    family, x = _constant(family, x)
    return _by_blocks(
        family,
        x,
        (family.num_tables, num_probes),
        lambda rows: family.probe_rows(rows, num_probes),
    )


def _constant(family: Family, x: Rows) -> tuple[Family, Rows]:
    """Without gradients, and alike to ``shard_map``."""
    leaves, tree = jax.tree.flatten(jax.lax.stop_gradient((family, x)))
    family, x = jax.tree.unflatten(tree, vary_together(*leaves))
    return family, x


def _by_blocks(
    family: Family, x: Rows, tail: tuple[int, ...], hash_rows: Callable[[Rows], Array]
) -> Array:
    """``hash_rows`` of all rows: the last block overlaps the one before it."""
    b = num_rows(x)
    width = max(family.floats_a_row(x), math.prod(tail))
    size = max(1, min(BLOCK_ROWS, BLOCK_FLOATS // width))
    axes = varying_axes(jax.tree.leaves(x)[0])
    out = vary_over(jnp.zeros((b, *tail), jnp.int32), axes)
    if b == 0:
        return out
    if b <= size:
        return hash_rows(x)

    def step(i: Array, out: Array) -> Array:
        start = jnp.minimum(i * size, b - size)
        block = hash_rows(block_of(x, start, size))
        return jax.lax.dynamic_update_slice_in_dim(out, block, start, axis=0)

    return jax.lax.fori_loop(0, -(-b // size), step, out)
