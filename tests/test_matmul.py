"""The matmul family against float64 oracles, within an error model."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse import (
    embedding_bag,
    gather_matmul,
    matmul,
    reference,
    sampled_matmul,
    scatter_outer,
    take_rows,
)

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
OUT_OF_RANGE = (-1, -7, INT_MIN, INT_MAX)

# b, k, d, n: edges of 0, of one row, of a vector and of a register tile.
SMALL = [
    (0, 3, 8, 5),
    (1, 0, 7, 5),
    (3, 1, 0, 5),
    (8, 9, 1, 0),
    (1, 1, 1, 1),
    (1, 65, 64, 9),
    (3, 7, 9, 64),
    (7, 8, 65, 3),
    (9, 64, 3, 65),
    (64, 3, 7, 8),
    (65, 65, 8, 100),
]
# Past the blocks of a product: 252 x 256, 256 deep; 256 ids to a task.
LARGE = [(300, 270, 5, 400), (5, 530, 300, 90), (260, 3, 514, 7)]


def make_ids(rng, n, shape):
    """Ids that repeat, and about a fifth of padding of every kind."""
    ids = rng.integers(0, n, shape) if n else np.zeros(shape, np.int64)
    padding = rng.choice([n, n + 1, *OUT_OF_RANGE], shape)
    return np.where(rng.random(shape) < 0.2, padding, ids).astype(np.int32)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def make(rng, b, k, d, n, shared):
    """x, w, v and ids."""
    ids = make_ids(rng, n, (k,) if shared else (b, k))
    return normal(rng, b, d), normal(rng, n, d), normal(rng, b, k), ids


def picked(w, ids, b):
    """w[ids], zeros for padding, f64[b, k, d]; which ids are rows, bool[b, k]."""
    ids = np.broadcast_to(ids, (b, ids.shape[-1]))
    valid = (ids >= 0) & (ids < len(w))
    rows = np.zeros((*ids.shape, w.shape[1]))
    rows[valid] = w[ids[valid]]
    return rows, valid


def sampled_oracle(x, w, ids):
    rows, _ = picked(w, ids, len(x))
    return np.einsum("bd,bkd->bk", x.astype(float), rows)


def gather_oracle(v, w, ids):
    rows, valid = picked(w, ids, len(v))
    return np.einsum("bk,bkd->bd", np.where(valid, v, 0).astype(float), rows)


def scatter_oracle(v, x, ids, n):
    g = np.zeros((n, x.shape[1]))
    ids = np.broadcast_to(ids, v.shape)
    valid = (ids >= 0) & (ids < n)
    np.add.at(g, ids[valid], (v[..., None].astype(float) * x[:, None])[valid])
    return g


def assert_product(got, oracle, operands, terms):
    """|error| <= c eps sum |a| |b|, with c growing as the root of the terms added."""
    magnitude = oracle(*[abs(a) for a in operands[:2]], *operands[2:])
    bound = (4 + np.sqrt(terms)) * np.finfo(np.float32).eps * magnitude
    assert got.dtype == jnp.float32
    assert got.shape == magnitude.shape
    error = abs(np.asarray(got, float) - oracle(*operands))
    assert (error <= bound).all(), (error - bound).max()


def check_family(x, w, v, ids):
    (b, d), (n, k) = x.shape, (len(w), ids.shape[-1])
    assert_product(sampled_matmul(x, w, ids), sampled_oracle, (x, w, ids), d)
    assert_product(gather_matmul(v, w, ids), gather_oracle, (v, w, ids), k)
    g = scatter_outer(v, x, ids, num_rows=n)
    assert_product(g, scatter_oracle, (v, x, ids, n), b * k)


@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
@pytest.mark.parametrize("size", SMALL + LARGE, ids=str)
def test_family_matches_float64(rng, size, shared):
    check_family(*make(rng, *size, shared))


def check_bf16(x, w, v, ids):
    """A bf16 table gives the bits of the f32 table that it widens to."""
    half = jnp.asarray(w, jnp.bfloat16)
    wide = half.astype(jnp.float32)
    for op, a in ((sampled_matmul, x), (gather_matmul, v)):
        got = op(a, half, ids)
        assert got.dtype == jnp.float32
        assert np.asarray(got).tobytes() == np.asarray(op(a, wide, ids)).tobytes()


@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
@pytest.mark.parametrize("size", SMALL + LARGE, ids=str)
def test_bf16_has_the_bits_of_f32(rng, size, shared):
    check_bf16(*make(rng, *size, shared))


def test_bf16_has_the_bits_of_f32_for_every_rest_of_a_vector(rng):
    for d in (*range(1, 18), 31, 33, 63, 95):
        x, w, v, ids = make(rng, 4, 9, d, 11, shared=True)
        check_bf16(x, w, v, ids)
        check_bf16(x, w, v, np.tile(ids, (4, 1)))


@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
def test_every_bf16_is_widened(shared):
    """All but the subnormal ones, which XLA's threads take for 0 in f32, too."""
    wide = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    is_normal = np.isfinite(wide) & (abs(wide) >= np.finfo(np.float32).tiny)
    wide = wide[is_normal].reshape(-1, 32)
    half = jnp.asarray(wide, jnp.bfloat16)
    ids = np.arange(len(wide), dtype=np.int32)
    if shared:
        y = sampled_matmul(np.eye(32, dtype=np.float32), half, ids).T
    else:
        y = take_rows(half, ids)
    np.testing.assert_array_equal(y, wide)


