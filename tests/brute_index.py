"""An index by brute force: a mask of entries, from the codes of rows and queries."""

import jax
import jax.numpy as jnp
import numpy as np
from bucket_sets import sets_of

from fsparse import lsh

N, D, B, TABLES, BITS, MOST = 40, 6, 3, 4, 3, 20
FAMILY = lsh.simhash(jax.random.key(0), D, num_tables=TABLES, num_bits=BITS)
build = jax.jit(lsh.build, static_argnames="max_inserted")
query = jax.jit(lsh.query, static_argnames=("size", "num_probes", "shared"))
refresh, remove, insert = map(jax.jit, (lsh.refresh, lsh.remove, lsh.insert))


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def codes_of(x):
    """``[t, b]``."""
    return np.asarray(lsh.codes(FAMILY, jnp.asarray(x))).T


class Brute:
    """``[t, bucket, row]``: whether an entry is there."""

    def __init__(self, table):
        shape = TABLES, FAMILY.num_buckets, len(table)
        self.home, self.more = np.zeros((2, *shape), bool)
        self.refresh(table, range(len(table)))

    def refresh(self, table, ids):
        codes = codes_of(table)
        for t, i in np.ndindex(*codes.shape):
            if i in ids:
                self.home[t, :, i] = False
                self.home[t, codes[t, i], i] = True
                self.more[t, codes[t, i], i] = False

    def remove(self, ids):
        self.home[:, :, [i for i in ids if 0 <= i < N]] = False

    def insert(self, x, ids):
        for (t, i), code in np.ndenumerate(codes_of(x)):
            for row in ids[i]:
                self.more[t, code, row] |= not self.home[t, code, row]

    def query(self, probes, size, start, shared):
        """Of ``[b, t, p]`` probes: as `lsh.query`."""
        entries = (self.home | self.more) & self.home.any((0, 1))
        tables = np.arange(TABLES)[:, None]
        votes = np.stack([entries[tables, p].sum((0, 1)) for p in probes])
        votes = votes.sum(0, keepdims=True) if shared else votes
        n = votes.shape[1]
        order = [np.lexsort(((np.arange(n) - start) % n, -v))[:size] for v in votes]
        best = np.take_along_axis(votes, np.array(order), axis=1)
        ids = np.where(best > 0, order, n)
        fill = ((0, 0), (0, max(size - n, 0)))
        found = np.pad(ids, fill, constant_values=n), np.pad(best, fill)
        found = *found, (votes > 0).sum(1)
        return [y[0] for y in found] if shared else found


def assert_finds(index, brute, x, size=7, start=0, shared=False):
    got = query(index, x, size=size, start=start, shared=shared)
    want = brute.query(codes_of(x).T[:, :, None], size, start, shared)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == jnp.int32


def assert_same_sets(index, other):
    assert sets_of(index.buckets) == sets_of(other.buckets)
    np.testing.assert_array_equal(index.buckets.codes, other.buckets.codes)
