"""Samplers: which rows, besides the labels, a step computes.

A :class:`Sampler` proposes rows for the active set of a batch or of each example. All
have the same call, so that one takes the place of another.

Where nothing else is known, take `popularity` with ``power=0.75``, its ``log_q``, and a
set that the batch shares: of all that the README measures it was the best for its time,
or near it, on all data. Rows from hash tables (:func:`fsparse.lsh.sampler`) teach more
an example where many labels are alike, and cost more.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import _checks, reference
from fsparse._call import vary_together
from fsparse._popularity import weights_of, widths_of
from fsparse._queries import (
    Query,
    ids_of,
    inputs_of,
    known_rows,
    labels_of,
    shape_of_sample,
    unknown_log_q,
)
from fsparse.distinct import ranks
from fsparse.reference import valid
from fsparse.topk import dense_top_k

Array = jax.Array


class Sampler(NamedTuple):
    """A way to choose rows.

    ``sample(key, query, size, per_example)`` gives ``i32[size]`` for the batch, or
    ``i32[b, size]``: candidates in order of priority. They may repeat, and ids outside
    ``[0, n)`` are padding. A set may have room for the first of them only: where they
    are random, any part of them has each row with the same share of its chances.

    ``log_q(ids, size)`` is the log of the probability that ``size`` candidates have a
    row, ``f32`` like ``ids``, and 0 for padding. Subtracted from the logits of a set of
    distinct candidates, it makes the softmax over them estimate that over all rows
    (Bengio and Senecal, IEEE Trans. Neural Netw. 19(4), 2008); labels, which are there
    for certain, are treated as if they had been drawn. Uniform rows that fill a set are
    not in it: pass ``fill=False`` to :func:`fsparse.sample_active_set`. Samplers
    without a known probability raise a ValueError.
    """

    sample: Callable[[Array, Query, int, bool], Array]
    log_q: Callable[[Array, int], Array]
    num_rows: int | None = None  # n; None for that of query.table
    leaves_room: bool = True  # false if no candidates repeat: uniform rows add none


def uniform(num_rows: int) -> Sampler:
    """Every row alike, none twice: a draw from each of ``size`` strata.

    Stratum ``j`` is ``[floor(j n / size), floor((j + 1) n / size))`` on the ring of
    rows, turned by a random shift: each row is drawn with probability ``size / n``.
    If ``size >= n``, that is every row, and padding.

    Args:
      num_rows: ``n``, at least 1.

    Returns:
      A :class:`Sampler`; examples have shifts and draws of their own. Ids are in no
      order that matters: any part of them is spread over all rows.

    Raises:
      ValueError: if ``num_rows < 1``.

    Example:
      >>> sampler = uniform(10)
      >>> query = Query(labels=jnp.zeros((2, 1), jnp.int32))
      >>> sampler.sample(jax.random.key(0), query, 3, False).shape
      (3,)
      >>> sampler.log_q(jnp.array([4, 10]), 5)
      Array([-0.6931472,  0.       ], dtype=float32)
    """
    fn = "samplers.uniform"
    n = known_rows(fn, num_rows)

    def sample(key: Array, query: Query, size: int, per_example: bool) -> Array:
        shape = shape_of_sample(fn, query, size, per_example, n)
        if size >= n:
            every = np.minimum(np.arange(size), n).astype(np.int32)
            return jnp.broadcast_to(every, shape)
        of_draws, of_shifts = jax.random.split(key)
        starts, lengths = _strata(n, size)
        ids = starts + _draws(of_draws, shape, lengths)
        left = jax.random.randint(of_shifts, (*shape[:-1], 1), 1, n + 1, jnp.int32)
        return jnp.where(ids < left, ids + (n - left), ids - left)

    def log_q(ids: Array, size: int) -> Array:
        ids = ids_of(fn, ids, size)
        return jnp.where(valid(ids, n), jnp.float32(math.log(min(size / n, 1))), 0)

    return Sampler(sample, log_q, n, leaves_room=False)


def _strata(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First rows and lengths, in an order of which any part is spread over all rows."""
    step = max(round(size * (math.sqrt(5) - 1) / 2), 1)
    while math.gcd(step, size) > 1:
        step += 1
    order = np.arange(size) * step % size
    bounds = (np.arange(size + 1) * n // size).astype(np.int32)  # products in int64
    return bounds[order], np.diff(bounds)[order]


def _draws(key: Array, shape: tuple[int, ...], lengths: np.ndarray) -> Array:
    """``i32[..., size]``, entry ``j`` uniform in ``[0, lengths[j])``.

    Up to some hundred thousand numbers a step, so they are a hash of the places, keyed
    by 64 bits of the key for each set, and only these are JAX's own. They are scaled by
    a product: each number has ``2**32 / length`` hashes, or one more.
    """
    first, second = jnp.split(jax.random.bits(key, (*shape[:-1], 2), jnp.uint32), 2, -1)
    places = jnp.arange(shape[-1], dtype=jnp.uint32) * jnp.uint32(reference.GOLDEN)
    hashes = reference.mix(reference.mix(places + first) ^ second)
    return _high_product(hashes, lengths.astype(np.uint32)).astype(jnp.int32)


def _high_product(a: Array, b: np.ndarray) -> Array:
    """The upper half of the 64 bits of a product."""
    a1, a0, b1, b0 = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a1 * b0 + (a0 * b0 >> 16)
    other = a0 * b1 + (middle & 0xFFFF)
    return a1 * b1 + (middle >> 16) + (other >> 16)


def popularity(counts: Array, power: float = 1.0, smoothing: float = 1.0) -> Sampler:
    """Rows by how often they were seen, with replacement.

    Each draw is row ``r`` with ``q[r] ~ (counts[r] + smoothing)**power``, by inversion
    of the cumulative sum: ``log_q = log(1 - (1 - q[r])**size)``.

    Args:
      counts: integers or floats ``[n]``, known at trace time: the sums are made once,
        in float64, and kept as 32-bit integers. A float32 could not tell the rows of a
        wide layer apart. Every ``q[r] > 0`` is a multiple of ``2**-32``, at least that,
        and the one that ``log_q`` is made of.
      power: 0.75 is usual for words (Mikolov et al., 2013, section 2.2), 0 is uniform.
      smoothing: with 0, rows never seen are never drawn, and have a ``log_q`` of -inf,
        which no active label may have.

    Returns:
      A :class:`Sampler`.

    Raises:
      TypeError: if ``counts`` are no numbers, or are traced.
      ValueError: if ``counts`` has not one axis, or has a negative or infinite entry or
        none that is positive; if ``power`` or ``smoothing`` are negative or infinite.

    Example:
      >>> sampler = popularity(jnp.array([3, 0, 1]), smoothing=0.0)
      >>> query = Query(labels=jnp.zeros((2, 1), jnp.int32))
      >>> sampler.sample(jax.random.key(0), query, 5, True).shape
      (2, 5)
      >>> jnp.exp(sampler.log_q(jnp.arange(3), 2)).round(4)
      Array([0.9375, 0.    , 0.4375], dtype=float32)
    """
    fn = "samplers.popularity"
    weights = weights_of(fn, counts, power, smoothing)
    rows, widths = widths_of(weights)
    inverse = _inverse((np.cumsum(widths)[:-1]).astype(np.uint32))
    q = np.zeros(len(weights))
    q[rows] = widths * 2.0**-32
    n = known_rows(fn, len(weights))

    def sample(key: Array, query: Query, size: int, per_example: bool) -> Array:
        shape = shape_of_sample(fn, query, size, per_example, n)
        bits = jax.random.bits(key, shape, jnp.uint32)
        return jnp.asarray(rows)[inverse(bits)]

    def log_q(ids: Array, size: int) -> Array:
        ids = ids_of(fn, ids, size)
        is_row = valid(ids, n)
        with np.errstate(divide="ignore"):  # the logs of 0 are meant
            of_rows = np.log(-np.expm1(size * np.log1p(-q))).astype(np.float32)
        return jnp.where(is_row, jnp.asarray(of_rows)[jnp.where(is_row, ids, 0)], 0)

    return Sampler(sample, log_q, n)


def _inverse(ends: np.ndarray) -> Callable[[Array], Array]:
    """``bits -> how many ends are at most bits``, for sorted ``u32`` ends.

    The upper bits say between which ends the answer is; a search goes on from there.
    """
    shift = 32 - max(len(ends) // 8, 1).bit_length()
    starts = np.arange(1 << (32 - shift), dtype=np.uint64) << shift
    guide = np.searchsorted(ends, starts).astype(np.int32)
    guide = np.append(guide, np.int32(len(ends)))
    steps = int(np.diff(guide).max()).bit_length()
    padded = np.append(ends, np.uint32(2**32 - 1))  # looked at, and never counted

    def inverse(bits: Array) -> Array:
        after, known, bits = vary_together(
            jnp.asarray(guide), jnp.asarray(padded), bits
        )
        cell = (bits >> shift).astype(jnp.int32)
        low, high = after[cell], after[cell + 1]
        for _ in range(steps):
            middle = low + ((high - low) >> 1)
            below = (known[middle] <= bits) & (low < high)
            low, high = (
                jnp.where(below, middle + 1, low),
                jnp.where(below, high, middle),
            )
        return low

    return inverse


def in_batch() -> Sampler:
    """The labels of the batch: of each example, those of the other examples.

    Its candidates are the labels of the next example, of the one after it, and so on
    around the batch, without the padding among them.

    Returns:
      A :class:`Sampler` without ``log_q``, since nobody knows how often a label is in a
      batch. For a set that the batch shares the labels are there in any case:
      ``active_set(labels, num_rows=n, size=m)`` is the same. Use it with ``fill=False``
      of :func:`fsparse.sample_active_set`, or uniform rows fill the rest.

    Example:
      >>> query = Query(jnp.array([[4], [2], [7]]), table=jnp.zeros((9, 2)))
      >>> in_batch().sample(jax.random.key(0), query, 2, True)
      Array([[2, 7],
             [7, 4],
             [4, 2]], dtype=int32)
    """
    fn = "samplers.in_batch"

    def sample(key: Array, query: Query, size: int, per_example: bool) -> Array:
        del key
        shape = shape_of_sample(fn, query, size, per_example)
        labels, n = labels_of(fn, query)
        own = jnp.sum(valid(labels, n), axis=1, dtype=jnp.int32)[:, None]
        start = jnp.cumsum(own, axis=0, dtype=jnp.int32)
        total = jnp.sum(own, dtype=jnp.int32)
        if not per_example:
            start, own = jnp.zeros_like(total), jnp.zeros_like(total)
        step = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), shape)
        ids = _without_padding(labels, n)[(start + step) % jnp.maximum(total, 1)]
        return jnp.where(step < total - own, ids, n)

    return Sampler(sample, unknown_log_q(fn))


