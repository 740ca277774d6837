"""How well an index serves a table: figures of it, from a sample of examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import _checks
from fsparse.lsh._buckets import NOWHERE, Buckets
from fsparse.lsh._index import (
    Index,
    codes_of_rows,
    num_bytes,
    query,
    require_rows_of,
)
from fsparse.metrics import hits
from fsparse.reference import valid
from fsparse.topk import dense_top_k

Array = jax.Array
_ROWS_HASHED = 4096


class Diagnostics(NamedTuple):
    """Figures of an index, from :func:`diagnose`; all but one are scalars.

    Those without a type are ``f32[]``. Shares are in ``[0, 1]``.
    """

    num_rows: Array  # i32[], n
    num_examples: Array  # i32[], b
    size: Array  # i32[], candidates asked for
    num_found: Array  # mean of the distinct rows that an example finds
    fill: Array  # mean share of min(size, n) that they take
    padding: Array  # 1 - fill, what uniform rows must take
    label_hit_rate: Array  # share of the labels that are candidates
    recall: Array  # share of the k largest inner products that are candidates
    never_found: Array  # share of the rows that no example finds
    never_visited: Array  # share of the rows with no visits
    stale: Array  # the index's age: share of codes that their rows have no longer
    load_histogram: Array  # i32[p], buckets with 0, 1, 2-3, 4-7, ... rows
    mean_load: Array  # rows in a bucket
    max_load: Array  # i32[], rows in the fullest bucket
    empty: Array  # share of the buckets
    num_lost: Array  # i32[], insertions without room, over all hash tables
    bytes_per_row: Array  # of the index
    weight_bytes_per_row: Array  # of the table


def diagnose(
    index: Index,
    x: Array,
    table: Array,
    labels: Array | None = None,
    *,
    size: int,
    k: int = 10,
    num_probes: int = 1,
    visits: Array | None = None,
) -> Diagnostics:
    """Figures that tell whether an index is worth its memory and time.

    Candidates are the ``size`` rows that ``query(index, x, size)`` ranks first, before
    labels are added and uniform rows fill the rest.

    Args:
      index: of the rows of ``table``, perhaps as they were some steps ago.
      x: ``f32[b, d]`` examples; some hundreds make shares that are good to 0.05.
      table: ``f32[n, d]`` or ``bf16[n, d]``, as it is now.
      labels: ``i32[b, l]``; ids outside ``[0, n)`` are padding.
      size: candidates of each example.
      k: ``recall`` is that of the ``k`` rows with the largest inner products; it is no
        more than ``size / k``.
      num_probes: as of :func:`query`.
      visits: ``i32[n]``, how often each row was active so far. To count them, add
        ``visits = visits.at[active.ids].add(1, mode="drop")`` to a step.

    Returns:
      :class:`Diagnostics`, for :func:`warn` and :func:`plot_diagnostics`. A share of
      nothing is NaN: ``label_hit_rate`` without labels, ``never_visited`` without
      ``visits``, ``recall`` if no inner product is comparable. ``stale`` is measured on
      at most 4,096 rows, spread evenly; removed ones do not count. ``never_found`` is
      before candidates are cut off at ``size``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree, there are no examples, or a count is less
        than 1.

    Pure, so it may be in ``jit``; nothing aliases, and nothing has gradients. Costs
    ``O(b n d)`` for the exact products, no more memory than they take in
    :func:`fsparse.dense_top_k`, and bool masks ``[b, max(k, l), size]``.

    Source: MONGOOSE (Chen et al., ICLR 2021) hashes anew when enough bits of a sketch
    of the rows have changed; ``stale`` counts the codes themselves.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 16, num_tables=8, num_bits=2)
      >>> x = jnp.eye(16)
      >>> index = lsh.build(family, x)
      >>> diagnostics = lsh.diagnose(index, x, x, size=8, k=1)
      >>> diagnostics.recall, diagnostics.stale
      (Array(1., dtype=float32), Array(0., dtype=float32))
    """
    fn = "lsh.diagnose"
    x, table = _checked_examples(fn, index, x, table)
    _checks.require_count(fn, 1, size=size, k=k, num_probes=num_probes)
    n, (b, d), room = index.num_rows, x.shape, min(int(size), index.num_rows)
    found = query(index, x, room, num_probes=num_probes)
    fill = jnp.mean(_share(jnp.minimum(found.num_found, room), room))
    fill = jnp.minimum(fill, 1)  # which rounding may exceed
    best = dense_top_k(x, table, k)[1]
    by_any = query(index, x, 1, num_probes=num_probes, shared=True).num_found
    return Diagnostics(
        num_rows=jnp.int32(n),
        num_examples=jnp.int32(b),
        size=jnp.int32(size),
        num_found=jnp.mean(found.num_found, dtype=jnp.float32),
        fill=fill,
        padding=1 - fill,
        label_hit_rate=_label_hit_rate(fn, labels, found.ids, n),
        recall=_share_of(best, found.ids, n),
        never_found=1 - _share(by_any, n),
        never_visited=_never_visited(fn, visits, n),
        stale=_stale(index, table),
        **_loads(index.buckets),
        num_lost=jnp.sum(index.buckets.num_lost, dtype=jnp.int32),
        bytes_per_row=jnp.float32(num_bytes(index) / n),
        weight_bytes_per_row=jnp.float32(d * table.dtype.itemsize),
    )


def _checked_examples(
    fn: str, index: Index, x: Array, table: Array
) -> tuple[Array, Array]:
    _checks.require_type(fn, Index, index=index)
    x, table = _checks.as_arrays(fn, x=x, table=table)
    _checks.require_f32(fn, x=x)
    _checks.require_rank(fn, 2, x=x)
    _checks.require(fn, x.shape[0] > 0, "x must have examples", x=x)
    _checks.require_table(fn, table=table)
    require_rows_of(fn, index, table)
    _checks.require(
        fn,
        table.shape[1] == x.shape[1],
        "table.shape[1] must equal x.shape[1]",
        table=table,
        x=x,
    )
    return x, table


# ---- shares -------------------------------------------------------------------------


def _share(count: Array, total: Array | int) -> Array:
    """``f32``, of counts that are exact."""
    return count.astype(jnp.float32) / jnp.asarray(total, jnp.float32)


def _share_of(wanted: Array, candidates: Array, num_rows: int) -> Array:
    """Of ids ``i32[b, m]``, those among the candidates of their example."""
    is_hit = hits(wanted, candidates, num_labels=num_rows)
    return _share(jnp.sum(is_hit), jnp.sum(valid(wanted, num_rows)))


def _label_hit_rate(
    fn: str, labels: Array | None, candidates: Array, num_rows: int
) -> Array:
    if labels is None:
        return jnp.float32(jnp.nan)
    (labels,) = _checks.as_arrays(fn, labels=labels)
    _checks.require_ids(fn, labels=labels)
    _checks.require_rank(fn, 2, labels=labels)
    _checks.require(
        fn,
        labels.shape[0] == candidates.shape[0],
        f"labels must have a row for each of the {candidates.shape[0]} examples",
        labels=labels,
    )
    return _share_of(labels, candidates, num_rows)


def _never_visited(fn: str, visits: Array | None, num_rows: int) -> Array:
    if visits is None:
        return jnp.float32(jnp.nan)
    (visits,) = _checks.as_arrays(fn, visits=visits)
    _checks.require_ids(fn, visits=visits)
    _checks.require(
        fn,
        visits.shape == (num_rows,),
        f"visits must have a count for each of the {num_rows} rows",
        visits=visits,
    )
    return _share(jnp.sum(visits == 0), num_rows)


def _stale(index: Index, table: Array) -> Array:
    n = index.num_rows
    sampled = min(n, _ROWS_HASHED)
    ids = (np.arange(sampled) * n // sampled).astype(np.int32)
    now = codes_of_rows(
        "lsh.diagnose", index.family, index.mips, table, jnp.asarray(ids)
    )
    then = index.buckets.codes[:, ids]
    is_stored = then != NOWHERE
    return _share(jnp.sum(is_stored & (now != then)), jnp.sum(is_stored))


def _loads(buckets: Buckets) -> dict[str, Array]:
    """Of all hash tables together; sums of one of them fit into i32."""
    sizes, most = buckets.sizes, buckets.entries.shape[1]
    num_binary_digits = 32 - jax.lax.clz(sizes.ravel())
    return {
        "load_histogram": jnp.bincount(
            num_binary_digits, length=1 + most.bit_length()
        ).astype(jnp.int32),
        "mean_load": jnp.mean(_share(jnp.sum(sizes, axis=1), sizes.shape[1])),
        "max_load": jnp.max(sizes),
        "empty": _share(jnp.sum(sizes == 0), sizes.size),
    }
