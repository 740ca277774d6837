"""Hash functions of a size that needs no thought: an index no larger than its rows."""

import math

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.lsh._codes import Family
from fsparse.lsh._index import build, num_bytes
from fsparse.lsh._join import MAX_BITS
from fsparse.lsh._simhash import simhash

Array = jax.Array
_ROWS_A_BUCKET = 200  # what a query reads in each table, if rows spread evenly
_MIN_BITS, _MAX_TABLES = 4, 64


def default_family(key: Array, num_rows: int, dim: int) -> Family:
    """SimHash for a table: buckets of about 200 rows, and tables as memory allows.

    ``num_bits = round(log2(num_rows / 200))`` in ``[4, 15]``, and ``num_tables`` in
    ``[1, 64]``: as many as make the index, ``(6.25 + 8 num_buckets / n) num_tables``
    bytes a row and the directions, no larger than ``4 dim`` bytes a row, which the rows
    take in f32. Where rows are so narrow or so few that one table is larger, it is one.

    Args:
      key: PRNG key.
      num_rows: ``n``, rows of the table.
      dim: width of what is hashed: that of a row, and 1 more if ``mips`` augments.

    Returns:
      A :func:`fsparse.lsh.simhash` family. Without ``max_inserted``,
      ``num_bytes(build(family, table)) <= 4 * n * dim`` if it has more than one table.

    Raises:
      TypeError: if a size is no integer.
      ValueError: if a size is less than 1, or there are more rows than ids.

    Nothing aliases. Where the examples are at hand, :func:`fsparse.lsh.tune` measures
    what this guesses.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.default_family(jax.random.key(0), 218_590, 128)
      >>> family.num_tables, family.num_buckets
      (64, 1024)
    """
    fn = "lsh.default_family"
    _checks.require_count(fn, 1, num_rows=num_rows, dim=dim)
    _checks.require_rows_fit(fn, num_rows)
    num_bits = default_bits(num_rows)
    num_tables = tables_that_fit(num_rows, dim, num_bits)
    return simhash(key, dim, num_tables=num_tables, num_bits=num_bits)


def default_bits(num_rows: int) -> int:
    """Of a code, so that a bucket has about 200 rows."""
    wanted = round(math.log2(num_rows / _ROWS_A_BUCKET))
    return min(max(wanted, _MIN_BITS), MAX_BITS)


def tables_that_fit(num_rows: int, dim: int, num_bits: int) -> int:
    """How many an index may have. All of one are at most so many times one table."""

    def one_table(key: Array, table: Array) -> object:
        return build(simhash(key, dim, num_tables=1, num_bits=num_bits), table)

    rows = jax.ShapeDtypeStruct((num_rows, dim), jnp.float32)
    index = jax.eval_shape(one_table, jax.random.key(0), rows)
    return min(max(4 * num_rows * dim // num_bytes(index), 1), _MAX_TABLES)
