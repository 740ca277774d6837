"""Exact search against a stable sort. Small whole numbers make scores exact and tie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import dense_top_k, reference, sampled_matmul

# b, n, k: around 4 examples, 32 scores, blocks of 256 rows and of 252 examples.
SIZES = [
    (0, 9, 3),
    (1, 0, 2),
    (1, 1, 1),
    (1, 257, 5),
    (3, 31, 33),
    (4, 32, 1),
    (5, 33, 7),
    (7, 255, 256),
    (9, 256, 4),
    (2, 513, 9),
    (260, 300, 3),
    (1, 5000, 40),
    (6, 2100, 3),
]


def whole_numbers(rng, *shape):
    return rng.integers(-2, 3, shape).astype(np.float32)


def oracle(scores, k):
    """The k best of each row, best first; equal scores rank by column."""
    b, n = scores.shape
    scores = np.where(np.isnan(scores), -np.inf, scores)
    padded = np.concatenate([scores, np.full((b, k), -np.inf)], axis=1)
    ids = np.argsort(-padded, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(padded, ids, axis=1)
    return best, np.where(np.isneginf(best), n, ids)


def assert_top_k(x, w, k):
    scores, ids = dense_top_k(x, w, k)
    with np.errstate(invalid="ignore"):
        want_scores, want_ids = oracle(x @ w.T, k)
    np.testing.assert_array_equal(ids, want_ids)
    np.testing.assert_array_equal(scores, want_scores)
    assert (scores.dtype, ids.dtype) == (jnp.float32, jnp.int32)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_a_stable_sort(rng, size):
    b, n, k = size
    assert_top_k(whole_numbers(rng, b, 5), whole_numbers(rng, n, 5), k)


def check_bf16(x, w, k):
    """A bf16 table gives the bits of the f32 table that it widens to."""
    half = jnp.asarray(w, jnp.bfloat16)
    scores, ids = dense_top_k(x, half, k)
    want_scores, want_ids = dense_top_k(x, half.astype(jnp.float32), k)
    assert scores.dtype == jnp.float32
    assert np.asarray(scores).tobytes() == np.asarray(want_scores).tobytes()
    np.testing.assert_array_equal(ids, want_ids)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bf16_has_the_bits_of_f32(rng, size):
    b, n, k = size
    x, w = rng.standard_normal((b, 37)), rng.standard_normal((n, 37))
    check_bf16(x.astype(np.float32), w, k)


@pytest.mark.parametrize("d", [0, 1, 64, 300])
@pytest.mark.parametrize("b", [1, 6])
def test_bf16_has_the_bits_of_f32_at_depths(rng, b, d):
    """Also beside rows that are not finite."""
    w = rng.standard_normal((300, d))
    w[[0, 7], :1], w[-1, :1] = np.nan, np.inf
    check_bf16(rng.standard_normal((b, d)).astype(np.float32), w, 40)


def test_bf16_is_read_where_it_lies(rng):
    """Nothing of the size of the table is made."""
    x, half = whole_numbers(rng, 3, 16), jnp.zeros((5000, 16), jnp.bfloat16)
    run = jax.jit(dense_top_k, static_argnums=2)
    memory = run.lower(x, half, 4).compile().memory_analysis()
    assert memory.temp_size_in_bytes < half.nbytes / 10


@pytest.mark.parametrize("b", [1, 9])
def test_equal_scores_rank_by_id_across_blocks(b):
    assert_top_k(np.ones((b, 3), np.float32), np.ones((700, 3), np.float32), 600)


@pytest.mark.parametrize("d", [0, 1, 64, 300])
def test_depths(rng, d):
    assert_top_k(whole_numbers(rng, 6, d), whole_numbers(rng, 300, d), 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("b", [1, 6])
def test_scores_that_are_not_finite(rng, bad, b):
    """A bad row of the table, and a bad example: NaN and -inf are never taken."""
    x, w = 1 + abs(whole_numbers(rng, b, 4)), whole_numbers(rng, 40, 4)
    w[[0, 7, 39], 1] = bad
    assert_top_k(x, w, 38)
    x[-1] = np.nan
    assert_top_k(x, w, 5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("size", [(5, 300, 7), (2, 40, 50)], ids=str)
def test_matches_its_twin(rng, size, dtype):
    b, n, k = size
    x, w = rng.standard_normal((b, 9)), rng.standard_normal((n, 9))
    x, w = x.astype(np.float32), jnp.asarray(w, dtype)
    scores, ids = dense_top_k(x, w, k)
    twin_scores, twin_ids = reference.dense_top_k(x, w, k)
    assert scores.dtype == twin_scores.dtype
    np.testing.assert_array_equal(ids, twin_ids)
    np.testing.assert_allclose(scores, twin_scores, rtol=1e-5, atol=1e-5)
    named = jnp.where(ids < n, sampled_matmul(x, w, ids), -jnp.inf)
    np.testing.assert_allclose(scores, named, rtol=1e-5, atol=1e-5)


def test_gradient_is_that_of_the_chosen_products(rng):
    """Also where there are fewer rows than k: the -inf have no gradient."""
    x, w, ct = (jnp.asarray(whole_numbers(rng, *s)) for s in [(4, 3), (6, 3), (4, 9)])
    _, ids = dense_top_k(x, w, 9)

    def chosen(x, w):
        return jnp.take_along_axis(x @ w.T, ids, axis=1)[:, :6]

    got = jax.vjp(lambda x, w: dense_top_k(x, w, 9)[0], x, w)[1](ct)
    want = jax.vjp(chosen, x, w)[1](ct[:, :6])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
