"""Sparse inference measured on the spot: does an index pay here, and which one?"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks, metrics
from fsparse.lsh import _mips
from fsparse.lsh._codes import Family
from fsparse.lsh._default import default_bits, tables_that_fit
from fsparse.lsh._index import (
    Index,
    build,
    hashed_width,
    num_bytes,
    query,
    require_rows_of,
)
from fsparse.lsh._join import MAX_BITS, require_positive
from fsparse.lsh._search import top_k
from fsparse.lsh._simhash import simhash
from fsparse.reference import valid
from fsparse.topk import dense_top_k

Array = jax.Array
_PARTS = (8, 4, 2, 1)  # of the largest fraction: the sizes that are tried
_PROBES = (1, 4)
_TIMED = 31  # queries, of which the median counts


class SearchTrial(NamedTuple):
    """A setting of an index, and what it does on the examples."""

    num_tables: int
    num_bits: int
    num_probes: int
    size: int  # rows scored: the fewest tried that reach the recall, or the most
    num_bytes: int  # of the index
    recall: float  # share of the rows of the exact search that are found
    precision: float | None  # share of the examples whose best row is a label
    seconds: float | None  # median of one query; None if the recall is too low


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["index"],
    meta_fields=["num_probes", "size", "use_dense", "trials", "dense_seconds", "why"],
)
@dataclass(frozen=True)
class TunedSearch:
    """What :func:`tune` chose: an argument of :func:`search`, and a pytree."""

    index: Index | None  # None with use_dense
    num_probes: int
    size: int
    use_dense: bool
    trials: tuple[SearchTrial, ...] = field(repr=False)
    dense_seconds: float  # median of one query by the exact search
    why: str


def tune(
    key: Array,
    x: Array,
    table: Array,
    labels: Array | None = None,
    *,
    k: int = 1,
    max_fraction: float = 0.02,
    recall: float = 0.99,
    mips: _mips.Mips | None = None,
    max_inserted: int = 0,
) -> TunedSearch:
    """The fastest index for single queries that finds what the exact search finds.

    Builds SimHash indexes, none with more bytes than the rows take in f32, looks into 1
    and 4 buckets of each table, and scores an eighth, a quarter, a half or all of
    ``max_fraction`` of the rows: of each index the fewest that find the share
    ``recall`` of the ``k`` best rows of all examples. Those settings are timed here and
    now, one example at a time, as is :func:`fsparse.dense_top_k`, and the fastest wins.

    Args:
      key: PRNG key, of the hash functions.
      x: ``f32[b, d]`` examples such as those to come, 256 or more, and not those that
        the table was trained on.
      table: ``f32[n, d]`` or ``bf16[n, d]`` of trained rows.
      labels: ``i32[b, l]`` true rows of the examples, if their share among the best
        rows is wanted in the figures; ids outside ``[0, n)`` are padding.
      k: how many rows a search returns.
      max_fraction: of the rows, the most to score.
      recall: share that must be found, in ``(0, 1]``.
      mips: how rows and queries are prepared; None stands for ``lsh.mips(table)``,
        which centres the rows, and ``lsh.mips(table, center=False)`` does not.
      max_inserted: room for :func:`insert` in the index, as of :func:`build`.

    Returns:
      A :class:`TunedSearch` for :func:`search`: ``index``, ``num_probes``, ``size``,
      and ``trials`` with the figures of each setting. ``use_dense`` is set, and
      ``index`` None, if no setting reaches ``recall``, or none is faster than the exact
      search. ``why`` says which. Times differ between runs, and so may the choice;
      recalls are a function of the arguments.

    Raises:
      TypeError: if a dtype differs from the above, or an array is traced: this runs
        outside of ``jit``, since it measures time.
      ValueError: if the shapes disagree, there are no examples or rows, or a number is
        outside its range.

    Nothing aliases. Takes seconds to minutes: six indexes are built.

    Example:
      >>> from fsparse import lsh
      >>> x, table = jnp.eye(2, 4), jnp.eye(8, 4)
      >>> tuned = lsh.tune(jax.random.key(0), x, table, recall=1.0)
      >>> tuned.use_dense, len(tuned.trials)
      (True, 6)
    """
    fn = "lsh.tune"
    x, table, labels = _checked(fn, x, table, labels)
    _checks.require_count(fn, 1, k=k)
    _checks.require_count(fn, 0, max_inserted=max_inserted)
    require_positive(fn, 1, max_fraction=max_fraction, recall=recall)
    mips = _mips.mips(table) if mips is None else mips
    _, exact = dense_top_k(x, table, k)
    dense_seconds = median_seconds(partial(_dense, k=k), x, table)
    sizes = _sizes(table.shape[0], k, max_fraction)
    best, trials = None, list[SearchTrial]()
    for family in _ladder(key, table.shape[0], hashed_width(mips, table)):
        index = build(family, table, mips=mips, max_inserted=max_inserted)
        for num_probes in _PROBES:
            found = _recalls(index, x, exact, sizes, num_probes)
            size, share = _fewest(sizes, found, recall)
            setting = {"k": k, "size": size, "num_probes": num_probes}
            seconds = None
            if share >= recall:
                seconds = median_seconds(partial(top_k, **setting), x, table, index)
            trial = SearchTrial(
                family.num_tables,
                family.num_buckets.bit_length() - 1,
                num_probes,
                size,
                num_bytes(index),
                share,
                _precision(index, x, table, labels, setting),
                seconds,
            )
            trials.append(trial)
    return best
