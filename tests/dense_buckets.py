"""Hash tables in plain ``jnp``: a mask of which row is in which bucket."""

import jax.numpy as jnp
from dense import one_hot

NUM_BUCKETS, MAX_INSERTED, NOWHERE = 4, 2, 65535


def dense_buckets(codes, changes, question, k=3):
    """``bool[t, bucket, row]``, whether an entry is there, changed one by one."""
    n = codes.shape[1]
    entries = one_hot(codes, NUM_BUCKETS).swapaxes(1, 2) > 0
    num_inserted, num_lost = jnp.zeros((2, len(codes)), jnp.int32)
    (moved, new_codes), (inserted, new_buckets) = changes

    def pair(ids, codes, j):
        row = one_hot(ids[j], n) > 0
        return row, (one_hot(codes[:, j], NUM_BUCKETS) > 0)[:, :, None] & row

    def count(entries):
        return jnp.any(entries, axis=(1, 2)).astype(jnp.int32)

    def insert():
        nonlocal entries, num_inserted, num_lost
        for j in range(len(inserted)):
            _, new = pair(inserted, new_buckets, j)
            new &= ~entries
            fits = (num_inserted < MAX_INSERTED)[:, None, None]
            entries |= new & fits
            num_inserted += count(new & fits)
            num_lost += count(new & ~fits)

    def move():
        nonlocal codes, entries, num_inserted
        for j in range(len(moved)):
            row, new = pair(moved, new_codes, j)
            target = jnp.where(row, new_codes[:, j, None], codes)
            old = (one_hot(codes, NUM_BUCKETS) > 0).swapaxes(1, 2)
            is_moved = (target != codes)[:, None]
            old &= is_moved
            num_inserted -= count(entries & ~old & new & is_moved)
            entries, codes = (entries & ~old) | new, target

    insert()
    move()
    probes, start = question
    asked = one_hot(probes, len(codes) * NUM_BUCKETS).sum(1)
    asked = asked.reshape(len(probes), len(codes), NUM_BUCKETS)
    votes = jnp.einsum("gtc,tcn->gn", asked, entries.astype(jnp.float32))
    is_gone = (codes[0] == NOWHERE) & jnp.any(num_inserted > 0)
    votes = jnp.where(is_gone, 0, votes.astype(jnp.int32))
    rank = jnp.mod(jnp.arange(n, dtype=jnp.int32) - start, n)
    order = jnp.argsort(-n * votes + rank, axis=1)[:, :k].astype(jnp.int32)
    best = jnp.take_along_axis(votes, order, axis=1)
    num_found = jnp.sum(votes > 0, axis=1, dtype=jnp.int32)
    found = jnp.where(best > 0, order, n), best, num_found
    sizes = jnp.sum(entries, axis=2, dtype=jnp.int32)
    return found, sizes, codes, num_inserted, num_lost
