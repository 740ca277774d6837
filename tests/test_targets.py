"""Norms of gradients, against automatic differentiation of the losses in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fsparse
from fsparse import adaptive

B, C, L = 6, 5, 3
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, C)).astype(np.float32) * 4
LABELS = np.array([0, 4, 2, 1, -1, C], np.int32)  # the last two are none
TARGETS = np.array([[0, 1, 2], [4, C, -1], [2, 2, 3], [C, C, C], [1, 3, C], [0, C, C]])
ACTIVE = np.array([True, True, True, True, False])
SHOWN = {"rtol": 1e-5, "atol": 1e-7}


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_softmax_gradient_norm():
    got = adaptive.softmax_gradient_norm(jnp.asarray(LOGITS), LABELS)
    onehot = LABELS[:, None] == np.arange(C)
    want = np.linalg.norm(softmax(LOGITS.astype(float)) - onehot, axis=1)
    np.testing.assert_allclose(got, np.where(onehot.any(1), want, 0), **SHOWN)


@pytest.mark.parametrize(
    "is_active", [ACTIVE, RNG.random((B, C)) < 2, np.ones(C, bool)]
)
def test_norms_of_active_sets_are_those_of_the_loss(is_active):
    """With labels that are active, as the loss wants them."""
    targets = np.where(is_active.all() | (TARGETS != 4), TARGETS, C).astype(np.int32)
    args = jnp.asarray(targets), jnp.asarray(is_active)
    total = lambda z: jnp.sum(fsparse.sampled_softmax_loss(z, *args))  # noqa: E731
    gradient = jax.grad(total)(jnp.asarray(LOGITS))
    got = adaptive.sampled_softmax_gradient_norm(jnp.asarray(LOGITS), *args)
    np.testing.assert_allclose(got, np.linalg.norm(gradient, axis=1), **SHOWN)
    assert got[3] == 0


def test_without_an_active_column_there_is_no_gradient():
    targets, none = jnp.array([[0], [1]]), jnp.zeros((2, 2), bool).at[1].set(True)
    got = adaptive.sampled_softmax_gradient_norm(jnp.zeros((2, 2)), targets, none)
    np.testing.assert_allclose(got, [0, math.sqrt(0.5)], rtol=1e-6)


def test_extreme_logits_and_nan():
    z = jnp.array([[1e30, 0.0], [-1e30, 0.0], [jnp.nan, 0.0], [0.0, -jnp.inf]])
    got = adaptive.softmax_gradient_norm(z, jnp.zeros(4, jnp.int32))
    np.testing.assert_allclose(got[:2], [0, np.sqrt(2)], rtol=1e-6)
    assert np.isnan(got[2])
    assert got[3] == 0


def test_binary_gradient_norm_keeps_its_precision():
    z = np.array([0, 1, -3, 20, -20, 80, -80, 200, -200], np.float32)
    exact = 1 / (1 + np.exp(-z.astype(float)))
    rest = 1 / (1 + np.exp(z.astype(float)))
    norm = adaptive.binary_gradient_norm
    np.testing.assert_allclose(norm(z, jnp.zeros(9)), exact, rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(norm(z, jnp.ones(9)), rest, rtol=1e-5, atol=1e-37)
    soft = norm(z, jnp.full(9, 0.3))
    np.testing.assert_allclose(soft, np.abs(exact - 0.3), rtol=1e-5)
    assert np.isnan(norm(jnp.array([jnp.nan]), jnp.ones(1)))


def test_excess_loss():
    loss, rest = jnp.array([2.0, 1.0, jnp.nan, 1.0]), jnp.array([0.5, 3.0, 0, jnp.nan])
    got = adaptive.excess_loss(loss, rest)
    np.testing.assert_array_equal(got, [1.5, 0, np.nan, np.nan])


CALLS = {
    "softmax": lambda z: adaptive.softmax_gradient_norm(z, LABELS),
    "sampled": lambda z: adaptive.sampled_softmax_gradient_norm(
        z, jnp.asarray(TARGETS, jnp.int32), jnp.asarray(ACTIVE)
    ),
    "binary": lambda z: adaptive.binary_gradient_norm(z[:, 0], jnp.ones_like(z[:, 0])),
    "excess": lambda z: adaptive.excess_loss(z[:, 0], jnp.ones_like(z[:, 0])),
}


@pytest.mark.parametrize("name", CALLS)
def test_transformations(name):
    """No gradients, not even at a norm of 0; types stay; a loop is a vmap."""
    call, z = CALLS[name], jnp.asarray(LOGITS)
    assert not jax.grad(lambda z: jnp.sum(call(z)))(z.at[0, 0].set(100.0)).any()
    got = jax.jit(jax.vmap(call))(jnp.stack([z, 2 * z]))
    np.testing.assert_allclose(got[1], call(2 * z), **SHOWN)
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        wide = jax.jit(call)(jnp.asarray(LOGITS))
    assert wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, call(z), **SHOWN)


Z, IDS = jnp.asarray(LOGITS), jnp.asarray(LABELS)
MISTAKES = [
    (
        lambda: adaptive.softmax_gradient_norm(Z, IDS[1:]),
        ValueError,
        "labels must have one for each row of logits",
    ),
    (lambda: adaptive.softmax_gradient_norm(Z, Z[:, 0]), TypeError, "must be int32"),
    (lambda: adaptive.softmax_gradient_norm(Z[0], IDS), ValueError, "2 axes"),
    (lambda: adaptive.binary_gradient_norm(Z[0], IDS), TypeError, "must be float32"),
    (lambda: adaptive.excess_loss(Z[0], Z[:, 0]), ValueError, "one shape"),
    (
        lambda: adaptive.sampled_softmax_gradient_norm(Z, IDS[:, None], Z[0]),
        TypeError,
        "is_active must be bool",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
