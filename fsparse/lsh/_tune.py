"""Sparse inference measured on the spot: does an index pay here, and which one?"""

import math
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
    num_bytes,
    query,
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
    seconds: float  # median of one query; inf, not timed, if the recall is too low


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

    Builds SimHash indexes, at most about as large as the rows are in f32, looks into 1
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
      max_inserted: room for :func:`insert` in the index, as of :func:`build`. A changed
        index takes its place by ``dataclasses.replace(tuned, index=index)``.

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

    Nothing aliases. Takes seconds to minutes: up to six indexes are built.

    Example:
      >>> from fsparse import lsh
      >>> x, table = jnp.eye(2, 4), jnp.eye(8, 4)
      >>> tuned = lsh.tune(jax.random.key(0), x, table, k=2)
      >>> len(tuned.trials), lsh.search(tuned, x[0], table, k=2)[0].shape
      (6, (2,))
    """
    fn = "lsh.tune"
    x, table, labels = _checked(fn, x, table, labels)
    _checks.require_count(fn, 1, k=k)
    _checks.require_count(fn, 0, max_inserted=max_inserted)
    require_positive(fn, 1, max_fraction=max_fraction, recall=recall)
    dense_seconds = median_seconds(partial(_dense, k=k), x, table)
    _, exact = dense_top_k(x, table, k)
    sizes = _sizes(table.shape[0], k, max_fraction)
    task = _Task(x, table, labels, exact, sizes, k, recall)
    mips = _mips.mips(table) if mips is None else mips
    chosen, trials = None, list[SearchTrial]()
    width = jax.eval_shape(_mips.mips_rows, mips, table[:1]).shape[1]
    for family in _ladder(key, table.shape[0], width):
        index = build(family, table, mips=mips, max_inserted=max_inserted)
        for num_probes in _PROBES:
            trials.append(_tried(task, index, num_probes))
            if trials[-1] is fastest(trials):
                chosen = index
    return _tuned(task, chosen, trials, dense_seconds)


def search(tuned: TunedSearch, x: Array, table: Array, k: int) -> tuple[Array, Array]:
    """The search that :func:`tune` chose: by its index, or the exact one.

    Args:
      tuned: made by :func:`tune`. Under ``jit`` it is an argument, so that the index is
        no constant of the program.
      x: ``f32[b, d]`` examples, or one of them, ``f32[d]``.
      table: ``f32[n, d]`` or ``bf16[n, d]``, the one that was tuned for.
      k: how many, at least 1.

    Returns:
      As :func:`top_k`, or :func:`fsparse.dense_top_k` if ``tuned.use_dense``.

    Raises:
      TypeError: if ``tuned`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, or ``k`` is more than ``tuned.size``.

    Nothing aliases.

    Example:
      >>> from fsparse import lsh
      >>> x, table = jnp.eye(2, 4), jnp.eye(8, 4)
      >>> tuned = lsh.TunedSearch(None, 1, 8, True, (), 0.0, "few rows")
      >>> lsh.search(tuned, x, table, k=1)[1]
      Array([[0],
             [1]], dtype=int32)
    """
    fn = "lsh.search"
    _checks.require_type(fn, TunedSearch, tuned=tuned)
    if tuned.index is not None:
        size, num_probes = tuned.size, tuned.num_probes
        return top_k(tuned.index, x, table, k, size=size, num_probes=num_probes)
    (x,) = _checks.as_arrays(fn, x=x)
    _checks.require_rank(fn, (1, 2), x=x)
    return _dense(x, table, k)


def _dense(x: Array, table: Array, k: int) -> tuple[Array, Array]:
    """The exact search, of one example or several."""
    if x.ndim == 2:
        return dense_top_k(x, table, k)
    scores, ids = dense_top_k(x[None], table, k)
    return scores[0], ids[0]


# ---- what is tried ------------------------------------------------------------------


class _Task(NamedTuple):
    x: Array  # f32[b, d]
    table: Array  # f32[n, d] or bf16[n, d]
    labels: Array | None  # i32[b, l]
    exact: Array  # i32[b, k], the best rows of all
    sizes: list[int]  # rising
    k: int
    recall: float


def _checked(
    fn: str, x: Array, table: Array, labels: Array | None
) -> tuple[Array, Array, Array | None]:
    x, table = _checks.as_arrays(fn, x=x, table=table)
    for name, y in {"x": x, "table": table, "labels": labels}.items():
        if isinstance(y, jax.core.Tracer):
            raise TypeError(
                f"{fn}: {name} must be known, since times are measured; got a traced "
                "array. Call it outside of jit."
            )
    _checks.require_f32(fn, x=x)
    _checks.require_table(fn, table=table)
    _checks.require_rank(fn, 2, x=x, table=table)
    _checks.require(
        fn,
        x.shape[1] == table.shape[1],
        "x.shape[1] must equal table.shape[1]",
        x=x,
        table=table,
    )
    _checks.require(fn, x.shape[0] > 0, "x must have examples", x=x)
    _checks.require(fn, table.shape[0] > 0, "table must have rows", table=table)
    if labels is not None:
        (labels,) = _checks.as_arrays(fn, labels=labels)
        _checks.require_ids(fn, labels=labels)
        _checks.require(
            fn,
            labels.ndim == 2 and labels.shape[0] == x.shape[0],
            "labels must have a row for each example",
            labels=labels,
            x=x,
        )
    return x, table, labels


def _sizes(num_rows: int, k: int, max_fraction: float) -> list[int]:
    """Parts of the largest size, at least ``k``, each once."""
    most = max_fraction * num_rows
    return sorted({max(k, math.ceil(most / part)) for part in _PARTS})


def _ladder(key: Array, num_rows: int, width: int) -> Iterator[Family]:
    """Families in the order of how many rows a query reads: few tables, small buckets.

    Beside the bits of :func:`default_family`, buckets of a quarter and of four times
    the rows; as many tables as its memory allows, and half of them.
    """
    middle = default_bits(num_rows)
    every_bits = {max(min(middle + more, MAX_BITS), 2) for more in (-2, 0, 2)}
    sizes = set[tuple[int, int]]()
    for num_bits in every_bits:
        most = tables_that_fit(num_rows, width, num_bits)
        sizes |= {(most, num_bits), (-(-most // 2), num_bits)}
    rising = sorted(sizes, key=lambda size: (size[0] / 2 ** size[1], size))
    for i, (num_tables, num_bits) in enumerate(rising):
        of_family = jax.random.fold_in(key, i)
        yield simhash(of_family, width, num_tables=num_tables, num_bits=num_bits)


def _tried(task: _Task, index: Index, num_probes: int) -> SearchTrial:
    """The figures of the fewest rows that reach the recall, or of the most."""
    found = query(index, task.x, task.sizes[-1], num_probes=num_probes).ids
    recalls = _recalls(found, task.exact, task.sizes, index.num_rows)
    enough = [i for i, share in enumerate(recalls) if share >= task.recall]
    i = enough[0] if enough else len(recalls) - 1
    size = task.sizes[i]
    best = partial(_indexed, k=task.k, size=size, num_probes=num_probes)
    return SearchTrial(
        num_tables=index.family.num_tables,
        num_bits=index.family.num_buckets.bit_length() - 1,
        num_probes=num_probes,
        size=size,
        num_bytes=num_bytes(index),
        recall=recalls[i],
        precision=_precision(task, lambda: best(task.x, task.table, index)[1]),
        seconds=median_seconds(best, task.x, task.table, index) if enough else math.inf,
    )


def _indexed(
    x: Array, table: Array, index: Index, *, k: int, size: int, num_probes: int
) -> tuple[Array, Array]:
    return top_k(index, x, table, k, size=size, num_probes=num_probes)


def _recalls(found: Array, exact: Array, sizes: list[int], n: int) -> list[float]:
    """The share of the exact rows among the first ``size`` found, for each size.

    What a query finds for one size is the beginning of what it finds for a larger one.
    """

    def places(pair: tuple[Array, Array]) -> Array:
        is_it = pair[0][:, None] == pair[1][None, :]
        return jnp.where(is_it.any(0), is_it.argmax(0), found.shape[1])

    at = jax.lax.map(places, (found, exact))
    is_row = valid(exact, n)
    num_rows = max(int(is_row.sum()), 1)
    return [int(((at < size) & is_row).sum()) / num_rows for size in sizes]


def _precision(task: _Task, best: Callable[[], Array]) -> float | None:
    if task.labels is None:
        return None
    num_labels = task.table.shape[0]
    is_hit = metrics.hits(best()[:, :1], task.labels, num_labels=num_labels)
    return float(metrics.precision_at(1, is_hit).mean())


def median_seconds(
    run: Callable[..., tuple[Array, Array]], x: Array, *operands: Any
) -> float:
    """Of one example, once compiled."""
    run = jax.jit(run)
    examples = jax.block_until_ready(list(x[:_TIMED]))
    jax.block_until_ready(run(examples[0], *operands))
    seconds = []
    for i in range(_TIMED):
        start = time.perf_counter()
        jax.block_until_ready(run(examples[i % len(examples)], *operands))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# ---- what is chosen -----------------------------------------------------------------


def fastest(trials: list[SearchTrial]) -> SearchTrial:
    """The first of equals; one that was not timed only if none was."""
    return min(trials, key=lambda trial: trial.seconds)


def _tuned(
    task: _Task, index: Index | None, trials: list[SearchTrial], dense_seconds: float
) -> TunedSearch:
    best = fastest(trials)
    why = _why(task, trials, dense_seconds)
    if best.seconds >= dense_seconds:
        n = task.table.shape[0]
        return TunedSearch(None, 1, n, True, tuple(trials), dense_seconds, why)
    sizes = best.num_probes, best.size
    return TunedSearch(index, *sizes, False, tuple(trials), dense_seconds, why)


def _why(task: _Task, trials: list[SearchTrial], dense_seconds: float) -> str:
    n, best = task.table.shape[0], fastest(trials)
    if math.isinf(best.seconds):
        nearest = max(trials, key=lambda trial: trial.recall)
        return (
            f"Use dense search: no index reaches recall {task.recall:g} with "
            f"{task.sizes[-1]:,} of {n:,} rows scored. The nearest has "
            f"{nearest.recall:.3f}, with {_setting(nearest)}."
        )
    if best.seconds >= dense_seconds:
        return (
            f"Use dense search: it takes {_ms(dense_seconds)} a query, and the fastest "
            f"index that reaches recall {task.recall:g} {_ms(best.seconds)}, with "
            f"{_setting(best)}."
        )
    return (
        f"Use the index, {_setting(best)}: recall {best.recall:.3f} in "
        f"{_ms(best.seconds)} a query, and dense search takes {_ms(dense_seconds)}."
    )


def _setting(trial: SearchTrial) -> str:
    return (
        f"{trial.num_tables} tables of {trial.num_bits} bits, {trial.num_probes} "
        f"probed in each and {trial.size:,} rows scored"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