def _without_padding(labels: Array, n: int) -> Array:
    """``i32[b l + 1]``: the labels in order, then padding."""
    labels = labels.ravel()
    is_label = valid(labels, n)
    at = jnp.cumsum(is_label, dtype=jnp.int32) - 1
    return _placed(jnp.where(is_label, at, labels.size + 1), labels, labels.size + 1, n)


def _placed(at: Array, ids: Array, size: int, n: int) -> Array:
    """``out[at[i]] = ids[i]``, and ``n`` elsewhere; places outside are left out."""
    empty, at, ids = vary_together(jnp.full(size, n, jnp.int32), at, ids)
    return empty.at[at].set(ids, mode="drop")


def top_k() -> Sampler:
    """The rows with the largest logits, by an exact search: the oracle of samplers.

    Of each example the best ``size`` rows, best first. For a set that the batch shares,
    the best of every example, then the second best of every example, and so on through
    the best ``2 ceil(size / b)``, each row once: the ``size`` rows that come first.
    Where examples share more rows than that, padding follows.

    Returns:
      A :class:`Sampler`, whose ``query`` has ``x`` and ``table``, both constants here;
      without ``log_q``, since nothing is random. It costs as much as inference, which
      :func:`fsparse.dense_top_k` is, so it is for measuring other samplers.

    Example:
      >>> x, labels = jnp.array([[2., 1., 0.]]), jnp.array([[2]])
      >>> query = Query(labels, x, table=jnp.eye(3))
      >>> top_k().sample(jax.random.key(0), query, 2, True)
      Array([[0, 1]], dtype=int32)
    """
    fn = "samplers.top_k"

    def sample(key: Array, query: Query, size: int, per_example: bool) -> Array:
        del key
        b, _ = shape_of_sample(fn, query, size, True)
        x, table = inputs_of(fn, query)
        n = table.shape[0]
        each = size if per_example else 2 * -(-size // max(b, 1))
        _, ids = dense_top_k(x, table, min(each, size, n))
        if per_example:
            short = ((0, 0), (0, size - ids.shape[1]))
            return jnp.pad(ids, short, constant_values=n)
        by_rank = ids.T.reshape(1, -1)
        return _placed(ranks(by_rank, n)[0], by_rank[0], size, n)

    return Sampler(sample, unknown_log_q(fn))


def mix(first: Sampler, second: Sampler, fraction: float) -> Sampler:
    """``round(fraction * size)`` candidates of one sampler, the rest of another.

    They alternate in that proportion, so that a part of them has it, too.

    Args:
      first: a sampler.
      second: another.
      fraction: of the first, in ``[0, 1]``.

    Returns:
      A :class:`Sampler`; it has ``log_q`` where both have.

    Raises:
      TypeError: if these are no samplers, or ``fraction`` is no number.
      ValueError: if ``fraction`` is outside ``[0, 1]``, or the samplers have different
        numbers of rows.

    Example:
      >>> sampler = mix(in_batch(), uniform(9), fraction=0.25)
      >>> query = Query(jnp.array([[4], [2], [7]]), table=jnp.zeros((9, 2)))
      >>> sampler.sample(jax.random.key(0), query, 4, True).shape
      (3, 4)
    """
    fn = "samplers.mix"
    _checks.require_type(fn, Sampler, first=first, second=second)
    _checks.require_between(fn, 0, 1, fraction=fraction)
    known = {s.num_rows for s in (first, second)} - {None}
    if len(known) > 1:
        raise ValueError(
            f"{fn}: first and second must be of the same number of rows; got "
            f"{first.num_rows} and {second.num_rows}."
        )
    num_rows = known.pop() if known else None

    def parts(size: int) -> list[tuple[Sampler, int]]:
        of_first = round(fraction * size)
        every = (first, of_first), (second, size - of_first)
        return [(sampler, count) for sampler, count in every if count]

    def sample(key: Array, query: Query, size: int, per_example: bool) -> Array:
        shape_of_sample(fn, query, size, per_example, num_rows)
        keys = jax.random.split(key)
        ids = [
            sampler.sample(of_part, query, count, per_example)
            for of_part, (sampler, count) in zip(keys, parts(size), strict=False)
        ]
        progress = [(np.arange(x.shape[-1]) + 0.5) / x.shape[-1] for x in ids]
        order = np.argsort(np.concatenate(progress), kind="stable")
        return jnp.concatenate(vary_together(*ids), axis=-1)[..., order]

    def log_q(ids: Array, size: int) -> Array:
        ids = ids_of(fn, ids, size)
        every = [sampler.log_q(ids, count) for sampler, count in parts(size)]
        if len(every) == 1:
            return every[0]
        if num_rows is None:
            raise ValueError(
                f"{fn}: a sampler must say num_rows, for log_q; got None. Give it to "
                "Sampler."
            )
        return jnp.where(valid(ids, num_rows), _log_either(*every), 0)

    return Sampler(sample, log_q, num_rows)


def _log_either(log_p: Array, log_q: Array) -> Array:
    """The log of the probability of one or both of two independent events."""
    log_neither = jnp.log1p(-jnp.exp(log_p)) + jnp.log1p(-jnp.exp(log_q))
    return jnp.log(-jnp.expm1(log_neither))
