"""The state of a sketch: one table of cells, and what is known of all of them."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.lsh import Family

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NWSketch:
    """Counts and sums of values, in a cell of each row; see :func:`nw_init`.

    Row ``r`` has ``W = family.num_buckets`` cells for each slice and block: those of
    code ``j`` begin at ``(j * num_slices + slice) * num_blocks + block``. A cell is a
    count, then ``m`` sums. All is in units of ``unit``.
    """

    family: Family  # R = num_tables hash functions
    table: Array  # f32[R, W * num_slices * num_blocks, 1 + m]
    totals: Array  # f32[num_slices, num_blocks, 1 + m], of all that was inserted
    unit: Array  # f32[], what a new example of weight 1 adds to a count
    block: Array  # i32[], where new examples go
    num_ignored: Array  # i32[], examples that had no finite value or no fit weight
    num_rescaled: Array  # i32[], how often the past was halved so that counts add up
    num_outputs: int | None = field(metadata={"static": True})  # None: scalar values
    num_slices: int = field(metadata={"static": True})
    num_blocks: int = field(metadata={"static": True})


def nw_init(
    family: Family,
    *,
    num_outputs: int | None = None,
    num_slices: int = 1,
    num_blocks: int = 1,
) -> NWSketch:
    """An empty sketch of a function of rows: its kernel regression in fixed memory.

    Each of the ``R = family.num_tables`` rows of the sketch has a cell for each code,
    in which it counts the examples that fall there and sums their values. The mean over
    rows of the cells at ``q`` estimates ``sum_i k(x_i, q)`` and ``sum_i y_i k(x_i,
    q)``, where the kernel ``k`` is the chance that a table of the family gives both
    rows one code: :func:`fsparse.lsh.collision_probability`. Their ratio is the
    estimate of Nadaraya and Watson.

    Args:
      family: from :func:`fsparse.lsh.simhash`, ``l2`` or ``minhash``: the kernel. More
        bits or hashes narrow it; the error falls as ``1 / sqrt(num_tables)``.
      num_outputs: ``m``, if values are vectors ``f32[b, m]``; None: ``f32[b]``.
      num_slices: separate sketches that share the hash functions, one for each class:
        an example is in slice ``label % num_slices``.
      num_blocks: of a ring, for a window that slides: see :func:`nw_rotate`.

    Returns:
      An :class:`NWSketch` of ``4 (1 + m) R W num_slices num_blocks`` bytes, beside the
      family, whose arrays it holds: who donates it donates them.

    Raises:
      TypeError: if ``family`` is none or a size is no static integer.
      ValueError: if a size is less than 1, or cells are more than int32 numbers.

    Source: Adaptive Sampling for Deep Learning via Efficient Nonparametric Proxies
    (arXiv:2311.13583); counts alone: RACE (Coleman and Shrivastava, WWW 2020).

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 18, num_tables=32, num_bits=8)
      >>> nw_init(family, num_slices=10).table.shape
      (32, 2560, 2)
    """
    fn = "nw_init"
    _checks.require_type(fn, Family, family=family)
    _checks.require_count(fn, 1, num_slices=num_slices, num_blocks=num_blocks)
    if num_outputs is not None:
        _checks.require_count(fn, 1, num_outputs=num_outputs)
    num_cells = family.num_buckets * num_slices * num_blocks
    _require_cells_fit(fn, num_cells)
    width = 1 + (num_outputs or 1)
    return NWSketch(
        family,
        table=jnp.zeros((family.num_tables, num_cells, width), jnp.float32),
        totals=jnp.zeros((num_slices, num_blocks, width), jnp.float32),
        unit=jnp.float32(1),
        block=jnp.int32(0),
        num_ignored=jnp.int32(0),
        num_rescaled=jnp.int32(0),
        num_outputs=None if num_outputs is None else int(num_outputs),
        num_slices=int(num_slices),
        num_blocks=int(num_blocks),
    )


def nw_num_bytes(sketch: NWSketch) -> int:
    """The memory of a sketch: of its cells and its hash functions.

    Args:
      sketch: from :func:`nw_init`, or its shape.

    Returns:
      Bytes of all arrays in it.

    Raises:
      TypeError: if ``sketch`` is none.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.minhash(jax.random.key(0), 100, num_tables=4, num_bits=8)
      >>> nw_num_bytes(nw_init(family))
      8232
    """
    _checks.require_type("nw_num_bytes", NWSketch, sketch=sketch)
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(sketch))


def _require_cells_fit(fn: str, num_cells: int) -> None:
    if num_cells >= 2**31 - 1:
        raise ValueError(
            f"{fn}: num_buckets * num_slices * num_blocks must be less than 2**31 - 1, "
            f"for cells are numbered in int32; got {num_cells}. Use fewer slices."
        )
