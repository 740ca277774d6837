"""An index: which rows of a table are likely to have large products with a vector.

Rows are kept in the buckets that a hash family puts them in, one of each table, and a
query collects the rows of the buckets that it falls in itself. The more tables agree
upon a row, the smaller its angle with the query is likely to be (Charikar 2002; SLIDE,
Chen et al. 2020; BOLT, section 4).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_over, varying_axes
from fsparse.lsh import _buckets
from fsparse.lsh._buckets import NOWHERE, Buckets
from fsparse.lsh._codes import Family
from fsparse.lsh._codes import codes as family_codes
from fsparse.lsh._codes import probes as family_probes
from fsparse.lsh._mips import Mips, mips_queries, mips_rows
from fsparse.matmul import take_rows

Array = jax.Array
_ROWS_A_BLOCK = 4096
_SLACK = 16  # a slot in so many is free, so that a bucket that grows finds one near


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["family", "mips", "buckets"],
    meta_fields=["max_inserted"],
)
@dataclass(frozen=True)
class Index:
    """The rows of a table by their buckets; see :func:`build`."""

    family: Family
    mips: Mips | None  # what is done to rows and queries before they are hashed
    buckets: Buckets
    max_inserted: int  # entries a table may have beside one for each row

    @property
    def num_rows(self) -> int:
        """``n``, rows of the table that is indexed."""
        return int(self.buckets.codes.shape[-1])


class Candidates(NamedTuple):
    """Rows that a query found, those with most votes first."""

    ids: Array  # i32[b, size] or i32[size], padding n
    votes: Array  # likewise, how many of the probed buckets hold the row
    num_found: Array  # i32[b] or i32[], distinct rows in those buckets


def build(
    family: Family, table: Array, *, mips: Mips | None = None, max_inserted: int = 0
) -> Index:
    """Puts every row of a table in its bucket of each hash table.

    Args:
      family: hash functions over vectors of the width of the rows, or of
        ``mips_rows(mips, rows)``; a new one each time redraws them.
      table: ``f32[n, d]`` or ``bf16[n, d]``.
      mips: how rows and queries are prepared, from :func:`mips`; None leaves them.
      max_inserted: how many entries :func:`insert` may add to each hash table.

    Returns:
      An :class:`Index`: ``(6.25 + 8 num_buckets / n) num_tables`` bytes a row, and
      ``4.25 num_tables`` for each entry of ``max_inserted``. There is room for every
      row in any bucket.

    Raises:
      TypeError: if ``table`` is no table.
      ValueError: if it has not two axes or no rows, if its width is not the family's,
        if ``max_inserted < 0``, or if ids of buckets or rows do not fit into i32.

    Nothing aliases, and codes have no gradients. Rows are hashed 4,096 at a time:
    temporaries are those of a block, and 4 bytes a row. Rows with NaN are hashed as
    rows of zeros. The index holds the family's arrays: who donates it donates them.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> index = lsh.build(family, jnp.eye(3))
      >>> lsh.query(index, jnp.array([[0.0, 0.0, 1.0]]), size=1).ids
      Array([[2]], dtype=int32)
    """
    fn = "lsh.build"
    _checks.require_type(fn, Family, family=family)
    (table,) = _checks.as_arrays(fn, table=table)
    _checks.require_table(fn, table=table)
    _checks.require_rank(fn, 2, table=table)
    _checks.require(fn, table.shape[0] > 0, "table must have rows", table=table)
    _checks.require_count(fn, 0, max_inserted=max_inserted)
    n, slots = table.shape[0], table.shape[0] + int(max_inserted)
    capacity = slots + -(-slots // _SLACK)
    _require_ids_fit(fn, capacity, family.num_tables * family.num_buckets)
    codes = codes_of_rows(fn, family, mips, table, jnp.arange(n, dtype=jnp.int32))
    buckets = _buckets.build(codes, family.num_buckets, capacity)
    return Index(family, mips, buckets, int(max_inserted))


def refresh(index: Index, table: Array, ids: Array) -> Index:
    """Moves rows that have changed to where they belong now.

    The time is proportional to ``m``, and to the load of the buckets that rows leave;
    and, where entries were inserted, of those that they enter.

    Args:
      index: of rows like these.
      table: ``f32[n, d]`` or ``bf16[n, d]``, as it is now.
      ids: ``i32[m]`` rows that have changed, or that are not in the index yet; ids
        outside ``[0, n)`` are padding, and repeated ones cost time alone.

    Returns:
      The index with these rows in the buckets that :func:`build` would give them. It
      overwrites ``index``, if that is donated.

    Raises:
      TypeError: if ``index`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> index = lsh.build(family, jnp.eye(3))
      >>> index = lsh.refresh(index, jnp.eye(3)[::-1], jnp.array([0, 2]))
      >>> lsh.query(index, jnp.array([[0.0, 0.0, 1.0]]), size=1).ids
      Array([[0]], dtype=int32)
    """
    fn = "lsh.refresh"
    _checks.require_type(fn, Index, index=index)
    table, ids = _checks.as_arrays(fn, table=table, ids=ids)
    _checks.require_table(fn, table=table)
    require_rows_of(fn, index, table)
    _require_id_list(fn, ids)
    codes = codes_of_rows(fn, index.family, index.mips, table, ids)
    return replace(index, buckets=_buckets.move(index.buckets, ids, codes))


def remove(index: Index, ids: Array) -> Index:
    """Takes rows out of the index; :func:`refresh` puts them back.

    Args:
      index: an index.
      ids: ``i32[m]``; ids outside ``[0, n)`` are padding.

    Returns:
      The index, in which no query finds these rows. It overwrites ``index``, if that is
      donated.

    Raises:
      TypeError: if ``index`` is none, or ``ids`` are not int32.
      ValueError: if they have not one axis.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> index = lsh.remove(lsh.build(family, jnp.eye(3)), jnp.array([2]))
      >>> 2 in lsh.query(index, jnp.array([[0.0, 0.0, 1.0]]), size=3).ids[0]
      False
    """
    fn = "lsh.remove"
    _checks.require_type(fn, Index, index=index)
    (ids,) = _checks.as_arrays(fn, ids=ids)
    _require_id_list(fn, ids)
    codes = jnp.full((index.family.num_tables, ids.size), NOWHERE, jnp.uint16)
    return replace(index, buckets=_buckets.move(index.buckets, ids, codes))


def insert(index: Index, x: Array, ids: Array) -> Index:
    """Adds rows to the buckets that examples fall in: tables that are trained.

    BOLT's label insertion (section 4.3): later queries like ``x[i]`` find ``ids[i]``,
    whatever their angle. Meant for tables whose rows are no longer refreshed: from then
    on, a training step has ``index = lsh.insert(index, h, label_ids)`` in the place of
    its ``lsh.refresh``. Rows that were removed stay so until they are refreshed.

    Args:
      index: built with ``max_inserted``, and a family over vectors like ``x``.
      x: ``f32[b, d]`` examples.
      ids: ``i32[b, l]`` rows that a query for them should find, such as their labels;
        ids outside ``[0, n)`` are padding.

    Returns:
      The index with an entry for each id in each of the ``num_tables`` buckets of its
      example, unless it is there. What is more than ``max_inserted`` is left out, and
      counted in ``index.buckets.num_lost``. It overwrites ``index``, if donated.

    Raises:
      TypeError: if ``index`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> index = lsh.build(family, jnp.eye(3), max_inserted=9)
      >>> x = jnp.array([[0.0, 0.0, 1.0]])
      >>> lsh.query(lsh.insert(index, x, jnp.array([[0]])), x, size=2).votes
      Array([[8, 8]], dtype=int32)
    """
    fn = "lsh.insert"
    _checks.require_type(fn, Index, index=index)
    x, ids = _checks.as_arrays(fn, x=x, ids=ids)
    _checks.require_f32(fn, x=x)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 2, x=x, ids=ids)
    _checks.require(
        fn,
        ids.shape[0] == x.shape[0],
        "ids must have a row for each example",
        ids=ids,
        x=x,
    )
    codes = family_codes(index.family, _prepared(fn, index, x)).T.astype(jnp.uint16)
    codes = jnp.repeat(codes, ids.shape[1], axis=1)
    buckets = _buckets.insert(index.buckets, ids.ravel(), codes, index.max_inserted)
    return replace(index, buckets=buckets)


def query(
    index: Index,
    x: Array,
    size: int,
    *,
    num_probes: int = 1,
    start: Array | int = 0,
    shared: bool = False,
) -> Candidates:
    """The rows that most hash tables find for each example, or for all of them.

    Args:
      index: an index.
      x: ``f32[b, d]`` examples.
      size: how many rows to return, at least 1.
      num_probes: buckets of each table that are looked at (Lv et al. 2007): more find
        more, where 1 finds fewer than ``size`` rows.
      start: of rows with equal votes ``start, start + 1, ...`` come first, around the
        end of the table; a random one treats them alike in the long run.
      shared: count the votes of all examples together.

    Returns:
      :class:`Candidates` for each example, or one list for all. What is left of
      ``size`` is padding ``n``.

    Raises:
      TypeError: if ``index`` is none, ``x`` is not float32, or ``start`` no integer.
      ValueError: if the shapes disagree, or a count is less than 1, or the family has
        no further buckets to probe.

    Nothing aliases, and ids have no gradients. ``start`` is taken modulo ``n``.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> index = lsh.build(family, jnp.eye(3))
      >>> x = jnp.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
      >>> sorted(lsh.query(index, x, size=2, shared=True).ids.tolist())
      [0, 2]
    """
    fn = "lsh.query"
    _checks.require_type(fn, Index, index=index)
    (x,) = _checks.as_arrays(fn, x=x)
    _checks.require_f32(fn, x=x)
    _checks.require_rank(fn, 2, x=x)
    _checks.require_count(fn, 1, size=size, num_probes=num_probes)
    first = _first_row(fn, index, start)
    probes = _probes(fn, index, x, num_probes)
    groups = 1 if shared else x.shape[0]
    probes = probes.reshape(groups, probes.size // max(groups, 1))
    found = Candidates(*_buckets.vote(index.buckets, probes, first, int(size)))
    return Candidates(*(y[0] for y in found)) if shared else found


def num_bytes(index: Index) -> int:
    """Bytes of an index, its hash functions among them.

    Args:
      index: an index, or its shapes from ``jax.eval_shape``.

    Returns:
      The sum over its arrays.

    Raises:
      TypeError: if it is no index.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 64, num_tables=16, num_bits=6)
      >>> lsh.num_bytes(lsh.build(family, jnp.zeros((1024, 64)))) < 4 * 64 * 1024
      True
    """
    _checks.require_type("lsh.num_bytes", Index, index=index)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(index))


# ---- codes --------------------------------------------------------------------------


def codes_of_rows(
    fn: str, family: Family, mips: Mips | None, table: Array, ids: Array
) -> Array:
    """``u16[num_tables, m]``, a block of rows at a time; nowhere for padding."""

    def prepared(rows: Array) -> Array:
        return rows if mips is None else mips_rows(mips, rows)

    def of_block(ids: Array) -> Array:
        codes = family_codes(family, prepared(take_rows(table, ids)))
        is_row = (ids >= 0) & (ids < table.shape[0])
        return jnp.where(is_row[:, None], codes, NOWHERE).astype(jnp.uint16).T

    require_width(fn, family, jax.eval_shape(prepared, table[:0]), table=table)
    return _by_blocks(of_block, ids, min(_ROWS_A_BLOCK, ids.size))


def _by_blocks(of_block: Callable[[Array], Array], ids: Array, size: int) -> Array:
    """``of_block(ids)`` for all ids; the last block overlaps the one before it."""
    if size == ids.size:
        return of_block(ids)
    like = jax.eval_shape(of_block, ids[:size])
    out = jnp.zeros((like.shape[0], ids.size), like.dtype)

    def step(i: Array, out: Array) -> Array:
        first = jnp.minimum(i * size, ids.size - size)
        block = of_block(jax.lax.dynamic_slice_in_dim(ids, first, size))
        return jax.lax.dynamic_update_slice_in_dim(out, block, first, axis=1)

    out = vary_over(out, varying_axes(like))
    return jax.lax.fori_loop(0, -(-ids.size // size), step, out)


def _prepared(fn: str, index: Index, x: Array) -> Array:
    prepared = x if index.mips is None else mips_queries(index.mips, x)
    require_width(fn, index.family, prepared, x=x)
    return prepared


def _probes(fn: str, index: Index, x: Array, num_probes: int) -> Array:
    """``i32[b, num_tables, num_probes]`` buckets, numbered through all tables."""
    family, x = index.family, _prepared(fn, index, x)
    if num_probes == 1:
        codes = family_codes(family, x)[:, :, None]
    else:
        codes = family_probes(family, x, num_probes)
    first = jnp.arange(family.num_tables, dtype=jnp.int32) * family.num_buckets
    return codes + first[None, :, None]


def _first_row(fn: str, index: Index, start: Array | int) -> Array:
    """``start`` modulo ``n``."""
    (start,) = _checks.as_arrays(fn, start=start)
    if not jnp.issubdtype(start.dtype, jnp.integer):
        raise TypeError(f"{fn}: start must be an integer; got {_checks.aval(start)}.")
    _checks.require_rank(fn, 0, start=start)
    wide = start if start.dtype.itemsize >= 4 else start.astype(jnp.int32)
    return (wide % jnp.asarray(index.num_rows, wide.dtype)).astype(jnp.int32)


# ---- checks -------------------------------------------------------------------------


def require_width(fn: str, family: Family, hashed: Any, **of: Array) -> None:
    if hashed.shape[1] != family.dim:
        ((name, x),) = of.items()
        raise ValueError(
            f"{fn}: {name} must give vectors of the family's width {family.dim}; got "
            f"{name}: {_checks.aval(x)}, which gives {hashed.shape[1]}."
        )


def require_rows_of(fn: str, index: Index, table: Array) -> None:
    """A table of the rows that are in the index."""
    _checks.require_rank(fn, 2, table=table)
    if table.shape[0] != index.num_rows:
        raise ValueError(
            f"{fn}: table must have the {index.num_rows} rows of the index; got "
            f"table: {_checks.aval(table)}."
        )


def _require_id_list(fn: str, ids: Array) -> None:
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 1, ids=ids)


def _require_ids_fit(fn: str, num_slots: int, num_buckets: int) -> None:
    if num_slots >= 2**31:
        raise ValueError(
            f"{fn}: 17 / 16 (rows + max_inserted) must be less than 2**31, for slots "
            f"are numbered in int32; got {num_slots}. Split the table."
        )
    if num_buckets >= 2**31:
        raise ValueError(
            f"{fn}: num_tables * num_buckets must be less than 2**31, for buckets are "
            f"numbered in int32; got {num_buckets}. Use fewer bits or fewer tables."
        )
