"""Rows of 8 bits: how they are rounded, and searches among them.

Sums of whole numbers in numpy are the oracle of scores, to the bit.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fsparse
from fsparse import Int8Rows, dense_top_k, quantize_rows, quantized, sampled_top_k

# b, n, d, k: around 16 examples, vectors of 8 to 64 integers, sums of 512 products.
SIZES = [
    (0, 9, 3, 2),
    (1, 0, 4, 2),
    (2, 5, 0, 3),
    (1, 1, 1, 1),
    (1, 300, 128, 5),
    (3, 257, 33, 7),
    (7, 40, 511, 50),
    (5, 90, 1100, 9),
    (20, 513, 512, 3),
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def rounded_by_numpy(w, most):
    """Halves to even, as documented."""
    largest = np.abs(w).max(axis=1, initial=0)
    inverse = np.float32(most) / np.where(largest > 0, largest, np.float32(1))
    scale = largest * np.float32(1 / most)
    return np.rint(w * inverse[:, None]).astype(np.int64), scale


def exact_scores(x, w):
    """Integers, then f32 products: by a chunk of 512, as documented in int8.h."""
    whole, of_x = rounded_by_numpy(x, 32767)
    values, scale = np.asarray(w.values, np.int64), np.asarray(w.scale)
    total = np.zeros((len(x), len(values)), np.float32)
    for c in range(0, x.shape[1], 512):
        total += (whole[:, c : c + 512] @ values[:, c : c + 512].T).astype(np.float32)
    return total * of_x[:, None] * scale


def best(scores, k, n):
    padded = np.pad(scores, ((0, 0), (0, k)), constant_values=-np.inf)
    ids = np.argsort(-padded, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(padded, ids, axis=1)
    return found, np.where(np.isneginf(found), n, ids)


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@every_size
def test_scores_are_exact_sums_of_integers(rng, size):
    b, n, d, k = size
    x, w = normal(rng, b, d), quantize_rows(normal(rng, n, d))
    assert_same(dense_top_k(x, w, k), best(exact_scores(x, w), k, n))


@every_size
def test_has_the_bits_of_its_twin(rng, size):
    b, n, d, k = size
    x, w = normal(rng, b, d), quantize_rows(normal(rng, n, d))
    ids = rng.integers(-1, n + 2, (b, 300)).astype(np.int32)
    arrays = w.values, w.scale
    assert_same(dense_top_k(x, w, k), quantized.top_k(x, *arrays, k))
    twin = quantized.sampled_top_k(x, *arrays, ids, k)
    assert_same(sampled_top_k(x, w, ids, k), twin)


def test_among_given_rows_as_among_all(rng):
    """A permutation of all rows, with padding."""
    x, w = normal(rng, 3, 40), quantize_rows(normal(rng, 500, 40))
    ids = np.stack([rng.permutation(502) for _ in range(3)]).astype(np.int32)
    assert_same(sampled_top_k(x, w, ids, 9), dense_top_k(x, w, 9))


@pytest.mark.parametrize("d", [1, 128, 600])
def test_the_largest_integers_do_not_overflow(d):
    x, w = np.full((1, d), -1, np.float32), np.ones((3, d), np.float32)
    scores, ids = dense_top_k(x, quantize_rows(w), 3)
    np.testing.assert_allclose(scores, np.full((1, 3), -d), rtol=1e-6)
    np.testing.assert_array_equal(ids, [[0, 1, 2]])


# ---- rounding -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rounds_to_nearest(rng, dtype):
    w = jnp.asarray(normal(rng, 50, 37) * 10.0 ** rng.integers(-9, 9, (50, 1)), dtype)
    rows = quantize_rows(w)
    wide = np.asarray(w, np.float32)
    values, scale = rounded_by_numpy(wide, 127)
    np.testing.assert_array_equal(rows.values, values)
    np.testing.assert_array_equal(rows.scale, scale)
    error = np.abs(np.asarray(rows.to_dense()) - wide)
    assert (error <= scale[:, None] * (0.5 + 1e-4)).all()
    assert (np.abs(values).max(axis=1) == 127).all()


def test_halves_round_to_even():
    rows = quantize_rows(jnp.array([[127, 0.5, 1.5, -0.5, -2.5]]))
    np.testing.assert_array_equal(rows.values, [[127, 0, 2, 0, -2]])


def test_rows_without_a_scale():
    """Zeros and tiny rows score 0; what is not finite is never found."""
    w = np.ones((5, 2), np.float32)
    w[0], w[1], w[2, 0], w[3, 1] = 0, 1e-37, np.nan, np.inf
    rows = quantize_rows(w)
    np.testing.assert_array_equal(rows.values, 127 * np.eye(5)[4][:, None].repeat(2, 1))
    np.testing.assert_array_equal(np.isnan(rows.scale), [0, 0, 1, 1, 0])
    scores, ids = dense_top_k(np.ones((1, 2), np.float32), rows, 4)
    np.testing.assert_array_equal(ids, [[4, 0, 1, 5]])
    np.testing.assert_allclose(scores, [[2, 0, 0, -np.inf]], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_example_that_is_not_finite_finds_nothing(rng, bad):
    x, w = normal(rng, 2, 40), quantize_rows(normal(rng, 9, 40))
    x[0, 3] = bad
    ids = np.tile(np.arange(9, dtype=np.int32), (2, 1))
    for scores, found in (dense_top_k(x, w, 3), sampled_top_k(x, w, ids, 3)):
        np.testing.assert_array_equal(found[0], [9, 9, 9])
        np.testing.assert_array_equal(scores[0], np.full(3, -np.inf))
        assert (np.asarray(found[1]) < 9).all()


# ---- what is lost -------------------------------------------------------------------


def trained_like(rng, n, d):
    """Rows of clusters, of lengths that differ, as those of trained tables do."""
    centres = normal(rng, 50, d)[rng.integers(0, 50, n)]
    return (centres + normal(rng, n, d)) * rng.lognormal(0, 0.5, (n, 1)).astype("f")


def test_scores_are_off_by_no_more_than_documented(rng):
    x, w = trained_like(rng, 30, 64), trained_like(rng, 2000, 64)
    rows = quantize_rows(w)
    scores, ids = map(np.asarray, dense_top_k(x, rows, 100))
    exact = np.einsum("bd,bkd->bk", x.astype(np.float64), w.astype(np.float64)[ids])
    of_rows = np.abs(x).sum(1)[:, None] * np.asarray(rows.scale)[ids]
    of_x = np.abs(w).sum(1)[ids] * np.abs(x).max(1)[:, None] / 32767
    assert (np.abs(scores - exact) <= (of_rows + of_x) / 2 * (1 + 1e-4)).all()
    assert np.abs(scores - exact).max() > 0


def test_candidates_scored_again_hold_the_best(rng):
    """What the docstring of dense_top_k advises."""
    w = trained_like(rng, 5000, 64)
    x = w[rng.integers(0, 5000, 400)] + normal(rng, 400, 64)
    _, ids = dense_top_k(x, quantize_rows(w), 5 + 16)
    again = sampled_top_k(x, w, ids, 5)
    exact = dense_top_k(x, w, 5)
    assert np.mean(np.asarray(again[1]) == exact[1]) >= 0.995
    np.testing.assert_allclose(again[0], exact[0], rtol=1e-4)


# ---- transforms ---------------------------------------------------------------------


def test_gradients_are_those_of_the_rounded_rows(rng):
    """To both orders, in the examples and the scales."""
    x, w = jnp.asarray(normal(rng, 3, 6)), quantize_rows(normal(rng, 8, 6))
    _, ids = dense_top_k(x, w, 4)
    among = jnp.broadcast_to(jnp.arange(8, dtype=jnp.int32), (3, 8))

    def ours(search, x, scale):
        return jnp.sum(jnp.sin(search(x, Int8Rows(w.values, scale))[0]))

    def chosen(x, scale):
        rows = Int8Rows(w.values, scale).to_dense()[ids]
        return jnp.sum(jnp.sin(jnp.einsum("bd,bkd->bk", x, rows)))

    for search in (
        lambda x, w: dense_top_k(x, w, 4),
        lambda x, w: sampled_top_k(x, w, among, 4),
    ):
        got = jax.grad(partial(ours, search), (0, 1))(x, w.scale)
        want = jax.grad(chosen, (0, 1))(x, w.scale)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    twice = jax.hessian(lambda x: ours(lambda x, w: dense_top_k(x, w, 4), x, w.scale))
    want = jax.hessian(lambda x: chosen(x, w.scale))(x)
    np.testing.assert_allclose(twice(x), want, rtol=1e-2, atol=1e-2)


def test_a_table_of_each_mapped_example(rng):
    w = quantize_rows(normal(rng, 12, 5))
    tables = jax.tree.map(lambda a: a.reshape(3, 4, *a.shape[1:]), w)
    x, ids = normal(rng, 3, 2, 5), rng.integers(-1, 6, (3, 2, 7)).astype(np.int32)
    mapped = jax.vmap(lambda x, w: dense_top_k(x, w, 3))(x, tables)
    some = jax.vmap(lambda x, w, ids: sampled_top_k(x, w, ids, 9))(x, tables, ids)
    for i in range(3):
        one = jax.tree.map(lambda a: a[i], tables)  # noqa: B023
        assert_same([y[i] for y in mapped], dense_top_k(x[i], one, 3))
        assert_same([y[i] for y in some], sampled_top_k(x[i], one, ids[i], 9))


def test_rows_are_read_where_they_lie(rng):
    """Nothing of the size of the table is made."""
    w = Int8Rows(jnp.zeros((5000, 16), jnp.int8), jnp.ones(5000))
    run = jax.jit(dense_top_k, static_argnums=2)
    memory = run.lower(normal(rng, 3, 16), w, 4).compile().memory_analysis()
    assert memory.temp_size_in_bytes < w.values.nbytes / 10


def test_rounding_makes_no_wide_table():
    w = jax.ShapeDtypeStruct((5000, 16), jnp.float32)
    memory = jax.jit(quantize_rows).lower(w).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 5000 * 16 + 8 * 5000


def test_a_marked_table_is_a_constant_when_rounded(rng):
    """Under value_and_grad, which refuses other reads of it."""
    w, x = jnp.asarray(normal(rng, 6, 4)), jnp.asarray(normal(rng, 2, 4))

    def loss(table):
        _, ids = dense_top_k(x, quantize_rows(table), 3)
        return jnp.sum(fsparse.sampled_matmul(x, table, ids))

    _, grad = fsparse.value_and_grad(loss)(fsparse.Table(w))
    _, ids = dense_top_k(x, quantize_rows(w), 3)
    want = jnp.zeros_like(w).at[ids.ravel()].add(jnp.repeat(x, 3, axis=0))
    np.testing.assert_allclose(grad.to_dense(), want, rtol=1e-5)


# ---- mistakes -----------------------------------------------------------------------

X, VALUES, SCALE = jnp.ones((3, 4)), jnp.ones((5, 4), jnp.int8), jnp.ones(5)
MISTAKES = [
    (VALUES.astype(jnp.int32), SCALE, TypeError, "w.values must be int8; got w.values"),
    (VALUES, SCALE.astype(jnp.bfloat16), TypeError, "w.scale must be float32; got"),
    (VALUES, SCALE[:4], ValueError, "w.scale must have one number for each row"),
    (VALUES, SCALE[None], ValueError, "w.scale must have one number for each row"),
    (VALUES[0], SCALE, ValueError, "w.values must have 2 axes"),
    (VALUES[:, :3], SCALE, ValueError, r"w.shape\[1\] must equal x.shape\[1\]"),
    (object(), SCALE, TypeError, "w.values must be an array"),
]


@pytest.mark.parametrize(("values", "scale", "error", "message"), MISTAKES)
def test_mistakes(values, scale, error, message):
    w, ids = Int8Rows(values, scale), jnp.zeros((3, 2), jnp.int32)
    with pytest.raises(error, match=f"^dense_top_k: {message}"):
        dense_top_k(X, w, 2)
    with pytest.raises(error, match=f"^sampled_top_k: {message}"):
        sampled_top_k(X, w, ids, 2)
