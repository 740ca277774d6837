"""Rows meet as often as their kernel says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from fsparse import lsh

D, KEYS, TABLES = 24, 1000, 3


def pairs_at(scales):
    """A row, and rows at several distances from it in all directions."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(D).astype(np.float32)
    steps = rng.standard_normal((len(scales), D)).astype(np.float32)
    return jnp.asarray(
        np.concatenate([x[None], x + np.asarray(scales)[:, None] * steps])
    )


DENSE = pairs_at([0.05, 0.3, 1.0, 4.0]).at[4].multiply(-1)
SETS = np.zeros((5, 400), np.float32)
for i, shift in enumerate([0, 5, 20, 60, 200]):
    SETS[i, shift : shift + 100] = 1 + i
CASES = {
    "simhash-1": (lsh.simhash, DENSE, {"num_bits": 1}),
    "simhash-4": (lsh.simhash, DENSE, {"num_bits": 4}),
    "l2-1": (lsh.l2, DENSE, {"num_hashes": 1, "width": 4.0, "num_bits": 10}),
    "l2-2-rehashed": (lsh.l2, DENSE, {"num_hashes": 2, "width": 9.0, "num_bits": 2}),
    "minhash-1": (lsh.minhash, SETS, {"num_hashes": 1, "num_bits": 10}),
    "minhash-2-rehashed": (lsh.minhash, SETS, {"num_hashes": 2, "num_bits": 3}),
}


def meetings(make, x, options):
    """How often row 0 meets each other one: of one table of each of many families.

    Tables of one family share their choices in minhash; those of many keys do not.
    """

    def one(key):
        family = make(key, x.shape[1], num_tables=TABLES, **options)
        codes = lsh.codes(family, x)
        return codes[1:, 0] == codes[0, 0]

    return np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(1), KEYS))).sum(
        0
    )


@pytest.mark.parametrize("name", CASES)
def test_rows_meet_as_often_as_their_kernel_says(name):
    """By chi-square over the pairs, at the level of 1e-3."""
    make, x, options = CASES[name]
    x = jnp.asarray(x)
    family = make(jax.random.key(0), x.shape[1], num_tables=TABLES, **options)
    p = np.asarray(lsh.collision_probability(family, x[:1], x[1:]), np.float64)[0]
    met = meetings(make, x, options)
    chi2 = np.sum((met - KEYS * p) ** 2 / (KEYS * p * (1 - p)))
    assert chi2 < scipy.stats.chi2.ppf(1 - 1e-3, len(p))
    assert p.min() < 0.5 < p.max()


def test_the_interval_formula_is_its_integral():
    """``int_0^w 2 phi(t / c) / c (1 - t / w) dt``, Datar et al., section 3.2."""
    family = lsh.l2(jax.random.key(0), 1, num_hashes=1, width=2.0, num_bits=15)
    distances = np.array([1e-4, 0.1, 1.0, 3.0, 50.0, 1e4])
    p_of = jax.jit(lambda c: lsh.collision_probability(family, 0 * c, c, rehash=False))
    for c in distances:
        p = float(p_of(jnp.full((1, 1), c, jnp.float32))[0, 0])
        density = lambda t, c=c: 2 * scipy.stats.norm.pdf(t, scale=c) * (1 - t / 2)  # noqa: E731
        want, _ = scipy.integrate.quad(density, 0, 2, points=[min(2, 5 * c)])
        assert p == pytest.approx(want, rel=2e-4, abs=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_equal_rows_always_meet(name):
    make, x, options = CASES[name]
    family = make(jax.random.key(0), x.shape[1], num_tables=1, **options)
    p = lsh.collision_probability(family, jnp.asarray(x), jnp.asarray(x))
    np.testing.assert_allclose(np.diag(p), 1, atol=2e-3)
    np.testing.assert_allclose(p, p.T, atol=1e-5)


def test_rows_of_zeros_and_of_nan():
    """Their codes are those of the row of zeros, whose bits are all 0."""
    x = jnp.stack([jnp.zeros(D), jnp.full(D, jnp.nan), DENSE[0]])
    simhash = lsh.simhash(jax.random.key(0), D, num_tables=1, num_bits=3)
    want = [[1, 1, 1 / 8], [1, 1, 1 / 8], [1 / 8, 1 / 8, 1]]
    got = lsh.collision_probability(simhash, x, x)
    np.testing.assert_allclose(got, want, atol=2e-3)
    minhash = lsh.minhash(jax.random.key(0), D, num_hashes=2, num_bits=5)
    floor = 1 / 32
    want = [[1, 1, floor], [1, 1, floor], [floor, floor, 1]]
    got = lsh.collision_probability(minhash, x, x)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_large_and_small_rows_have_angles():
    family = lsh.simhash(jax.random.key(0), 2, num_tables=1, num_bits=1)
    x = jnp.array([[1e30, 0.0]])
    y = jnp.array([[1e-30, 1e-30], [-8e37, 0.0], [0.0, 1e36]])
    got = lsh.collision_probability(family, x, y)
    np.testing.assert_allclose(got, [[0.75, 0, 0.5]], atol=1e-3)


def test_near_rows_far_from_the_origin():
    """Squares of rows cancel; those of centred ones less."""
    family = lsh.l2(jax.random.key(0), 3, num_hashes=1, width=1.0)
    x = jnp.array([[1000.0, 0, 0]])
    y = jnp.array([[1000.5, 0, 0], [1001.0, 0, 0]])
    near = lsh.collision_probability(family, x - 1000, y - 1000)
    got = lsh.collision_probability(family, x, y)
    np.testing.assert_allclose(got, near, atol=1e-4)


def test_sparse_rows_are_rows():
    family = lsh.minhash(jax.random.key(0), 6, num_tables=1, num_hashes=1, num_bits=15)
    ids = jnp.array([[0, 1, 2, -1], [1, 2, 3, 3]], jnp.int32)
    x = lsh.SparseRows(ids, jnp.array([[1.0, 1, 1, 9], [1, 1, 2, -2]]))
    got = lsh.collision_probability(family, x, x, rehash=False)
    np.testing.assert_allclose(got, [[1, 2 / 3], [2 / 3, 1]], rtol=1e-6)


def test_a_family_without_a_formula_is_named():
    family = lsh.dwta(jax.random.key(0), D, num_tables=2)
    with pytest.raises(ValueError, match=r"simhash, l2 or minhash.*; got Dwta\."):
        lsh.collision_probability(family, DENSE, DENSE)
    with pytest.raises(TypeError, match="family must be of type Family"):
        lsh.collision_probability(DENSE, DENSE, DENSE)


def test_no_gradients_and_no_rows():
    family = lsh.simhash(jax.random.key(0), D, num_bits=2)
    p = lambda x: lsh.collision_probability(family, x, DENSE).sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(p)(DENSE), 0)
    assert lsh.collision_probability(family, DENSE[:0], DENSE).shape == (0, 5)
    l2 = lsh.l2(jax.random.key(0), D)
    assert lsh.collision_probability(l2, DENSE, DENSE[:0]).shape == (5, 0)
    assert math.isfinite(float(p(DENSE)))


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_l2_of_huge_rows_is_finite(size):
    family = lsh.l2(jax.random.key(0), 1, num_tables=1)
    x = jnp.array([[size], [-size]], jnp.float32)
    got = lsh.collision_probability(family, x, x, rehash=False)
    np.testing.assert_allclose(got, np.eye(2), atol=1e-6)
