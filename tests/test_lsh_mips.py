"""Rankings by inner product, kept by the preparation of rows and queries."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import Table, lsh


@pytest.fixture
def rows(rng):
    """Of a common direction and very different lengths."""
    lengths = rng.lognormal(size=(40, 1))
    return (lengths * rng.standard_normal((40, 6)) + 2).astype(np.float32)


def scaled(rows, center, augment):
    m = lsh.mips(rows, center=center, augment=augment)
    return np.asarray(lsh.mips_rows(m, rows), np.float64), m


@pytest.mark.parametrize("center", [True, False])
def test_rows_are_shifted_and_scaled_into_the_unit_ball(rows, center):
    u, m = scaled(rows, center, augment=False)
    middle = rows.mean(0) if center else np.zeros(6)
    radius = np.linalg.norm(rows - middle, axis=1).max()
    np.testing.assert_allclose(m.center, middle, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m.radius, radius, rtol=1e-5)
    np.testing.assert_allclose(u, (rows - middle) / radius, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(u, axis=1).max() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_the_ranking_of_inner_products_stays(rng, rows, center, augment):
    u, m = scaled(rows, center, augment)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    queries = np.asarray(lsh.mips_queries(m, x), np.float64)
    want = np.argsort(x.astype(np.float64) @ rows.T.astype(np.float64), axis=1)
    np.testing.assert_array_equal(np.argsort(queries @ u.T, axis=1), want)


@pytest.mark.parametrize("center", [True, False])
def test_augmented_angles_rank_as_inner_products(rng, rows, center):
    u, m = scaled(rows, center, augment=True)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, rtol=1e-6)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    queries = np.asarray(lsh.mips_queries(m, x), np.float64)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(u, axis=1)
    want = np.argsort(x.astype(np.float64) @ rows.T.astype(np.float64), axis=1)
    np.testing.assert_array_equal(np.argsort(queries @ u.T / lengths, axis=1), want)
    plain = rows.astype(np.float64)
    angles = x @ plain.T / np.linalg.norm(plain, axis=1)
    assert (np.argsort(angles, axis=1) != want).any()  # what augmenting is for


def test_a_bias_is_a_coordinate(rng, rows):
    bias = rng.standard_normal(40).astype(np.float32)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    u, m = scaled(np.concatenate([rows, bias[:, None]], 1), True, True)
    queries = lsh.mips_queries(m, np.concatenate([x, np.ones((5, 1), np.float32)], 1))
    want = np.argsort(x.astype(np.float64) @ rows.T.astype(np.float64) + bias, axis=1)
    np.testing.assert_array_equal(np.argsort(queries @ u.T, axis=1), want)


def test_longer_rows_are_cut_back(rows):
    """Rows that moved since: the same direction, at the radius."""
    m = lsh.mips(rows, augment=True)
    moved = 3 * (rows - m.center) + m.center
    u = np.asarray(lsh.mips_rows(m, moved))
    offset = rows - np.asarray(m.center)
    lengths = np.linalg.norm(offset, axis=1, keepdims=True)
    want = offset / np.maximum(float(m.radius) / 3, lengths)
    np.testing.assert_allclose(u[:, :6], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_left_out(rows, bad):
    m = lsh.mips(rows[1:])
    rows[0, 3] = bad
    with_bad = lsh.mips(rows)
    np.testing.assert_allclose(with_bad.center, m.center, rtol=1e-5)
    np.testing.assert_allclose(with_bad.radius, m.radius, rtol=1e-5)
    for augment in (True, False):
        u = lsh.mips_rows(lsh.mips(rows, augment=augment), rows)
        np.testing.assert_array_equal(
            np.isfinite(u).all(axis=1), np.isfinite(rows).all(axis=1)
        )


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.full((2, 3), 7)], ids=str)
def test_no_radius(rows):
    m = lsh.mips(rows.astype(np.float32), augment=True)
    assert float(m.radius) == 0
    u = lsh.mips_rows(m, rows.astype(np.float32))
    np.testing.assert_array_equal(u, np.tile([0, 0, 0, 1], (len(rows), 1)))


def test_bf16_tables_are_widened(rows):
    half = jnp.asarray(rows, jnp.bfloat16)
    wide, got = lsh.mips(half.astype(jnp.float32)), lsh.mips(Table(half))
    np.testing.assert_allclose(got.center, wide.center, rtol=1e-6)
    np.testing.assert_allclose(got.radius, wide.radius, rtol=1e-6)
    assert lsh.mips_rows(got, Table(half)).dtype == jnp.float32
    assert lsh.mips_queries(got, half).dtype == jnp.float32


def test_a_pytree_whose_augment_is_static(rows):
    m = jax.jit(partial(lsh.mips, augment=True))(rows)
    assert m.augment is True
    assert len(jax.tree.leaves(m)) == 2
    assert jax.jit(lsh.mips_rows)(m, rows).shape == (40, 7)
    mapped = jax.vmap(partial(lsh.mips, augment=True))(np.stack([rows, 2 * rows]))
    np.testing.assert_allclose(mapped.radius[1], 2 * m.radius, rtol=1e-6)


def test_memory_is_not_that_of_the_rows():
    rows = jax.ShapeDtypeStruct((670_091, 128), jnp.bfloat16)
    compiled = jax.jit(lsh.mips).lower(rows).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 20e6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: lsh.mips(np.ones(3, np.float32)),
            ValueError,
            "mips: rows must have 2 axes; got rows: f32[3].",
        ),
        (
            lambda m: lsh.mips(np.ones((2, 3), np.int32)),
            TypeError,
            "mips: rows must be float32 or bfloat16; got rows: i32[2,3].",
        ),
        (
            lambda m: lsh.mips_rows(m, np.ones((2, 3), np.float32)),
            ValueError,
            "mips_rows: rows.shape[1] must equal that of the rows which mips was made "
            "of; got rows: f32[2,3], center: f32[6].",
        ),
        (
            lambda m: lsh.mips_queries(m, np.ones((2, 3), np.float32)),
            ValueError,
            "mips_queries: x.shape[1] must equal that of the rows which mips was made",
        ),
        (
            lambda m: lsh.mips_rows(m.center, np.ones((2, 6), np.float32)),
            TypeError,
            "mips_rows: mips must be of type Mips; got",
        ),
        (
            lambda m: lsh.mips_queries(None, np.ones((2, 6), np.float32)),
            TypeError,
            "mips_queries: mips must be of type Mips; got NoneType",
        ),
    ],
)
def test_mistakes_are_named(rows, call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(lsh.mips(rows))
