"""The pure-JAX twins of the ops on hash tables: specification, oracle, fallback.

A table is a set of pairs (bucket, row). The twins write the pairs out, change the set
and lay it out anew, where the handlers change it in place: the sets agree, the places
of the entries need not.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
State = tuple[Array, Array, Array, Array, Array, Array]
NOWHERE = 0xFFFF


def build(codes: Array, *, num_buckets: int, capacity: int) -> tuple[Array, ...]:
    """Tables ``(starts, sizes, entries)`` with row ``i`` in bucket ``codes[t, i]``."""
    ids = jnp.arange(codes.shape[1], dtype=jnp.int32)

    def one(codes: Array) -> tuple[Array, ...]:
        bucket = jnp.minimum(codes.astype(jnp.int32), num_buckets)
        return _lay_out(bucket, ids, num_buckets, capacity, codes.shape[0])

    return jax.vmap(one)(codes)


def move(ids: Array, new_codes: Array, *state: Array) -> State:
    """Rows leave the buckets of their codes for those of ``new_codes[t, j]``.

    A row that is named twice must have the same codes. One that had been inserted where
    it goes is there once, and no longer counts as inserted.
    """
    n = state[3].shape[1]
    place = jnp.arange(1, ids.size + 1, dtype=jnp.int32)
    last = jnp.zeros(n, jnp.int32).at[_or_drop(ids, n)].max(place, mode="drop")
    is_moved = last > 0

    def one(new: Array, *table: Array) -> State:
        starts, sizes, entries, codes, _, num_lost = table
        r = sizes.shape[0]
        wanted = new[jnp.maximum(last - 1, 0)] if ids.size else codes
        target = jnp.where(is_moved, wanted, codes)
        bucket = _bucket_of_slots(starts, sizes, entries.shape[0])
        leaves = (_at(target, entries) != _at(codes, entries)) & (
            _at(codes, entries) == bucket
        )
        home = jnp.where(target != codes, target.astype(jnp.int32), r)
        return _replace(
            jnp.concatenate([jnp.where(leaves, r, bucket), jnp.minimum(home, r)]),
            jnp.concatenate([entries, jnp.arange(n, dtype=jnp.int32)]),
            entries.shape[0],
            table,
            target,
            num_lost,
        )

    return jax.vmap(one)(new_codes, *state)


def insert(ids: Array, new_codes: Array, max_inserted: Array, *state: Array) -> State:
    """Pairs ``(new_codes[t, j], ids[j])`` join the tables, first come, first served."""
    n = state[3].shape[1]

    def one(new: Array, *table: Array) -> State:
        starts, sizes, entries, codes, num_inserted, num_lost = table
        r, c = sizes.shape[0], entries.shape[0]
        bucket = _bucket_of_slots(starts, sizes, c)
        is_row = (ids >= 0) & (ids < n) & (new < r)
        asked = jnp.where(is_row, new.astype(jnp.int32), r)
        pairs = jnp.concatenate([bucket, asked]), jnp.concatenate([entries, ids])
        is_new = _is_first(*pairs, r)[c:] & is_row
        fits = jnp.cumsum(is_new) <= max_inserted[0] - num_inserted
        lost = _count_lost(*pairs, r, c, is_new & ~fits)
        bucket = jnp.concatenate([bucket, jnp.where(is_new & fits, asked, r)])
        return _replace(bucket, pairs[1], c, table, codes, num_lost + lost)

    return jax.vmap(one)(new_codes, *state)


def vote(
    probes: Array,
    start: Array,
    starts: Array,
    sizes: Array,
    entries: Array,
    codes: Array,
    num_inserted: Array,
    *,
    k: int,
) -> tuple[Array, Array, Array]:
    """The rows that most of the probed buckets hold, for each group of probes.

    Probe ``t r + j`` is bucket ``j`` of table ``t``; others are padding. A row has one
    vote from each probe whose bucket holds it. Rows that are stored nowhere have none:
    where entries were inserted, theirs may be left.

    Returns:
      ``ids`` and ``votes``, ``i32[g, k]``, most votes first, equal ones in the order
      ``start, start + 1, ...`` around the end, then padding ``n`` with 0 votes; and
      ``i32[g]``, how many rows had any vote.
    """
    (num_tables, r), n = sizes.shape, codes.shape[1]
    buckets = jax.vmap(lambda a, b: _bucket_of_slots(a, b, entries.shape[1]))(
        starts, sizes
    )
    first = jnp.clip(start[0], 0, n)
    is_gone = (codes[0] == NOWHERE) & jnp.any(num_inserted != 0)

    def one(probes: Array) -> tuple[Array, Array, Array]:
        where = jnp.where(probes < 0, num_tables * r, probes)
        asked = jnp.zeros(num_tables * r, jnp.int32).at[where].add(1, mode="drop")
        asked = jnp.pad(asked.reshape(num_tables, r), ((0, 0), (0, 1)))
        weight = jnp.take_along_axis(asked, buckets, axis=1)
        votes = jnp.zeros(n, jnp.int32).at[entries].add(weight, mode="drop")
        votes = jnp.where(is_gone, 0, votes)
        rank = (jnp.arange(n, dtype=jnp.int32) - first) % max(n, 1)
        order = jnp.lexsort((rank, -votes))[:k].astype(jnp.int32)
        best = votes[order]
        ids = jnp.where(best > 0, order, n)
        fill = (0, k - order.size)
        num_found = jnp.sum(votes > 0, dtype=jnp.int32)
        return jnp.pad(ids, fill, constant_values=n), jnp.pad(best, fill), num_found

    return jax.lax.map(one, probes)


# ---- sets of pairs ------------------------------------------------------------------


def _or_drop(ids: Array, num_rows: int) -> Array:
    return jnp.where(ids < 0, num_rows, ids)


def _at(codes: Array, ids: Array) -> Array:
    """Codes of rows, as i32; those of padding are -1, which is no bucket."""
    return codes.astype(jnp.int32).at[ids].get(mode="fill", fill_value=-1)


def _bucket_of_slots(starts: Array, sizes: Array, capacity: int) -> Array:
    """``i32[c]`` the bucket whose entry a slot holds, or ``r``."""
    slots = jnp.arange(capacity, dtype=jnp.int32)
    bucket = jnp.searchsorted(starts, slots, side="right").astype(jnp.int32) - 1
    bucket = jnp.clip(bucket, 0, sizes.shape[0] - 1)
    return jnp.where(slots < starts[bucket] + sizes[bucket], bucket, sizes.shape[0])


def _is_first(bucket: Array, ids: Array, num_buckets: int) -> Array:
    """Which pairs are the first of their kind; pairs without a bucket are not."""
    order = jnp.lexsort((ids, bucket))
    pairs = jnp.stack([bucket[order], ids[order]])
    is_new = jnp.any(pairs != jnp.roll(pairs, 1, axis=1), axis=0).at[0].set(True)
    return jnp.zeros_like(is_new).at[order].set(is_new) & (bucket < num_buckets)


def _count_lost(
    bucket: Array, ids: Array, num_buckets: int, num_old: int, is_lost: Array
) -> Array:
    """Asked-for pairs that are equal to a lost one, itself included."""
    order = jnp.lexsort((ids, bucket))
    group = jnp.cumsum(_is_first(bucket, ids, num_buckets)[order])
    group = jnp.zeros_like(group).at[order].set(group)[num_old:]
    asked = bucket[num_old:] < num_buckets
    lost = jnp.zeros(bucket.size + 1, bool).at[jnp.where(is_lost, group, 0)].set(True)
    return jnp.sum(lost[group] & asked, dtype=jnp.int32)  # groups count from 1


def _lay_out(
    bucket: Array, ids: Array, num_buckets: int, capacity: int, num_rows: int
) -> tuple[Array, Array, Array]:
    """Pairs by bucket and id, the free slots shared out evenly between buckets."""
    order = jnp.lexsort((ids, bucket))
    bucket, ids = bucket[order], ids[order]
    sizes = jnp.zeros(num_buckets, jnp.int32).at[bucket].add(1, mode="drop")
    before = jnp.cumsum(sizes) - sizes
    each, rest = jnp.divmod(
        capacity - jnp.sum(sizes, dtype=jnp.int32), jnp.int32(num_buckets)
    )
    c = jnp.arange(num_buckets, dtype=jnp.int32)
    starts = (before + c * each + jnp.minimum(c, rest)).astype(jnp.int32)
    rank = jnp.arange(ids.size, dtype=jnp.int32) - before.at[bucket].get(
        mode="fill", fill_value=0
    )
    slot = starts.at[bucket].get(mode="fill", fill_value=capacity) + rank
    slot = jnp.where(bucket < num_buckets, slot, capacity)
    entries = jnp.full(capacity, num_rows, jnp.int32).at[slot].set(ids, mode="drop")
    return jnp.append(starts, jnp.int32(capacity)), sizes, entries


def _replace(
    bucket: Array,
    ids: Array,
    capacity: int,
    table: tuple[Array, ...],
    codes: Array,
    num_lost: Array,
) -> State:
    """A table of the distinct pairs; nothing is lost that has no room."""
    r, n = table[1].shape[0], codes.shape[0]
    bucket = jnp.where(_is_first(bucket, ids, r), bucket, r)
    starts, sizes, entries = _lay_out(bucket, ids, r, capacity, n)
    num_stored = jnp.sum(codes < r, dtype=jnp.int32)
    num_inserted = jnp.sum(sizes, dtype=jnp.int32) - num_stored
    return starts, sizes, entries, codes, num_inserted, num_lost
