"""Rows of every kind, for every hash family: one meaning, any number, any transform."""

from functools import partial

import jax
import jax.numpy as jnp
import lsh_oracles as oracles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import Mesh, PartitionSpec

import fsparse
from fsparse import lsh

KEY = jax.random.key(0)
B, D = 4, 11  # one shape where any will do: it is compiled once
MAKERS = {
    "simhash": partial(lsh.simhash, num_tables=6, num_bits=5),
    "simhash-sparse": partial(lsh.simhash, num_tables=6, num_bits=5, kind="sparse"),
    "simhash-hadamard": partial(lsh.simhash, num_tables=6, num_bits=5, kind="hadamard"),
    "dwta": partial(lsh.dwta, num_tables=6, num_hashes=2, bin_size=4),
    "minhash": partial(lsh.minhash, num_tables=6, num_hashes=2, num_bits=9),
    "l2": partial(lsh.l2, num_tables=6, num_hashes=3, width=2.0, num_bits=9),
}
FAMILIES = {name: make(KEY, D) for name, make in MAKERS.items()}
every_family = pytest.mark.parametrize("name", MAKERS)
# The ops of the other two are a case of test_transforms.py.
transformed = pytest.mark.parametrize(
    "name", ["simhash-hadamard", "dwta", "minhash", "l2"]
)
exact_family = pytest.mark.parametrize("name", ["dwta", "minhash"])


def some_rows(rng, *shape):
    x = rng.standard_normal((*shape, D)).astype(np.float32)
    return x * (rng.random(x.shape) < 0.6)


def sparse_form(x, order=None):
    """All coordinates of each row in some order; those that are 0 become padding."""
    b, d = x.shape
    order = np.tile(np.arange(d), (b, 1)) if order is None else order
    values = np.take_along_axis(x, order, axis=1)
    ids = np.where(values == 0, d + 1, order).astype(np.int32)
    ids = np.pad(ids, ((0, 0), (0, 2)), constant_values=-1)
    return lsh.SparseRows(ids, np.pad(values, ((0, 0), (0, 2))))


# ---- one meaning --------------------------------------------------------------------

values = st.one_of(
    st.integers(-2, 2).map(float),
    st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
)


