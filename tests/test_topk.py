"""Search among all rows and among given ones, against a stable sort.

Small whole numbers make scores exact, and tie.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import dense_top_k, reference, sampled_matmul, sampled_top_k

# b, n, k: around 4 and 16 examples, 32 scores, blocks of 256 rows and of 252 examples.
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
    (16, 300, 4),
    (17, 300, 4),
    (2, 9000, 300),
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


# ---- among given rows ---------------------------------------------------------------

# b, n, m, k: around blocks of 256 ids, and more ids than one thread's part.
AMONG = [
    (0, 9, 4, 3),
    (3, 9, 0, 2),
    (2, 0, 4, 2),
    (1, 1, 1, 1),
    (4, 9, 6, 9),  # k > m
    (3, 40, 255, 7),
    (5, 40, 256, 4),
    (1, 90, 257, 300),
    (1, 50, 3000, 20),
]
every_size_among = pytest.mark.parametrize("size", AMONG, ids=str)


def assert_best_among(x, w, ids, k):
    """Candidates in the order of ids; padding is no candidate."""
    scores, best = sampled_top_k(x, w, ids, k)
    n = len(w)
    is_row = (ids >= 0) & (ids < n)
    rows = np.append(np.asarray(w, np.float32), np.zeros((1, x.shape[1])), axis=0)
    with np.errstate(invalid="ignore"):
        products = np.einsum("bd,bmd->bm", x, rows[np.where(is_row, ids, n)])
    want, at = oracle(np.where(is_row, products, np.nan), k)
    padded = np.pad(ids, ((0, 0), (0, 1)), constant_values=n)
    np.testing.assert_array_equal(scores, want)
    np.testing.assert_array_equal(best, np.take_along_axis(padded, at, axis=1))
    assert (scores.dtype, best.dtype) == (jnp.float32, jnp.int32)


def ids_with_padding(rng, b, m, n):
    ids = rng.integers(-1, n + 2, (b, m)).astype(np.int32)
    ids[rng.random((b, m)) < 0.02] = rng.choice([-(2**31), 2**31 - 1])
    return ids


@every_size_among
def test_among_given_rows_matches_a_stable_sort(rng, size):
    b, n, m, k = size
    x, w = whole_numbers(rng, b, 5), whole_numbers(rng, n, 5)
    assert_best_among(x, w, ids_with_padding(rng, b, m, n), k)


@pytest.mark.parametrize("d", [0, 1, 64, 300])
def test_depths_among_given_rows(rng, d):
    x, w = whole_numbers(rng, 3, d), whole_numbers(rng, 60, d)
    assert_best_among(x, w, ids_with_padding(rng, 3, 40, 60), 4)


def test_equal_scores_rank_as_in_ids(rng):
    """Through all parts of a long list, which has all rows in another order."""
    ids = np.stack([rng.permutation(2000), np.arange(2000)[::-1]]).astype(np.int32)
    x, w = np.ones((2, 3), np.float32), np.ones((2000, 3), np.float32)
    np.testing.assert_array_equal(sampled_top_k(x, w, ids, 1500)[1], ids[:, :1500])


def test_all_rows_in_order_are_a_dense_search(rng):
    x, w = rng.standard_normal((3, 33)), rng.standard_normal((500, 33))
    x, w = x.astype(np.float32), w.astype(np.float32)
    every = np.broadcast_to(np.arange(500, dtype=np.int32), (3, 500))
    scores, ids = sampled_top_k(x, w, every, 9)
    want_scores, want_ids = dense_top_k(x, w, 9)
    np.testing.assert_array_equal(ids, want_ids)
    np.testing.assert_allclose(scores, want_scores, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_given_rows_that_are_not_finite(rng, bad):
    x, w = 1 + abs(whole_numbers(rng, 2, 4)), whole_numbers(rng, 40, 4)
    w[[0, 7, 39], 1] = bad
    ids = np.stack([rng.permutation(42), rng.permutation(42)]).astype(np.int32)
    assert_best_among(x, w, ids, 41)
    x[-1] = np.nan
    assert_best_among(x, w, ids, 5)


@every_size_among
def test_given_rows_of_bf16_have_the_bits_of_f32(rng, size):
    b, n, m, k = size
    x = rng.standard_normal((b, 37)).astype(np.float32)
    half = jnp.asarray(rng.standard_normal((n, 37)), jnp.bfloat16)
    ids = ids_with_padding(rng, b, m, n)
    scores, best = sampled_top_k(x, half, ids, k)
    want, want_best = sampled_top_k(x, half.astype(jnp.float32), ids, k)
    assert scores.dtype == jnp.float32
    assert np.asarray(scores).tobytes() == np.asarray(want).tobytes()
    np.testing.assert_array_equal(best, want_best)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_among_given_rows_matches_its_twin(rng, dtype):
    x, w = whole_numbers(rng, 5, 9), jnp.asarray(whole_numbers(rng, 30, 9), dtype)
    ids = ids_with_padding(rng, 5, 50, 30)
    got, want = (f(x, w, ids, 40) for f in (sampled_top_k, reference.sampled_top_k))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_given_rows_are_read_where_they_lie(rng):
    """Nothing of the size of the table, or of the rows that are named."""
    x, half = whole_numbers(rng, 3, 16), jnp.zeros((5000, 16), jnp.bfloat16)
    ids = jnp.zeros((3, 4000), jnp.int32)
    run = jax.jit(sampled_top_k, static_argnums=3)
    memory = run.lower(x, half, ids, 4).compile().memory_analysis()
    assert memory.temp_size_in_bytes < half.nbytes / 10


def test_gradient_is_that_of_the_best_given_rows(rng):
    """To both orders; padding and the -inf have none."""
    x, w, ct = (jnp.asarray(whole_numbers(rng, *s)) for s in [(4, 3), (6, 3), (4, 7)])
    ids = np.array([[5, 0, -1, 2], [1, 6, 9, 3], [4, 3, 2, 1], [-1, 6, 7, 9]], np.int32)
    _, best = sampled_top_k(x, w, ids, 7)
    is_row = jnp.where(best < 6, 1.0, 0.0)

    def chosen(x, w):
        products = jnp.take_along_axis(x @ w.T, jnp.minimum(best, 5), axis=1)
        return jnp.sum(jnp.sin(is_row * products) * ct)

    def ours(x, w):
        scores, _ = sampled_top_k(x, w, ids, 7)
        return jnp.sum(jnp.sin(jnp.where(best < 6, scores, 0)) * ct)

    def second(f):
        return jax.grad(lambda x, w: sum(jnp.sum(g**2) for g in first(f)(x, w)), (0, 1))

    def first(f):
        return jax.grad(f, (0, 1))

    for order in (first, second):
        for a, b in zip(order(ours)(x, w), order(chosen)(x, w), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
