"""Both gradients of shared logits, by one visit: oracles in float64, bits, values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_matmul import assert_product, gather_oracle, make

import fsparse
from fsparse import Table, reference
from fsparse._shared_grads import grads_op

# b, m, d, n: edges of a panel of 32; past 128 ids, 640 of a slice, 256 examples, and
# past 256 columns, where two products do it.
SIZES = [
    (2, 1, 1, 1),
    (3, 33, 31, 9),
    (33, 32, 33, 40),
    (40, 700, 64, 90),
    (300, 129, 256, 50),
    (5, 70, 257, 30),
]


def rows_oracle(v, x, w, ids):
    is_row = (ids >= 0) & (ids < len(w))
    return np.where(is_row[:, None], v.astype(float).T @ x, 0)


def grads(v, x, w, ids):
    z, rows = grads_op(v[None], x[None], jnp.asarray(w), ids[None])
    return z[0], rows[0]


def check(v, x, w, ids):
    z, rows = grads(v, x, w, ids)
    assert_product(z, gather_oracle, (v, w, ids), len(ids))
    assert_product(rows, rows_oracle, (v, x, w, ids), len(v))


@pytest.mark.parametrize("size", [*SIZES, (3, 0, 5, 4), (0, 3, 5, 4), (3, 4, 5, 0)])
def test_matches_float64(rng, size):
    x, w, v, ids = make(rng, *size, shared=True)
    check(v, x, w, ids)


@pytest.mark.parametrize("size", SIZES)
def test_bf16_has_the_bits_of_f32(rng, size):
    x, w, v, ids = make(rng, *size, shared=True)
    half = jnp.asarray(w, jnp.bfloat16)
    got, want = grads(v, x, half, ids), grads(v, x, half.astype(jnp.float32), ids)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_of_all_magnitudes(rng):
    """Also those of which the tile unit cannot take parts."""
    x, w, v, ids = make(rng, 70, 150, 100, 120, shared=True)
    for a, least in ((x, 0), (w, 0), (v, -30)):
        a *= 2.0 ** rng.integers(least, 30, (len(a), 1))
    check(v, x, w, ids)
    x[3, 2], w[ids[2] % 120, 5], v[7, 1], v[8, 140] = 2.0**90, 2.0**80, 2.0**70, 2e-32
    check(v, x, w, ids)


@pytest.mark.parametrize("bad", [np.inf, np.nan, 2.0**127])
def test_what_is_not_finite_stays_with_its_example_and_id(rng, bad):
    """The bits of all others are those without it."""
    x, w, v, _ = make(rng, 40, 300, 70, 300, shared=True)
    ids = np.arange(300, dtype=np.int32)
    want = grads(v, x, w, ids)
    v[33, 260] = bad
    for got, old, own in zip(grads(v, x, w, ids), want, (33, 260), strict=True):
        same = np.delete(got, own, 0), np.delete(old, own, 0)
        np.testing.assert_array_equal(*same)
        assert (np.asarray(got[own]) != old[own]).all()


def test_padding_hides_nan(rng):
    x, w, v, ids = make(rng, 9, 40, 20, 15, shared=True)
    padding = (ids < 0) | (ids >= 15)
    want = grads(v, x, w, ids)
    v[:, padding] = np.nan
    got = grads(v, x, w, ids)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.any(got[1][padding])


def test_matches_its_twin(rng):
    x, w, v, ids = make(rng, 6, 11, 13, 17, shared=True)
    z, rows = grads(v, x, w, ids)
    (twin,) = reference.gather_matmul(v[None], w, ids[None])
    np.testing.assert_allclose(z, twin[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rows, rows_oracle(v, x, w, ids), rtol=1e-5, atol=1e-5)


def calls(fun, *args):
    """How often each op of fsparse is called."""
    text = str(jax.make_jaxpr(fun)(*args))
    names = ("sampled_grads", "gather_matmul", "sum_examples")
    return [text.count(f"fsparse_{name}") for name in names]


def loss(x, table, ids):
    return jnp.sum(jnp.sin(fsparse.sampled_matmul(x, table, ids)))


def test_value_and_grad_visits_the_cotangent_once(rng):
    x, w, _, ids = make(rng, 5, 8, 6, 9, shared=True)
    both = fsparse.grad(loss, argnums=(0, 1))
    of_rows = fsparse.grad(loss, argnums=1)
    assert calls(both, x, Table(jnp.asarray(w)), ids) == [1, 0, 0]
    assert calls(of_rows, x, Table(jnp.asarray(w)), ids) == [0, 0, 1]