@exact_family
@settings(max_examples=60, deadline=None)
@given(x=arrays(np.float32, (B, D), elements=values), seed=st.integers(0, 99))
def test_dense_and_sparse_rows_have_the_same_codes(name, x, seed):
    """To the bit, in any order of ids, with padding."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(D), (B, 1)), axis=1)
    family = FAMILIES[name]
    got = lsh.codes(family, sparse_form(x, order))
    np.testing.assert_array_equal(got, lsh.codes(family, x))


@every_family
@settings(max_examples=30, deadline=None)
@given(
    ids=arrays(np.int32, (B, D + 2), elements=st.integers(-2, D + 2)),
    small=arrays(np.int8, (B, D + 2), elements=st.integers(-2, 2)),
)
def test_values_of_repeated_ids_add_up(name, ids, small):
    """Whole numbers, so that sums are exact; some are 0, and then absent."""
    dense = np.zeros((B, D), np.float32)
    for i, j in np.argwhere((ids >= 0) & (ids < D)):
        dense[i, ids[i, j]] += small[i, j]
    rows = lsh.SparseRows(ids, small.astype(np.float32))
    family = FAMILIES[name]
    equal = np.asarray(lsh.codes(family, rows) == lsh.codes(family, dense))
    assert (equal | near_an_edge(family, dense)).all()


def near_an_edge(family, x):
    """Tables of which a projection may round to either side: ``bool[b, l]``."""
    b = len(x)
    if hasattr(family, "shifts"):
        y = x @ np.asarray(family.directions) + np.asarray(family.shifts)
        near = np.abs(y - np.round(y)) < 1e-5
        return near.reshape(b, family.num_tables, -1).any(-1)
    if hasattr(family, "num_bits") and not hasattr(family, "num_hashes"):
        return (np.abs(oracles.margins(family, x)) < 1e-5).any(-1)
    return np.zeros((b, family.num_tables), bool)


@pytest.mark.parametrize("name", sorted({*MAKERS} - {"dwta", "minhash"}))
def test_sparse_form_of_many_rows(rng, name):
    x, family = some_rows(rng, 1000), FAMILIES[name]
    equal = lsh.codes(family, sparse_form(x)) == lsh.codes(family, x)
    assert (np.asarray(equal) | near_an_edge(family, x)).all()


@every_family
def test_bf16_rows_are_widened(rng, name):
    half = jnp.asarray(some_rows(rng, B), jnp.bfloat16)
    wide, family = half.astype(jnp.float32), FAMILIES[name]
    want = lsh.codes(family, wide)
    np.testing.assert_array_equal(lsh.codes(family, half), want)
    np.testing.assert_array_equal(lsh.codes(family, fsparse.Table(half)), want)
    ids = jnp.broadcast_to(jnp.arange(D, dtype=jnp.int32), half.shape)
    np.testing.assert_array_equal(
        lsh.codes(family, lsh.SparseRows(ids, half)),
        lsh.codes(family, lsh.SparseRows(ids, wide)),
    )


@every_family
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_rows_of_zeros(rng, name, bad):
    x, family = some_rows(rng, B), FAMILIES[name]
    zeroed = x.copy()
    x[[0, 3], [2, 10]], zeroed[[0, 3]] = bad, 0
    want = lsh.codes(family, zeroed)
    np.testing.assert_array_equal(lsh.codes(family, x), want)
    np.testing.assert_array_equal(
        lsh.codes(family, sparse_form(x)), lsh.codes(family, sparse_form(zeroed))
    )
    if name != "l2":
        assert (np.asarray(want)[[0, 3]] == 0).all()


@every_family
def test_padding_hides_its_values(rng, name):
    rows, family = sparse_form(some_rows(rng, B)), FAMILIES[name]
    for beyond in (-1, D, 2**31 - 1, -(2**31)):
        is_padding = (rows.ids < 0) | (rows.ids >= D)
        hidden = lsh.SparseRows(
            np.where(is_padding, beyond, rows.ids).astype(np.int32),
            np.where(is_padding, np.nan, rows.values),
        )
        np.testing.assert_array_equal(
            lsh.codes(family, hidden), lsh.codes(family, rows)
        )


@exact_family
def test_sums_that_overflow_are_not_finite(name):
    """As in the dense form, which holds infinity."""
    ids = np.array([[4, 4, 1]], np.int32)
    rows = lsh.SparseRows(ids, np.array([[3e38, 3e38, 1]], np.float32))
    assert (np.asarray(lsh.codes(FAMILIES[name], rows)) == 0).all()


# ---- any size -----------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("d", [1, 3])
def test_codes_are_buckets_whatever_the_width(rng, name, d):
    """Also with fewer coordinates than bits, positions or bins."""
    family = MAKERS[name](KEY, d)
    x = rng.standard_normal((50, d)).astype(np.float32)
    got = np.asarray(lsh.codes(family, x))
    assert got.shape == (50, 6)
    assert got.dtype == np.int32
    assert got.min() >= 0
    assert got.max() < family.num_buckets
    assert (family.dim, family.num_tables) == (d, 6)


@every_family
def test_no_rows_and_no_coordinates(name):
    family = FAMILIES[name]
    none = np.zeros((0, D), np.float32)
    assert lsh.codes(family, none).shape == (0, 6)
    assert lsh.codes(family, sparse_form(none)).shape == (0, 6)
    empty = lsh.SparseRows(np.zeros((2, 0), np.int32), np.zeros((2, 0), np.float32))
    want = lsh.codes(family, np.zeros((2, D), np.float32))
    np.testing.assert_array_equal(lsh.codes(family, empty), want)


@every_family
def test_blocks_of_rows(rng, name):
    x, family = some_rows(rng, 4097), FAMILIES[name]
    parts = [lsh.codes(family, part) for part in (x[:1], x[1:])]
    np.testing.assert_array_equal(lsh.codes(family, x), np.concatenate(parts))


def test_blocks_of_probes_and_of_sparse_rows(rng):
    x, family = some_rows(rng, 5000), FAMILIES["simhash"]
    got = lsh.probes(family, x, 7)
    np.testing.assert_array_equal(got[4500:], lsh.probes(family, x[4500:], 7))
    rows, family = sparse_form(x), FAMILIES["dwta"]
    np.testing.assert_array_equal(lsh.codes(family, rows), lsh.codes(family, x))


def temporary_bytes(make, x):
    family = jax.eval_shape(make, KEY)
    compiled = jax.jit(lsh.codes).lower(family, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def shaped(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, jnp.float32) for name in MAKERS), ("simhash", jnp.bfloat16)],
)
def test_memory_does_not_grow_with_rows(name, dtype):
    """The shape of Amazon-670K's output layer: 343 MB of rows, 640 hashes each."""
    sizes = {"simhash": {"num_bits": 10}, "l2": {"num_hashes": 10}, "dwta": {}}
    make = partial(MAKERS[name].func, **MAKERS[name].keywords | {"num_tables": 64})
    make = partial(make, dim=128, **sizes.get(name.split("-")[0], {}))
    assert temporary_bytes(make, shaped((670_091, 128), dtype)) < 64e6


@pytest.mark.parametrize("name", ["simhash-hadamard", "dwta", "minhash"])
def test_sparse_rows_are_not_made_dense(name):
    """2,048 rows of 75 of a million coordinates: dense they were 8 GB."""
    make = partial(MAKERS[name], dim=10**6)
    rows = lsh.SparseRows(shaped((2048, 75), jnp.int32), shaped((2048, 75)))
    assert temporary_bytes(make, rows) < 100e6


