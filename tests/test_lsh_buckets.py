"""Hash tables against sets in plain Python, and against their twins.

Where an entry lies is nobody's business: handler and twin must have the same sets.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bucket_sets import Sets, assert_holds
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.lsh import _buckets, _reference
from fsparse.lsh._buckets import NOWHERE, Buckets

# n, tables, buckets, capacity, max_inserted, ids of a call: compiled once each.
SIZES = {
    "one row": (1, 1, 1, 1, 0, 2),
    "full": (9, 2, 3, 14, 5, 4),  # each slot may be needed
    "empty buckets": (5, 3, 40, 12, 6, 3),
}
every_size = pytest.mark.parametrize("name", SIZES)
MOST_STEPS, GROUPS, PROBES = 6, 3, 5
TWINS = {
    "build": jax.jit(_reference.build, static_argnames=("num_buckets", "capacity")),
    "move": jax.jit(_reference.move),
    "insert": jax.jit(_reference.insert),
    "vote": jax.jit(_reference.vote, static_argnames="k"),
}


class Trio:
    """Handler, twin and sets, which do the same and must be the same."""

    def __init__(self, codes, num_buckets, capacity, max_inserted):
        codes = np.asarray(codes, np.uint16)
        self.sets = Sets(codes, num_buckets, max_inserted)
        self.ours = _buckets.build(jnp.asarray(codes), num_buckets, capacity)
        twin = TWINS["build"](codes, num_buckets=num_buckets, capacity=capacity)
        self.twin = Buckets(*twin, *self.ours[3:])
        for a, b in zip(self.ours, self.twin, strict=True):
            np.testing.assert_array_equal(a, b)
        self.check()

    def check(self):
        assert_holds(self.ours, self.sets)
        assert_holds(self.twin, self.sets)

    def move(self, ids, codes):
        operands = np.asarray(ids, np.int32), np.asarray(codes, np.uint16)
        self.sets.move(*operands)
        self.ours = _buckets.move(self.ours, *map(jnp.asarray, operands))
        self.twin = Buckets(*TWINS["move"](*operands, *self.twin))
        self.check()

    def insert(self, ids, codes):
        operands = np.asarray(ids, np.int32), np.asarray(codes, np.uint16)
        most = self.sets.max_inserted
        self.sets.insert(*operands)
        self.ours = _buckets.insert(self.ours, *map(jnp.asarray, operands), most)
        most = np.full(1, most, np.int32)
        self.twin = Buckets(*TWINS["insert"](*operands, most, *self.twin))
        self.check()

    def vote(self, probes, start, size):
        probes = np.asarray(probes, np.int32)
        want = [self.sets.vote(row.tolist(), start, size) for row in probes]
        first = np.full(1, start, np.int32)
        twin = TWINS["vote"](probes, first, *self.twin[:5], k=size)
        ours = _buckets.vote(self.ours, jnp.asarray(probes), jnp.asarray(start), size)
        for k, (a, b) in enumerate(zip(ours, twin, strict=True)):
            rows = np.reshape([row[k] for row in want], a.shape)
            np.testing.assert_array_equal(a, rows)
            np.testing.assert_array_equal(a, b)
        return ours


def arrays(shape, values):
    count = int(np.prod(shape))
    lists = st.lists(values, min_size=count, max_size=count)
    return lists.map(lambda xs: np.array(xs).reshape(shape))


def bucket_codes(num_buckets):
    """Few buckets often, no bucket at times."""
    few = st.integers(0, min(num_buckets, 3) - 1)
    return few | st.integers(0, num_buckets) | st.just(NOWHERE)


def same_for_equal_ids(ids, codes):
    """A row that is moved twice in one call goes to one place."""
    first = [ids.tolist().index(i) for i in ids]
    return codes[:, first]


@every_size
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_sequence_matches_sets_and_twin(name, data):
    n, num_tables, num_buckets, capacity, most, m = SIZES[name]
    draw_codes = bucket_codes(num_buckets)
    codes = data.draw(arrays((num_tables, n), draw_codes), "codes")
    trio = Trio(codes, num_buckets, capacity, most)
    for _ in range(data.draw(st.integers(1, MOST_STEPS), "steps")):
        ids = data.draw(arrays((m,), st.integers(-1, n + 1)), "ids")
        new = data.draw(arrays((num_tables, m), draw_codes), "new codes")
        if data.draw(st.booleans(), "moves"):
            trio.move(ids, same_for_equal_ids(ids, new))
        else:
            trio.insert(ids, new)
    all_buckets = st.integers(-2, num_tables * num_buckets + 1)
    probes = data.draw(arrays((GROUPS, PROBES), all_buckets), "probes")
    start = data.draw(st.integers(0, n - 1), "start")
    for size in (3, n + 2):
        trio.vote(probes, start, size)


# ---- skew ---------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0, 11], ids=["to the left", "to the right"])
def test_all_rows_move_one_by_one_to_the_other_end(far):
    """Without slack, each room comes from the bucket at the other end."""
    n, num_buckets = 24, 12
    trio = Trio(np.full((1, n), 11 - far), num_buckets, n, 0)
    for i in range(n):
        trio.move([i, n], [[far, far]])
    assert trio.sets.tables[0][far] == set(range(n))
    trio.vote([[far]], 4, n)
    assert not trio.ours.num_lost.any()


def test_all_rows_gather_in_a_bucket_amid_full_ones():
    """Gaps come from both sides, the nearest first."""
    n, num_buckets = 24, 12
    trio = Trio([np.arange(n) % num_buckets], num_buckets, n, 0)
    for i in np.random.default_rng(0).permutation(n):
        trio.move([i, -1], [[4, 4]])
    assert trio.sets.tables[0][4] == set(range(n))


def test_rows_scatter_from_one_bucket_to_all():
    n, num_buckets = 24, 12
    trio = Trio(np.zeros((1, n)), num_buckets, n, 0)
    order = np.random.default_rng(1).permutation(n)
    for i in range(0, n, 2):
        trio.move(order[i : i + 2], [order[i : i + 2] % num_buckets])
    assert list(map(len, trio.sets.tables[0])) == [2] * num_buckets


# ---- insertions ---------------------------------------------------------------------


def padded(ids, codes, size=8):
    """Few shapes: the twin of an insertion takes a second to compile."""
    codes = np.broadcast_to(codes, (2, len(ids)))
    fill = (0, size - len(ids))
    return np.pad(ids, fill, constant_values=-1), np.pad(codes, ((0, 0), fill))


def two_tables(codes, max_inserted):
    """Of four rows and four buckets, with twelve slots."""
    return Trio(np.broadcast_to(codes, (2, 4)), 4, 12, max_inserted)


def test_the_first_insertions_are_kept_and_the_rest_counted():
    trio = two_tables([0, 1, 2, 3], 2)
    ids = [1, 0, 4, 2, 1, 3, 3]
    trio.insert(*padded(ids, [[0] * 7, [1, 1, 1, 1, 1, 3, 1]]))
    assert trio.sets.tables[0][0] == {0, 1, 2}  # 3 has come too late, twice
    assert trio.sets.tables[1][1] == {0, 1, 2}  # and here once
    assert trio.ours.num_lost.tolist() == [2, 1]
    trio.insert(*padded(ids, 4))  # no bucket: neither kept nor lost
    assert trio.ours.num_lost.tolist() == [2, 1]


def test_every_slot_is_used():
    """By insertions, and by moves into those that others leave behind."""
    trio = two_tables(0, 8)
    for i in range(4):
        trio.insert(*padded([i, i, i], [2, 3, 1]))
    assert trio.ours.num_inserted.tolist() == [8, 8]
    assert trio.ours.num_lost.tolist() == [4, 4]
    assert not (trio.ours.entries == 4).any()
    for i in range(4):
        trio.move(*padded([i], [3 - i]))
    assert trio.ours.num_lost.tolist() == [4, 4]


def test_an_inserted_entry_becomes_that_of_the_row():
    """And so makes room for another insertion, and leaves with the row."""
    trio = two_tables([0, 1, 3, 3], 1)
    trio.insert(*padded([0, 1], 2))
    assert trio.ours.num_lost.tolist() == [1, 1]
    trio.move(*padded([0], 2))
    assert trio.ours.num_inserted.tolist() == [0, 0]
    trio.insert(*padded([1], 2))
    assert trio.sets.tables[0] == [set(), {1}, {0, 1}, {2, 3}]
    trio.move(*padded([0], 1))
    assert trio.sets.tables[0] == [set(), {0, 1}, {1}, {2, 3}]


def test_removed_rows_have_no_votes():
    """Also where their inserted entries are, until they are back."""
    trio = two_tables([0, 0, 1, NOWHERE], 3)
    trio.insert(*padded([0, 2, 3], [1, 0, 2]))
    probes = [[0, 1, 2, 4, 5, 6]]
    trio.move(*padded([0], NOWHERE))
    ids, votes, num_found = trio.vote(probes, 0, 4)
    assert ids.tolist() == [[2, 1, 4, 4]]
    assert votes.tolist() == [[4, 2, 0, 0]]
    assert num_found.tolist() == [2]
    trio.move(*padded([0, 3], [2, 1]))
    assert trio.vote(probes, 0, 4)[0].tolist() == [[0, 2, 3, 1]]
    assert trio.ours.num_inserted.tolist() == [3, 3]


# ---- votes --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 63, 64, 65, 130])
def test_equal_votes_are_ordered_from_start_around_the_end(n):
    """At the edges of machine words, too."""
    buckets = _buckets.build(jnp.zeros((1, n), jnp.uint16), 1, n)
    for start in {0, 1 % n, n // 2, n - 1}:
        probes, first = jnp.zeros((1, 1), jnp.int32), jnp.int32(start)
        ids, votes, num_found = _buckets.vote(buckets, probes, first, n)
        assert ids.tolist() == [[(start + i) % n for i in range(n)]]
        assert votes.tolist() == [[1] * n]
        assert num_found.tolist() == [n]
        few = max(1, n // 3)
        best, _, num_found = _buckets.vote(buckets, probes, first, few)
        assert best.tolist() == [ids[0, :few].tolist()]
        assert num_found.tolist() == [n]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=str)
def test_no_groups_and_no_probes(shape):
    trio = Trio([[0, 1, 0]], 2, 3, 0)
    ids, votes, num_found = trio.vote(np.zeros(shape), 1, 4)
    assert ids.shape == votes.shape == (shape[0], 4)
    assert (ids == 3).all()
    assert not num_found.any()


def test_nothing_moves_and_nothing_is_inserted():
    trio, none = two_tables([0, 1, 0, 3], 1), jnp.zeros(0, jnp.int32)
    codes = jnp.zeros((2, 0), jnp.uint16)
    moved = _buckets.move(trio.ours, none, codes)
    assert_holds(_buckets.insert(moved, none, codes, 1), trio.sets)


def test_one_large_group_counts_as_its_parts_do(rng):
    """Probes of a group that threads share: 4,096 of them against a plain count."""
    n, num_tables, num_buckets = 500, 4, 16
    codes = rng.integers(0, num_buckets, (num_tables, n)).astype(np.uint16)
    buckets = _buckets.build(jnp.asarray(codes), num_buckets, n)
    probes = rng.integers(0, num_tables * num_buckets, (1, 4096)).astype(np.int32)
    asked = np.bincount(probes[0], minlength=num_tables * num_buckets)
    asked = asked.reshape(num_tables, num_buckets)
    votes = sum(asked[t][codes[t]] for t in range(num_tables))
    best = np.lexsort(((np.arange(n) - 7) % n, -votes))[:50]
    got = _buckets.vote(buckets, jnp.asarray(probes), jnp.int32(7), 50)
    np.testing.assert_array_equal(got[0][0], best)
    np.testing.assert_array_equal(got[1][0], votes[best])


# ---- arrays that nobody built here --------------------------------------------------


def test_more_votes_than_16_bits_hold():
    """Votes are counted in 16 bits as long as there are fewer probes than that."""
    buckets = _buckets.build(jnp.zeros((1, 3), jnp.uint16), 2, 3)
    for num_probes in (2**16 - 1, 2**16, 2**16 + 5):
        probes = jnp.zeros((1, num_probes), jnp.int32)
        ids, votes, num_found = _buckets.vote(buckets, probes, jnp.int32(1), 4)
        np.testing.assert_array_equal(ids, [[1, 2, 0, 3]])
        np.testing.assert_array_equal(votes, [[num_probes] * 3 + [0]])
        np.testing.assert_array_equal(num_found, [3])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_arrays_at_all_are_safe(seed):
    """Nothing is read or written outside: else this crashes, or canaries change."""
    n, num_tables, num_buckets, capacity, most, m = 20, 2, 6, 40, 10, 6
    rng = np.random.default_rng(seed)
    wild = partial(rng.choice, [-(2**31), -1, 0, 1, 5, 19, 39, 40, 41, 2**31 - 1])
    shapes = (num_tables, num_buckets + 1), (num_tables, num_buckets)
    starts, sizes = (jnp.asarray(wild(shape), jnp.int32) for shape in shapes)
    entries = jnp.asarray(wild((num_tables, capacity)), jnp.int32)
    codes = rng.choice([0, 3, 5, 6, NOWHERE], (num_tables, n)).astype(np.uint16)
    counts = jnp.asarray(wild((2, num_tables)) % 9, jnp.int32)
    buckets = Buckets(starts, sizes, entries, jnp.asarray(codes), *counts)
    ids = jnp.asarray(rng.integers(0, n, m), jnp.int32)
    new = jnp.asarray(rng.integers(0, num_buckets, (num_tables, m)), jnp.uint16)
    for _ in range(3):
        buckets = _buckets.insert(_buckets.move(buckets, ids, new), ids, new, most)
    probes = jnp.asarray(rng.integers(-1, 14, (GROUPS, PROBES)), jnp.int32)
    found, votes, num_found = _buckets.vote(buckets, probes, jnp.int32(-5), n)
    assert ((found >= 0) & (found <= n)).all()
    assert (jnp.sum(votes > 0, axis=1) == num_found).all()
