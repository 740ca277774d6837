"""Sparse inference: the best rows among those that an index finds."""

import jax

from fsparse import _checks
from fsparse.lsh._index import Index, query, require_rows_of
from fsparse.quantized import Int8Rows
from fsparse.table import Table
from fsparse.topk import sampled_top_k

Array = jax.Array


def top_k(
    index: Index,
    x: Array,
    table: Array | Table | Int8Rows,
    k: int,
    *,
    size: int,
    num_probes: int = 1,
) -> tuple[Array, Array]:
    """The ``k`` largest dot products with rows that the index finds.

    The ``size`` rows with the most votes are scored exactly. With ``size = n`` every
    row in the probed buckets is: padding costs ``8 n`` bytes for each example and a
    look at each, and no products.

    Args:
      index: of the rows of the table.
      x: ``f32[b, d]`` examples, or one of them, ``f32[d]``.
      table: ``f32[n, d]`` or ``bf16[n, d]``, or :class:`fsparse.Int8Rows`, of which
        less is read, at random places.
      k: how many, at least 1.
      size: how many rows to score, at least ``k``.
      num_probes: as of :func:`query`.

    Returns:
      ``f32[b, k]`` scores in descending order and ``i32[b, k]`` row ids; without the
      ``b`` for one example. Equal scores rank by votes. Where fewer than ``k`` rows are
      found, the rest are ``-inf`` with id ``n``.

    Raises:
      TypeError: if ``index`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, ``k < 1``, ``size < k`` or ``num_probes < 1``.

    Nothing aliases. The scores are differentiable in ``x`` and ``table``, as those of
    :func:`fsparse.sampled_top_k`. What is found is approximate:
    :func:`fsparse.lsh.tune` measures how often the best row is among it.

    Source: BOLT (arXiv:2303.17727), section 4.3, which takes candidates in no order.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> table = jax.numpy.eye(3)
      >>> index = lsh.build(family, table)
      >>> lsh.top_k(index, 2 * table[1], table, 1, size=3)
      (Array([2.], dtype=float32), Array([1], dtype=int32))
    """
    fn = "lsh.top_k"
    _checks.require_type(fn, Index, index=index)
    if isinstance(table, Int8Rows):
        x, values = _checks.as_arrays(fn, x=x, table=table.values)
        _checks.require_int8(fn, table=values)
    else:
        x, table = _checks.as_arrays(fn, x=x, table=table)
        _checks.require_table(fn, table=table)
        values = table
    _checks.require_f32(fn, x=x)
    _checks.require_rank(fn, (1, 2), x=x)
    require_rows_of(fn, index, values)
    _checks.require(
        fn,
        x.shape[-1] == values.shape[1],
        "x.shape[-1] must equal table.shape[1]",
        x=x,
        table=values,
    )
    _checks.require_count(fn, 1, k=k, num_probes=num_probes)
    require_room(fn, k, size=size)
    examples = x if x.ndim == 2 else x[None]
    found = query(index, examples, min(size, index.num_rows), num_probes=num_probes)
    scores, ids = sampled_top_k(examples, table, found.ids, k)
    return (scores, ids) if x.ndim == 2 else (scores[0], ids[0])


def require_room(fn: str, k: int, *, size: int) -> None:
    """No more can be returned than is scored."""
    _checks.require_count(fn, 1, size=size)
    if size < k:
        raise ValueError(
            f"{fn}: size must be at least k, for only so many rows are scored; got "
            f"size {size} and k {k}."
        )
