"""An index against brute force: the codes of all rows and of all queries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bucket_sets import sets_of
from jax.sharding import Mesh, PartitionSpec

from fsparse import Table, checkpoint, lsh, row_grad, rows
from fsparse.lsh import _index

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


families = pytest.mark.skipif(
    not hasattr(lsh, "probes"), reason="needs the hash families themselves"
)


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


@families
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


@families
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


# ---- in programs --------------------------------------------------------------------


def train_step(state, x, ids):
    """Rows change, and the index with them."""
    table, index = state
    found = lsh.query(index, x, size=8, shared=True)
    grad = row_grad(found.ids, jnp.ones((8, D)), num_rows=len(table))
    opt = rows.sgd_init(table)
    table, _ = rows.sgd_update(table, opt, grad, learning_rate=0.1)
    index = lsh.refresh(index, table, found.ids)
    index = lsh.remove(index, ids[0])
    index = lsh.insert(index, x, ids)
    return (table, index), found.num_found


def over_steps(state, x, ids):
    step = lambda state, _: train_step(state, x, ids)  # noqa: E731
    return jax.lax.scan(step, state, length=3)


def own(tree):
    """Arrays that nothing else holds."""
    return jax.block_until_ready(jax.tree.map(jnp.array, tree))


def pointers(tree):
    return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("run", [train_step, over_steps], ids=["jit", "scan"])
def test_a_donated_index_is_changed_in_place(rng, run):
    n, x = 5000, normal(rng, B, D)
    table, ids = normal(rng, n, D), np.arange(2 * B, dtype=np.int32).reshape(B, 2)
    state = own((table, lsh.build(FAMILY, table, max_inserted=MOST)))
    arrays = jax.tree.leaves(state[1])
    step = jax.jit(run, donate_argnums=0)
    compiled = step.lower(state, x, ids).compile()
    names = {"int32": "s32", "uint16": "u16", "float32": "f32"}
    types = [f"{names[a.dtype.name]}[{','.join(map(str, a.shape))}]" for a in arrays]
    lines = compiled.as_text().splitlines()
    copies = [line for line in lines if " copy(" in line]
    assert not [line for line in copies if any(kind in line for kind in types)]
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= lsh.num_bytes(state[1])
    before = pointers(state)
    for _ in range(3):
        state, num_found = step(state, x, ids)
        assert pointers(state) == before
    assert np.all(num_found > 0)
    assert_is_index_of(state)


def assert_is_index_of(state):
    """Each row that is stored is where it belongs."""
    table, index = state
    stored = np.asarray(index.buckets.codes) != _index.NOWHERE
    want = np.where(stored, codes_of(table), _index.NOWHERE)
    np.testing.assert_array_equal(index.buckets.codes, want)
    sets_of(index.buckets)


def test_a_new_index_can_be_donated(rng):
    """Its arrays are different ones, made eagerly or in a program."""
    table, ids = normal(rng, N, D), np.arange(3, dtype=np.int32)
    step = jax.jit(lsh.remove, donate_argnums=0)
    for make in (lsh.build, build):
        family = own(FAMILY)
        buckets = make(family, table).buckets
        assert len(set(pointers(buckets))) == len(buckets)
        index = step(make(family, table), ids)
        assert not set(query(index, table[:3], size=N).ids.ravel().tolist()) & {0, 1, 2}


def test_undonated_index_stays(rng):
    table, ids = normal(rng, N, D), np.arange(9, dtype=np.int32)
    index = build(FAMILY, table, max_inserted=MOST)
    kept = jax.tree.map(np.array, index)
    for change in (
        lambda: remove(index, ids),
        lambda: refresh(index, -table, ids),
        lambda: insert(index, table[:3], ids.reshape(3, 3)),
    ):
        changed = change()
        assert sets_of(changed.buckets) != sets_of(kept.buckets)
        jax.tree.map(np.testing.assert_array_equal, index, kept)


def test_memory_of_a_build_is_that_of_the_index():
    """Beside it, ids of rows, and blocks whose size does not follow n."""

    def temporaries(n, dtype):
        table = jax.ShapeDtypeStruct((n, D), dtype)
        return build.lower(FAMILY, table).compile().memory_analysis().temp_size_in_bytes

    for dtype in (jnp.float32, jnp.bfloat16):
        small, large = temporaries(50_000, dtype), temporaries(150_000, dtype)
        assert large - small <= 5 * 100_000


def test_num_bytes_is_the_documented_formula():
    """And that of the weights is larger, for such sizes."""
    n, d, most = 100_000, 128, 3000
    family = lsh.simhash(jax.random.key(0), d, num_tables=16, num_bits=9)
    table = jax.ShapeDtypeStruct((n, d), jnp.float32)
    index = jax.eval_shape(partial(lsh.build, max_inserted=most), family, table)
    hashes = sum(x.nbytes for x in jax.tree.leaves(family))
    a_row = (6.25 + 8 * family.num_buckets / n) * 16
    want = a_row * n + 4.25 * 16 * most + hashes
    assert lsh.num_bytes(index) == pytest.approx(want, abs=20 * 16)
    assert lsh.num_bytes(index) < 4 * n * d


def test_checkpoint_round_trip(rng, tmp_path):
    table, x = normal(rng, N, D), normal(rng, B, D)
    index = insert(
        build(FAMILY, table, max_inserted=MOST), x, np.zeros((B, 1), np.int32)
    )
    checkpoint.save(tmp_path / "index", index, {"step": 3})
    like = jax.eval_shape(partial(lsh.build, max_inserted=MOST), FAMILY, table)
    again, _ = checkpoint.load(tmp_path / "index", like)
    jax.tree.map(np.testing.assert_array_equal, again, index)
    assert again.max_inserted == MOST
    for a, b in zip(query(again, x, size=5), query(index, x, size=5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_codes_have_no_gradient(rng):
    """A loss may hash what it differentiates in."""
    table, x = normal(rng, N, D), jnp.asarray(normal(rng, B, D))

    def loss(table, x):
        index = lsh.build(FAMILY, table)
        ids = lsh.query(lsh.refresh(index, table, jnp.arange(3)), x, size=4).ids
        return jnp.sum(jnp.sin(x)) + jnp.sum(ids) + jnp.sum(table**2)

    dtable, dx = jax.grad(loss, (0, 1))(jnp.asarray(table), x)
    np.testing.assert_allclose(dtable, 2 * table, rtol=1e-6)
    np.testing.assert_allclose(dx, jnp.cos(x), rtol=1e-6)


def find(table, x, changed):
    """All that an index does, and its arrays that are no layout."""
    index = lsh.build(FAMILY, table, max_inserted=4)
    index = lsh.insert(index, x, jnp.arange(len(x), dtype=jnp.int32)[:, None])
    index = lsh.remove(index, changed)
    index = lsh.refresh(index, -table, changed[:2])
    found = lsh.query(index, x, size=5)
    return found, lsh.query(index, x, size=5, start=3, shared=True), index.buckets.codes


@pytest.mark.parametrize(
    "in_axes", [(0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0)], ids=str
)
def test_vmap_is_one_by_one(rng, in_axes):
    args = normal(rng, 2, N, D), normal(rng, 2, B, D), rng.permutation(N)[:6]
    args = (*args[:2], jnp.asarray(args[2].reshape(2, 3), jnp.int32))
    args = [a if axis == 0 else a[0] for a, axis in zip(args, in_axes, strict=True)]
    got = jax.jit(jax.vmap(find, in_axes))(*args)
    one = jax.jit(find)
    for i in range(2):
        own = [a[i] if axis == 0 else a for a, axis in zip(args, in_axes, strict=True)]
        mine = jax.tree.map(lambda y, i=i: y[i], got)
        jax.tree.map(np.testing.assert_array_equal, mine, one(*own))


def test_shards_of_examples_ask_one_index_or_their_own(rng):
    """The table or the examples may be shared; an index may be a carry of scan."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))
    tables, xs = jnp.asarray(normal(rng, 2, N, D)), jnp.asarray(normal(rng, 2, B, D))
    changed = jnp.arange(3, dtype=jnp.int32)
    own, all_ = PartitionSpec("i"), PartitionSpec()
    for specs in ((own, own), (all_, own), (own, all_)):

        @partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=own)
        def sharded(table, x):
            table, x = table[0], x[0]
            found = find(table, x, changed)
            index = lsh.build(FAMILY, table)
            step = lambda index, _: (lsh.refresh(index, -table, changed), ())  # noqa: E731
            index, _ = jax.lax.scan(step, index, length=2)
            return jax.tree.map(lambda y: y[None], (found, index.buckets.codes))

        got = jax.jit(sharded)(tables, xs)
        for i in range(2):
            of = [
                a[0 if s is all_ else i]
                for a, s in zip((tables, xs), specs, strict=True)
            ]
            moved = lsh.refresh(lsh.build(FAMILY, of[0]), -of[0], changed)
            want = find(*of, changed), moved.buckets.codes
            mine = jax.tree.map(lambda y, i=i: y[i], got)
            jax.tree.map(np.testing.assert_array_equal, mine, want)


def arguments(rng):
    return *map(jnp.asarray, (normal(rng, N, D), normal(rng, B, D))), jnp.arange(3)


@families
def test_nothing_is_promoted(rng):
    args = arguments(rng)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(find, *args)
        jax.eval_shape(jax.vmap(find, (0, None, None)), args[0][None], *args[1:])


def test_x64_changes_nothing(rng):
    args = arguments(rng)
    want = jax.jit(find)(*args)
    with jax.enable_x64(True):
        got = jax.jit(find)(*args)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    dtypes = [y.dtype for y in jax.tree.leaves(got)]
    assert dtypes == [y.dtype for y in jax.tree.leaves(want)]