# ---- any transform ------------------------------------------------------------------


def assert_same(got, want):
    assert got.dtype == want.dtype == jnp.int32
    np.testing.assert_array_equal(got, want)


@transformed
def test_vmap_over_rows(rng, name):
    x, family = some_rows(rng, 3, B), FAMILIES[name]
    want = np.stack([lsh.codes(family, rows) for rows in x])
    assert_same(jax.vmap(partial(lsh.codes, family))(x), want)
    rows = jax.tree.map(lambda *a: np.stack(a), *map(sparse_form, x))
    got = jax.vmap(partial(lsh.codes, family))(rows)
    assert (
        np.asarray(got == want) | np.stack([near_an_edge(family, r) for r in x])
    ).all()


@transformed
def test_vmap_over_families(rng, name):
    keys, x = jax.random.split(KEY, 3), some_rows(rng, B)
    families = jax.vmap(partial(MAKERS[name], dim=D))(keys)
    got = jax.vmap(lsh.codes, (0, None))(families, x)
    want = np.stack([lsh.codes(MAKERS[name](key, D), x) for key in keys])
    assert_same(got, want)


@transformed
def test_ways_to_call(rng, name):
    x, family = some_rows(rng, B), FAMILIES[name]
    for rows in (x, sparse_form(x)):
        want = lsh.codes(family, rows)
        assert_same(jax.jit(lsh.codes)(family, rows), want)
        scanned = jax.lax.scan(lambda c, _: (c, lsh.codes(*c)), (family, rows), None, 2)
        assert_same(scanned[1][1], want)
        shape = jax.eval_shape(lsh.codes, family, rows)
        assert (shape.shape, shape.dtype) == (want.shape, want.dtype)


def test_disable_jit(rng):
    x = rng.standard_normal((2, 2)).astype(np.float32)
    family = lsh.dwta(KEY, 2, num_tables=1, num_hashes=1, bin_size=2)
    want = lsh.codes(family, x)
    with jax.disable_jit():
        assert_same(lsh.codes(family, x), want)


@every_family
def test_types_stay_when_promotion_is_strict_or_wide(rng, name):
    x, family = some_rows(rng, B), FAMILIES[name]
    for rows in (x, sparse_form(x)):
        want = lsh.codes(family, rows)
        with (
            jax.enable_x64(True),
            jax.numpy_dtype_promotion("strict"),
            jax.numpy_rank_promotion("raise"),
        ):
            assert_same(lsh.codes(family, rows), want)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        made = jax.jit(partial(MAKERS[name], dim=D))(KEY)
    jax.tree.map(np.testing.assert_array_equal, made, family)


@transformed
def test_shard_map(rng, name):
    """Blocks of rows on two devices; the family, an argument or not, on both."""
    x, family = some_rows(rng, 10_000), FAMILIES[name]
    mesh, each = Mesh(np.array(jax.devices()[:2]), ("i",)), PartitionSpec("i")
    over = partial(jax.shard_map, mesh=mesh, out_specs=each)
    given_family = over(lsh.codes, in_specs=(PartitionSpec(), each))
    assert_same(jax.jit(given_family)(family, x), lsh.codes(family, x))
    rows = sparse_form(x)
    closed_over = over(partial(lsh.codes, family), in_specs=(each,))
    assert_same(jax.jit(closed_over)(rows), lsh.codes(family, rows))


@transformed
def test_codes_have_no_gradients(rng, name):
    x = jnp.asarray(some_rows(rng, B))

    def loss(x, family):
        codes = lsh.codes(family, x).astype(jnp.float32)
        rows = lsh.SparseRows(jnp.zeros((B, D), jnp.int32), x)
        return jnp.sum(x[:, :6] * codes) + jnp.sum(lsh.codes(family, rows) * 1.0)

    codes = lsh.codes(FAMILIES[name], x)
    want = jnp.pad(codes.astype(jnp.float32), ((0, 0), (0, D - 6)))
    got = jax.jit(jax.grad(loss))(x, FAMILIES[name])
    np.testing.assert_array_equal(got, want)
    _, moved = jax.jvp(partial(loss, family=FAMILIES[name]), (x,), (x,))
    np.testing.assert_allclose(moved, jnp.sum(x * want), rtol=1e-5)


def test_a_family_is_an_immutable_pytree():
    for family in FAMILIES.values():
        again = jax.tree.unflatten(jax.tree.structure(family), jax.tree.leaves(family))
        assert again.num_buckets == family.num_buckets
        with pytest.raises(AttributeError):
            family.dim = 3


def test_families_of_other_keys_differ(rng):
    x = some_rows(rng, B)
    for name, make in MAKERS.items():
        other = lsh.codes(make(jax.random.key(1), D), x)
        assert (np.asarray(other) != np.asarray(lsh.codes(FAMILIES[name], x))).any()
