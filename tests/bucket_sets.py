"""Hash tables as sets of rows by bucket, in plain Python."""

from collections import Counter

import jax
import numpy as np

from fsparse.lsh._buckets import NOWHERE


class Sets:
    """The same tables as sets of rows by bucket."""

    def __init__(self, codes, num_buckets, max_inserted):
        self.codes = np.array(codes)
        self.num_buckets, self.max_inserted = num_buckets, max_inserted
        self.tables = [[set() for _ in range(num_buckets)] for _ in codes]
        self.num_inserted, self.num_lost = np.zeros((2, len(codes)), int)
        for t, i in np.ndindex(*self.codes.shape):
            if codes[t, i] < num_buckets:
                self.tables[t][codes[t, i]].add(i)

    def asked(self, ids, codes):
        """Table, row and bucket, without padding."""
        for t, j in np.ndindex(*codes.shape):
            if 0 <= ids[j] < self.codes.shape[1]:
                yield t, int(ids[j]), int(codes[t, j])

    def move(self, ids, codes):
        for t, i, code in self.asked(ids, codes):
            old, self.codes[t, i] = self.codes[t, i], code
            if old == code:
                continue
            if old < self.num_buckets:
                self.tables[t][old].remove(i)
            if code < self.num_buckets:
                self.num_inserted[t] -= i in self.tables[t][code]
                self.tables[t][code].add(i)

    def insert(self, ids, codes):
        for t, i, code in self.asked(ids, codes):
            if code >= self.num_buckets or i in self.tables[t][code]:
                continue
            if self.num_inserted[t] < self.max_inserted:
                self.tables[t][code].add(i)
                self.num_inserted[t] += 1
            else:
                self.num_lost[t] += 1

    def vote(self, probes, start, size):
        """Of one group: ids, votes, and how many rows have any."""
        n = self.codes.shape[1]
        votes = Counter()
        for probe in probes:
            if 0 <= probe < len(self.tables) * self.num_buckets:
                t, c = divmod(probe, self.num_buckets)
                votes.update(self.tables[t][c])
        is_gone = (self.codes[0] == NOWHERE) & self.num_inserted.any()
        stored = [i for i in votes if not is_gone[i]]
        ranked = sorted(stored, key=lambda i: (-votes[i], (i - start) % n))[:size]
        fill = size - len(ranked)
        counts = [votes[i] for i in ranked]
        return ranked + fill * [n], counts + fill * [0], len(stored)


def sets_of(buckets):
    """The sets of arrays whose layout is sound."""
    arrays = jax.tree.map(np.asarray, buckets)
    starts, sizes, entries = arrays[:3]
    capacity, n = entries.shape[1], arrays.codes.shape[1]
    assert (starts[:, 0] == 0).all()
    assert (starts[:, -1] == capacity).all()
    assert (sizes >= 0).all()
    assert (starts[:, :-1] + sizes <= starts[:, 1:]).all()
    tables = []
    for t, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        slots = [entries[t, a : a + s] for a, s in zip(start, size, strict=False)]
        table = [set(x.tolist()) for x in slots]
        assert list(map(len, table)) == size.tolist()
        assert all(0 <= i < n for rows in table for i in rows)
        assert (entries[t] == n).sum() == capacity - size.sum()
        num_stored = (arrays.codes[t] < len(size)).sum()
        assert size.sum() == num_stored + arrays.num_inserted[t]
        tables.append(table)
    return tables


def assert_holds(buckets, want):
    assert sets_of(buckets) == want.tables
    for field in ("codes", "num_inserted", "num_lost"):
        np.testing.assert_array_equal(getattr(buckets, field), getattr(want, field))