def test_bf16_bag_and_rows_have_the_bits_of_f32(rng):
    _, table, weights, ids = make(rng, 9, 7, 65, 30, shared=False)
    half = jnp.asarray(table, jnp.bfloat16)
    wide, same = half.astype(jnp.float32), np.testing.assert_array_equal
    same(embedding_bag(half, ids, weights), embedding_bag(wide, ids, weights))
    same(take_rows(half, ids[0]), take_rows(wide, ids[0]))


@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
def test_bf16_is_read_where_it_lies(rng, shared):
    """Nothing of the size of the table is made."""
    x, w, v, ids = make(rng, 3, 4, 16, 5000, shared)
    half = jnp.asarray(w, jnp.bfloat16)
    for op, a in ((sampled_matmul, x), (gather_matmul, v)):
        memory = jax.jit(op).lower(a, half, ids).compile().memory_analysis()
        assert memory.temp_size_in_bytes < half.nbytes / 10


def check_magnitudes():
    """Rows of f32 of every size: the error is that of their own products."""
    rng = np.random.default_rng(1)
    x, w, v, ids = make(rng, 70, 90, 100, 120, shared=True)
    for a, least in ((x, -30), (w, 0), (v, -30)):
        a *= 2.0 ** rng.integers(least, 30, (len(a), 1))
    check_family(x, w, v, ids)
    check_bf16(x, w, v, ids)
    x[3], w[ids[2] % 120, 5], v[7, 1] = 2.0**-104, 2.0**90, -(2.0**70)
    check_family(x, w, v, ids)
    check_bf16(x, w, v, ids)


def test_rows_of_all_magnitudes():
    check_magnitudes()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 2.0**127])
def test_what_is_not_finite_stays_with_its_row(rng, bad):
    """The bits of all others are those without it."""
    x, w, _, _ = make(rng, 40, 1, 70, 50, shared=True)
    ids = np.arange(50, dtype=np.int32)
    want = np.array(sampled_matmul(x, w, ids))
    x[33, 60] = bad
    got = np.array(sampled_matmul(x, w, ids))
    np.testing.assert_array_equal(np.delete(got, 33, 0), np.delete(want, 33, 0))
    with np.errstate(all="ignore"):
        alone = x[33, 60] * w[:, 60]
    same = np.isnan(got[33]) if np.isnan(bad) else np.sign(got[33]) == np.sign(alone)
    assert same.all()


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 50, 7), (300, 70, 65)], ids=str)
def test_sums_over_examples_match_float64(rng, size):
    b, m, d = size
    v, x = normal(rng, 2, b, m), normal(rng, 2, b, d)
    (got,) = matmul.sum_examples_op(v, x)
    oracle = lambda v, x: np.einsum("gbm,gbd->gmd", v.astype(float), x)  # noqa: E731
    assert_product(got, oracle, (v, x), b)


