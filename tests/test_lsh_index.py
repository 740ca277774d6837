"""An index against brute force: the codes of all rows and of all queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute_index import (
    BITS,
    FAMILY,
    TABLES,
    B,
    Brute,
    D,
    N,
    assert_finds,
    assert_same_sets,
    build,
    insert,
    normal,
    query,
    refresh,
    remove,
)
from bucket_sets import sets_of

from fsparse import Table, lsh
from fsparse.lsh import _index

# ---- values -------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["each", "shared"])
@pytest.mark.parametrize("size", [1, 7, N, N + 3])
def test_query_is_brute_force(rng, size, shared):
    table, x = normal(rng, N, D), normal(rng, B, D)
    index, brute = build(FAMILY, table), Brute(table)
    for start in (0, 17, N - 1):
        assert_finds(index, brute, x, size, start, shared)


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_is_brute_force(seed):
    rng = np.random.default_rng(seed)
    table, x = normal(rng, N, D), normal(rng, B, D)
    index, brute = build(FAMILY, table, max_inserted=N * TABLES), Brute(table)
    for _ in range(4):
        labels = rng.integers(0, N, (B, 2)).astype(np.int32)
        index = insert(index, x, labels)
        brute.insert(x, labels)
        assert_finds(index, brute, x)
        gone = rng.integers(-1, N + 1, 8).astype(np.int32)
        index = remove(index, gone)
        brute.remove(gone)
        assert_finds(index, brute, x, shared=True)
        moved = rng.integers(0, N, 8).astype(np.int32)
        table[moved] = normal(rng, 8, D)
        index = refresh(index, table, moved)
        brute.refresh(table, moved)
        assert_finds(index, brute, x, start=5)
        x = np.concatenate([x[1:], normal(rng, 1, D)])
    assert not index.buckets.num_lost.any()


def test_several_probes_are_brute_force(rng):
    table, x = normal(rng, N, D), normal(rng, B, D)
    index, brute = build(FAMILY, table), Brute(table)
    probes = lsh.probes(FAMILY, jnp.asarray(x), 3)
    for shared in (False, True):
        got = query(index, x, size=9, num_probes=3, start=4, shared=shared)
        want = brute.query(np.asarray(probes), 9, 4, shared)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_start_is_taken_modulo_n(rng):
    """Of any integer type, below 0 and beyond n."""
    x, index = normal(rng, B, D), build(FAMILY, np.zeros((300, D), np.float32))
    want = lsh.query(index, -abs(x), size=9, start=200)
    starts = [-100, 500, np.uint8(200), np.int16(-100), np.uint32(2**32 - 296)]
    assert [int(s) % 300 for s in starts] == [200] * 5
    for start in starts:
        got = lsh.query(index, -abs(x), size=9, start=start)
        np.testing.assert_array_equal(got.ids, want.ids)


def test_rows_that_moved_are_where_a_new_index_has_them(rng):
    """Repeated ids and padding of all kinds, in one call and in many."""
    table = normal(rng, N, D)
    index = once = build(FAMILY, table)
    moved = rng.permutation(N)[:16].astype(np.int32)
    table[moved] = normal(rng, 16, D)
    padding = np.array([-1, N, -(2**31), 2**31 - 1], np.int32)
    for part in np.split(moved, 4):
        index = refresh(index, table, np.concatenate([part, padding, part[::-1]]))
    once = refresh(once, table, np.concatenate([moved, padding, moved]))
    anew = build(FAMILY, table)
    assert_same_sets(index, anew)
    assert_same_sets(once, anew)


def test_rows_that_were_removed_come_back(rng):
    table, every = normal(rng, N, D), np.arange(N, dtype=np.int32)
    index = build(FAMILY, table)
    empty = remove(index, np.append(every, [0, -1, N]).astype(np.int32))
    assert not any(any(t) for t in sets_of(empty.buckets))
    assert not lsh.query(empty, normal(rng, B, D), size=3).num_found.any()
    assert_same_sets(refresh(empty, table, every), index)


def test_blocks_of_rows_are_hashed_as_the_whole(rng):
    """More rows than a block, the last of which is short."""
    n = 2 * _index._ROWS_A_BLOCK + 5
    table = normal(rng, n, D)
    index = build(FAMILY, table)
    want = np.asarray(lsh.codes(FAMILY, jnp.asarray(table))).T
    np.testing.assert_array_equal(index.buckets.codes, want)
    ids = rng.permutation(n)[: n - 2].astype(np.int32)
    assert_same_sets(refresh(remove(index, ids), table, ids), index)


def test_no_examples_and_no_ids(rng):
    index = build(FAMILY, normal(rng, N, D), max_inserted=1)
    none, x = np.zeros(0, np.int32), np.zeros((0, D), np.float32)
    assert lsh.query(index, x, size=3).ids.shape == (0, 3)
    found = lsh.query(index, x, size=3, shared=True)
    assert found.ids.tolist() == [N] * 3
    assert found.num_found == 0
    assert_same_sets(lsh.refresh(index, normal(rng, N, D), none), index)
    assert_same_sets(lsh.remove(index, none), index)
    assert_same_sets(lsh.insert(index, x, none.reshape(0, 2)), index)
    assert_same_sets(lsh.insert(index, normal(rng, B, D), none.reshape(B, 0)), index)


def test_what_does_not_fit_is_counted(rng):
    x, ids = normal(rng, 1, D), np.arange(N, dtype=np.int32)[None]
    table = -np.repeat(x, N, axis=0)  # all bits differ: no row is where x is
    for most in (0, 3, N, N + 1):
        index = insert(build(FAMILY, table, max_inserted=most), x, ids)
        assert (index.buckets.num_lost == max(N - most, 0)).all()
        found = query(index, x, size=N)
        assert found.num_found == min(most, N)
        assert found.ids[0, : min(most, N)].tolist() == [*range(min(most, N))]


# ---- tables -------------------------------------------------------------------------


def test_bf16_tables_and_marked_ones(rng):
    half = jnp.asarray(normal(rng, N, D), jnp.bfloat16)
    want = build(FAMILY, half.astype(jnp.float32))
    for table in (half, Table(half)):
        index = lsh.build(FAMILY, table)
        assert_same_sets(index, want)
        ids = jnp.arange(5, dtype=jnp.int32)
        assert_same_sets(lsh.refresh(lsh.remove(index, ids), table, ids), want)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan], ids=str)
def test_equal_rows_are_all_found(value):
    """Rows of zeros among them; rows with NaN are hashed as those."""
    table = np.full((N, D), value, np.float32)
    index, brute = build(FAMILY, table), Brute(np.nan_to_num(table))
    x = np.stack([np.nan_to_num(table[0]), np.ones(D), -np.ones(D)])
    x = x.astype(np.float32)
    assert_finds(index, brute, x, N)
    assert query(index, table[:1], size=N).num_found.tolist() == [N]


def test_rows_narrower_than_their_codes():
    family = lsh.simhash(jax.random.key(1), 1, num_tables=2, num_bits=9)
    index = lsh.build(family, jnp.array([[1.0], [-2.0], [3.0], [0.0]]))
    found = lsh.query(index, jnp.array([[5.0], [-1.0], [0.0]]), size=4)
    assert found.votes.tolist() == [[2, 2, 0, 0], [2, 0, 0, 0], [2, 0, 0, 0]]
    assert found.ids.tolist() == [[0, 2, 4, 4], [1, 4, 4, 4], [3, 4, 4, 4]]


def test_one_row(rng):
    index = lsh.build(FAMILY, normal(rng, 1, D))
    found = lsh.query(index, normal(rng, B, D), size=2, start=9)
    assert set(found.ids.ravel().tolist()) <= {0, 1}
    assert_same_sets(
        lsh.refresh(index, normal(rng, 1, D) * 0, np.zeros(1, np.int32)),
        lsh.build(FAMILY, jnp.zeros((1, D))),
    )


@pytest.mark.parametrize("augment", [False, True])
def test_rows_prepared_for_inner_products(rng, augment):
    """Codes are those of prepared rows and queries, also after a refresh."""
    table, x = normal(rng, N, D), normal(rng, B, D)
    mips = lsh.mips(jnp.asarray(table), augment=augment)
    sizes = {"num_tables": TABLES, "num_bits": BITS}
    family = lsh.simhash(jax.random.key(0), D + augment, **sizes)
    index = lsh.build(family, table, mips=mips)
    want = lsh.codes(family, lsh.mips_rows(mips, jnp.asarray(table)))
    np.testing.assert_array_equal(index.buckets.codes, want.T)
    of_x = lsh.codes(family, lsh.mips_queries(mips, jnp.asarray(x)))
    votes = (of_x[:, None] == want[None]).sum(2)
    found = lsh.query(index, x, size=N)
    for ids, counts, own in zip(found.ids, found.votes, votes, strict=True):
        assert (counts == np.sort(own)[::-1]).all()
        assert (own[ids[counts > 0]] == counts[counts > 0]).all()
    ids = jnp.arange(9, dtype=jnp.int32)
    assert_same_sets(lsh.refresh(lsh.remove(index, ids), table, ids), index)
    with pytest.raises(
        ValueError, match=r"^lsh\.build: table must give vectors of the"
    ):
        lsh.build(lsh.simhash(jax.random.key(0), 99, **sizes), table, mips=mips)
