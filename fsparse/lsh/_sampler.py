"""The sampler of BOLT and SLIDE: rows that hash as the examples do."""

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._queries import Query, inputs_of, shape_of_sample, unknown_log_q
from fsparse.lsh._index import Index, query
from fsparse.matmul import sampled_matmul
from fsparse.samplers import Sampler
from fsparse.topk import sampled_top_k

Array = jax.Array


def sampler(
    index: Index, *, num_probes: int = 1, num_scored: int | None = None
) -> Sampler:
    """The rows of an index that most tables find: hard negatives, without a search.

    Of each example the rows with the most votes; for a set that the batch shares, those
    with the most votes of all examples together. Of rows with equal votes, those that
    follow a random one come first. Where the index finds fewer than ``size`` rows,
    padding follows, which :func:`fsparse.sample_active_set` fills with uniform rows.

    Args:
      index: of the rows of the table, which a step should :func:`refresh`.
      num_probes: as of :func:`query`.
      num_scored: if given, so many rows with the most votes are scored exactly, at
        least ``size`` of them, and those with the largest products come first; for a
        shared set, with the largest for any example.

    Returns:
      A :class:`fsparse.samplers.Sampler`, whose ``query`` has ``x`` and ``table``;
      without ``log_q``: the probability that some of many hash tables find a row
      depends on all the others. Make it inside of ``jit``, of an index that is traced.

    Raises:
      TypeError: if ``index`` is none.
      ValueError: if a count is less than 1.

    Source: SLIDE (Chen et al. 2020) and BOLT (arXiv:2303.17727), which take candidates
    in no order; ranked by votes, they are nearer to the largest logits.

    Example:
      >>> from fsparse import lsh, samplers
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=2)
      >>> table = jax.numpy.eye(3)
      >>> query = samplers.Query(jax.numpy.array([[2]]), x=table[1:2], table=table)
      >>> sampler = lsh.sampler(lsh.build(family, table))
      >>> sampler.sample(jax.random.key(0), query, 1, False)
      Array([1], dtype=int32)
    """
    fn = "lsh.sampler"
    _checks.require_type(fn, Index, index=index)
    _checks.require_count(fn, 1, num_probes=num_probes)
    if num_scored is not None:
        _checks.require_count(fn, 1, num_scored=num_scored)
    n = index.num_rows

    def sample(key: Array, q: Query, size: int, per_example: bool) -> Array:
        shape_of_sample(fn, q, size, per_example, n)
        x, table = inputs_of(fn, q)
        start = jax.random.randint(key, (), 0, n)
        found = query(
            index,
            x,
            max(size, num_scored or 0),
            num_probes=num_probes,
            start=start,
            shared=not per_example,
        ).ids
        return found if num_scored is None else _best(x, table, found, size)

    return Sampler(sample, unknown_log_q(fn), n)


def _best(x: Array, table: Array, ids: Array, size: int) -> Array:
    """The ids of the largest products: of each example, or of any."""
    if ids.ndim == 2:
        return sampled_top_k(x, table, ids, size)[1]
    scores = jnp.max(sampled_matmul(x, table, ids), axis=0)
    is_row = ids < table.shape[0]
    _, best = jax.lax.top_k(jnp.where(is_row, scores, -jnp.inf), size)
    return ids[best]