def sorted_sets(rng, b, k, n):
    """Rising ids that repeat, padding at both ends; some sets lie at one end alone."""
    ids = make_ids(rng, n, (b, k))
    if b > 3:
        ids[1], ids[2], ids[3] = n, -1, rng.integers(0, max(n // 20, 1), k)
    return np.sort(ids, axis=1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("b", "k", "d", "n"),
    [(1, 9, 8, 5), (2, 1, 3, 1), (5, 40, 20, 9), (30, 600, 130, 9000), (7, 5, 300, 99)],
)
def test_sorted_sets_have_the_bits_of_one_set_alone(rng, b, k, d, n, dtype):
    """Sets that all rise are visited together, range by range of the table."""
    ids = sorted_sets(rng, b, k, n)
    x, w, v = (
        normal(rng, b, d),
        jnp.asarray(normal(rng, n, d), dtype),
        normal(rng, b, k),
    )
    y, z = sampled_matmul(x, w, ids), gather_matmul(v, w, ids)
    for i in range(b):
        one = slice(i, i + 1)
        np.testing.assert_array_equal(y[one], sampled_matmul(x[one], w, ids[one]))
        np.testing.assert_array_equal(z[one], gather_matmul(v[one], w, ids[one]))
    backwards = np.s_[:, ::-1]
    np.testing.assert_array_equal(
        y[backwards], sampled_matmul(x, w, ids[backwards].copy())
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_embedding_bag_matches_float64(rng, weighted):
    _, table, weights, ids = make(rng, 9, 7, 65, 30, shared=False)
    got = embedding_bag(table, ids, weights) if weighted else embedding_bag(table, ids)
    weights = weights if weighted else np.ones_like(weights)
    assert_product(got, gather_oracle, (weights, table, ids), 7)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_take_rows_copies_bits(rng, n):
    w, ids = normal(rng, n, 9), make_ids(rng, n, (33,))
    rows, _ = picked(w, ids[None], 1)
    np.testing.assert_array_equal(take_rows(w, ids), rows[0].astype(np.float32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
def test_family_matches_its_twin(rng, shared, dtype):
    x, w, v, ids = make(rng, 6, 11, 13, 17, shared)
    w = jnp.asarray(w, dtype)
    lift = (lambda a: a[None]) if shared else (lambda a: a[:, None])
    drop = (lambda a: a[0]) if shared else (lambda a: a[:, 0])
    wide = ids[None] if shared else ids
    pairs = [
        (
            sampled_matmul(x, w, ids),
            drop(reference.sampled_matmul(lift(x), w, wide)[0]),
        ),
        (gather_matmul(v, w, ids), drop(reference.gather_matmul(lift(v), w, wide)[0])),
        (
            scatter_outer(v, x, ids, num_rows=17),
            reference.scatter_outer(lift(v), lift(x), wide, 17)[0],
        ),
    ]
    for got, twin in pairs:
        assert got.dtype == twin.dtype
        np.testing.assert_allclose(got, twin, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
@pytest.mark.parametrize("padding", [9, 10, *OUT_OF_RANGE])
def test_padding_hides_nan(rng, padding, shared, dtype):
    """In v beside the padding, and in every row of w that is not named."""
    x, w, v, ids = make(rng, 5, 7, 20, 9, shared)
    ids = np.clip(ids, 0, 6)
    ids[..., 3], v[:, 3], w[7:] = padding, np.nan, np.nan
    w = jnp.asarray(w, dtype)
    np.testing.assert_array_equal(sampled_matmul(x, w, ids)[:, 3], 0)
    without = np.delete(v, 3, 1), np.delete(ids, 3, -1)
    same = np.testing.assert_array_equal
    same(gather_matmul(v, w, ids), gather_matmul(without[0], w, without[1]))
    same(
        scatter_outer(v, x, ids, num_rows=9),
        scatter_outer(without[0], x, without[1], num_rows=9),
    )


@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
def test_padding_hides_nan_in_x(rng, shared):
    x, w, v, _ = make(rng, 5, 7, 20, 9, shared)
    ids = np.full((7,) if shared else (5, 7), 9, np.int32)
    x[:] = v[:] = np.nan
    assert not np.any(sampled_matmul(x, w, ids))
    assert not np.any(gather_matmul(v, w, ids))
    assert not np.any(scatter_outer(v, x, ids, num_rows=9))


@pytest.mark.parametrize("shared", [False, True], ids=["per_example", "shared"])
def test_nan_reaches_only_what_it_touches(rng, shared):
    x, w, v, _ = make(rng, 4, 3, 8, 6, shared)
    ids = np.array([0, 2, 5], np.int32)
    ids = ids if shared else np.tile(ids, (4, 1))
    x[1], w[5] = np.nan, np.nan
    is_nan = np.isnan(sampled_matmul(x, w, ids))
    assert is_nan[1].all()
    assert is_nan[:, 2].all()
    assert is_nan.sum() == 6
    assert np.isnan(gather_matmul(v, w, ids)).all()
    touched = np.isnan(scatter_outer(v, x, ids, num_rows=6)).all(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(touched), [0, 2, 5])


@pytest.mark.parametrize("axes", [(0,), (1,)], ids=["axis0", "axis1"])
def test_gradients_hide_nan_of_padding(rng, axes):
    """d/dv is 0 at padding, and d/dw and d/dx do not see the NaN of v there."""
    _, w, v, ids = make(rng, 4, 5, 6, 8, shared=False)
    ids[:, 2], v[:, 2] = 8, np.nan
    ids = np.where((ids < 0) | (ids > 8), 8, ids)
    g = jax.grad(lambda *vw: gather_matmul(*vw, ids).sum(), axes)(v, w)[0]
    assert not np.isnan(g).any()


# ---- properties ---------------------------------------------------------------------

FLOATS = st.floats(-2, 2, width=32)
SIZE = st.sampled_from([1, 2, 5])  # few shapes: each is compiled once


@st.composite
def products(draw):
    """x, w, v and ids of small sizes, ids possibly out of range."""
    b, k, n, shared = draw(SIZE), draw(SIZE), draw(SIZE), draw(st.booleans())
    d = 3
    ids = draw(
        hnp.arrays(
            np.int32, (k,) if shared else (b, k), elements=st.integers(-2, n + 1)
        )
    )
    shapes = (b, d), (n, d), (b, k)
    x, w, v = (draw(hnp.arrays(np.float32, s, elements=FLOATS)) for s in shapes)
    return x, w, v, ids


@settings(deadline=None, max_examples=40)
@given(products())
def test_the_three_ops_are_transposes(xwvids):
    """<sampled(x, w), v> == <x, gather(v, w)> == <w, scatter(v, x)>."""
    x, w, v, ids = xwvids
    sampled = np.vdot(sampled_matmul(x, w, ids), v)
    gathered = np.vdot(x, gather_matmul(v, w, ids))
    scattered = np.vdot(w, scatter_outer(v, x, ids, num_rows=len(w)))
    terms = v.size * x.shape[1]  # each at most 8
    bound = (v.size + x.shape[1]) * np.finfo(np.float32).eps * 8 * terms
    np.testing.assert_allclose([gathered, scattered], sampled, rtol=0, atol=bound)


@settings(deadline=None, max_examples=25)
@given(products(), st.randoms(use_true_random=False))
def test_permuted_ids_permute_columns(xwvids, random):
    x, w, v, ids = xwvids
    order = list(range(ids.shape[-1]))
    random.shuffle(order)
    y = np.asarray(sampled_matmul(x, w, ids))
    np.testing.assert_array_equal(sampled_matmul(x, w, ids[..., order]), y[:, order])
    z = gather_matmul(v, w, ids)
    bound = 4 * np.finfo(np.float32).eps * 4 * v.shape[1] ** 2
    np.testing.assert_allclose(
        gather_matmul(v[:, order], w, ids[..., order]), z, rtol=0, atol=bound
    )
