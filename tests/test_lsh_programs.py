"""An index in programs: in place, saved, mapped, sharded, differentiated around."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brute_index import (
    FAMILY,
    MOST,
    B,
    D,
    N,
    build,
    codes_of,
    insert,
    normal,
    query,
    refresh,
    remove,
)
from bucket_sets import sets_of
from jax.sharding import Mesh, PartitionSpec

from fsparse import checkpoint, lsh, row_grad, rows
from fsparse.lsh import _index


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
