"""Which neurons of a wide layer are computed: one set for the batch, or one each.

A set has the labels first, so that a label of one example is a negative of the others,
and then what a sampler proposes. Ids are distinct and rising: rows are read in memory
order, and no row is its own negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks, samplers
from fsparse._call import vary_together
from fsparse._queries import Query, num_rows_of_table
from fsparse.distinct import first_distinct_op
from fsparse.reference import valid
from fsparse.samplers import Sampler

Array = jax.Array


class ActiveSet(NamedTuple):
    """Active rows of a table of ``n`` rows: one set for a batch, or one an example."""

    ids: Array  # i32[m] or i32[b, m], distinct and rising, then padding n
    targets: Array  # i32[b, l], where each label stands in ids; m for padding
    is_active: Array  # bool, like ids: false for padding
    num_dropped: Array  # i32[], labels that did not fit, summed over the sets


def active_set(
    labels: Array, *candidates: Array, num_rows: int, size: int
) -> ActiveSet:
    """The labels and then candidates, as they come, until a set has ``size`` rows.

    Args:
      labels: ``i32[b, l]``; here and below, ids outside ``[0, num_rows)`` are padding.
      *candidates: further rows in order of priority: each ``i32[c]``, for one set that
        the batch shares, or each ``i32[b, c]``, for a set of each example, which has
        the labels of that example only. Without any, the batch shares its labels.
      num_rows: ``n``, rows of the table.
      size: ``m``, room in a set. If ``size >= num_rows``, all rows are active, and a
        softmax over the set is that over all rows.

    Returns:
      An :class:`ActiveSet`. Where a set has more than ``size`` labels, the first are
      kept; the others have no target and are counted in ``num_dropped``, each once for
      each set that it is missing from.

    Raises:
      TypeError: if ids are not int32.
      ValueError: if ``labels`` has not two axes, candidates differ in scope or in
        ``b``, ``num_rows < 1`` or ``size < 1``.

    Nothing aliases, and ids have no gradients. Costs ``O(b l + c)`` for the shared set,
    and the same for all others together: see :func:`fsparse.first_distinct`.

    Example:
      >>> labels = jnp.array([[7, 2], [2, 10]])  # 10 is padding
      >>> active = active_set(labels, jnp.array([5, 7, 3, 0]), num_rows=10, size=4)
      >>> active.ids, active.targets
      (Array([2, 3, 5, 7], dtype=int32), Array([[3, 0],
             [0, 4]], dtype=int32))
    """
    fn = "active_set"
    labels, *rest = _checked(fn, labels, candidates)
    _checks.require_count(fn, 1, num_rows=num_rows, size=size)
    _checks.require_rows_fit(fn, num_rows)
    num_rows, size = int(num_rows), int(size)
    shared = not rest or rest[0].ndim == 1
    sets = 1 if shared else labels.shape[0]
    ours = labels.reshape(sets, labels.size // max(sets, 1))
    rest = [x.reshape(sets, x.shape[-1]) for x in rest]
    ids = _members([ours, *rest], num_rows, size)
    targets = _columns(ids, ours, num_rows).reshape(labels.shape)
    ids = ids[0] if shared else ids
    dropped = _num_dropped(ours, num_rows, size)
    return ActiveSet(ids, targets, ids < num_rows, dropped)


def sample_active_set(
    sampler: Sampler,
    key: Array,
    query: Query,
    *,
    size: int,
    per_example: bool = False,
    fill: bool = True,
) -> ActiveSet:
    """The labels, then what a sampler proposes, then uniform rows: ``size`` in all.

    ``size`` counts every row that is computed, whatever the sampler: labels, candidates
    and what fills the room that is left.

    Args:
      sampler: one of :mod:`fsparse.samplers`.
      key: PRNG key.
      query: labels, and what else the sampler looks at.
      size: ``m``, rows of a set.
      per_example: a set for each example, or one that the batch shares.
      fill: whether uniform rows take the room that labels and candidates leave, so that
        there is padding only if ``m > n``. Candidates of ``uniform`` leave none.

    Returns:
      An :class:`ActiveSet`, as of :func:`fsparse.active_set`.

    Raises:
      TypeError: if ``sampler``, ``query`` or a dtype in it is of another type.
      ValueError: if shapes disagree, ``size < 1``, or the number of rows is unknown:
        neither ``uniform`` nor ``popularity`` say it, and ``query.table`` is None.

    Nothing aliases, and ids have no gradients: the sampler looks at constants.

    Example:
      >>> from fsparse import samplers
      >>> query = samplers.Query(labels=jnp.array([[7], [2]]))
      >>> key = jax.random.key(0)
      >>> active = sample_active_set(samplers.uniform(10), key, query, size=5)
      >>> active.is_active.sum(), (active.ids[active.targets] == query.labels).all()
      (Array(5, dtype=int32), Array(True, dtype=bool))
    """
    fn = "sample_active_set"
    _checks.require_type(fn, Sampler, sampler=sampler)
    _checks.require_type(fn, Query, query=query)
    num_rows = sampler.num_rows or num_rows_of_table(fn, query)
    of_sampler, of_fill = jax.random.split(key)
    candidates = [sampler.sample(of_sampler, query, size, per_example)]
    if fill and sampler.leaves_room:
        rest = samplers.uniform(num_rows)
        candidates.append(rest.sample(of_fill, query, size, per_example))
    return active_set(query.labels, *candidates, num_rows=num_rows, size=size)


def _checked(fn: str, labels: Array, candidates: tuple[Array, ...]) -> list[Array]:
    """Arrays of ids, whose scopes agree."""
    named = {f"candidates[{i}]": x for i, x in enumerate(candidates)}
    labels, *rest = _checks.as_arrays(fn, labels=labels, **named)
    named = dict(zip(named, rest, strict=True))
    _checks.require_ids(fn, labels=labels, **named)
    _checks.require_rank(fn, 2, labels=labels)
    _checks.require_rank(fn, (1, 2), **named)
    if rest:
        wanted = rest[0].shape[:-1]
        _checks.require(
            fn,
            wanted in ((), labels.shape[:1])
            and {x.shape[:-1] for x in rest} == {wanted},
            "candidates must all be i32[c], shared by the batch, or all i32[b, c], "
            "with a row for each row of labels",
            labels=labels,
            **named,
        )
    return [labels, *rest]


def _members(parts: list[Array], num_rows: int, size: int) -> Array:
    """``i32[g, size]``; where there is room for all rows, all of them."""
    if size < num_rows:
        return first_distinct_op(jnp.concatenate(parts, axis=1), size, num_rows)[0]
    every = jnp.minimum(jnp.arange(size, dtype=jnp.int32), num_rows)
    return vary_together(jnp.broadcast_to(every, (parts[0].shape[0], size)), *parts)[0]


def _columns(ids: Array, labels: Array, num_rows: int) -> Array:
    """Where each label stands in the ids of its set: ``i32[g, l]``, or ``size``."""
    size = ids.shape[1]
    at = jax.vmap(jnp.searchsorted)(ids, labels).astype(jnp.int32)
    found = jnp.take_along_axis(ids, jnp.minimum(at, size - 1), axis=1) == labels
    return jnp.where(found & valid(labels, num_rows), at, size)


def _num_dropped(labels: Array, num_rows: int, size: int) -> Array:
    if min(labels.shape[1], num_rows) <= size:
        return jnp.zeros((), jnp.int32)
    _, num_distinct = first_distinct_op(labels, 1, num_rows)
    return jnp.sum(jnp.maximum(num_distinct - size, 0), dtype=jnp.int32)
