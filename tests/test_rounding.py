"""Stochastic rounding of rows stored as bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_rows import BF16, F32, bits, rows_grad

from fsparse import _row_ops, reference, rows

GOLDEN = np.uint32(0x9E3779B9)


def mix(h):
    h = np.asarray(h, np.uint32)
    for shift, factor in [(16, 0x7FEB352D), (15, 0x846CA68B)]:
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return h ^ (h >> np.uint32(16))


def noise(seed, row, slot, d):
    """The 16 random bits of each element of a row, as the kernels define them."""
    key = mix(mix(seed[0] ^ np.uint32([row])) + seed[1] + np.uint32([slot]) * GOLDEN)
    size = -(-d // 16) * 16
    hashes = mix(key + np.arange(size, dtype=np.uint32) * GOLDEN)
    halves = np.stack([hashes & np.uint32(0xFFFF), hashes >> np.uint32(16)])
    by_block = halves.reshape(2, -1, 16).swapaxes(0, 1)
    return by_block.ravel()[:d]


def test_the_noise_is_the_documented_hash(rng):
    """All three slots: with decays of 0, the moments of Adam are g and g**2."""
    ids, d, seed = np.array([5, 2**20]), 70, np.array([7, 2**32 - 9], np.uint32)
    g, n = rng.standard_normal((2, d)).astype(np.float32), 2**20 + 1
    grad = rows_grad(ids, jnp.asarray(g), n)
    hyper = jnp.array([-1, 0, 0, 1, 1, 1, 0], F32)
    tables = [jnp.zeros((n, d), BF16)] * 3
    got = _row_ops.adam_rows(*jax.tree.leaves(grad), hyper, jnp.array(seed), *tables)
    for slot, exact in enumerate([g / (np.abs(g) + 1), g, g**2]):
        want = [
            (row.view(np.uint32) + noise(seed, r, slot, d)) >> 16
            for r, row in zip(ids, exact, strict=True)
        ]
        same = bits(got[slot][ids]) == np.array(want)
        assert same.all() if slot else same.mean() > 0.97  # a division differs a little


@pytest.mark.parametrize("way", ["kernel", "twin"])
def test_rounding_is_unbiased(way):
    """Of values a quarter of the way up, a quarter goes up: |z| < 5 in 40 samples."""
    n, d, up = 500, 200, 0.25
    x = jnp.full((n, d), 1 + up * 2**-7)
    every = jnp.arange(n, dtype=jnp.int32)
    for key in jax.random.split(jax.random.key(0), 40):
        seed = jax.random.bits(key, (2,), jnp.uint32)
        if way == "twin":
            rounded = reference.round_to_bf16(x, seed, every, 0)
        else:
            grad = rows_grad(every, x, n)
            rounded = rows.add_rows(jnp.zeros((n, d), BF16), grad, key=seed)
        went_up = np.asarray(rounded, float) > 1
        assert set(np.unique(np.asarray(rounded, float))) == {1, 1 + 2**-7}
        error = np.sqrt(up * (1 - up) / (n * d))
        assert abs(went_up.mean() - up) < 5 * error
        for axis in (0, 1):  # no row and no column is special, nor are neighbours alike
            of_each = went_up.mean(axis=axis)
            error = np.sqrt(up * (1 - up) / went_up.shape[axis])
            assert np.abs(of_each - up).max() < 5.5 * error
        both = went_up[:, 1:] & went_up[:, :-1]
        assert abs(both.mean() - up**2) < 5 * up / np.sqrt(both.size)


def test_small_updates_add_up():
    """A thousand steps of 1/64 of a bf16 step: rounding to nearest would lose all."""
    n, d, steps = 64, 64, 1000
    table, step = jnp.ones((n, d), BF16), 2.0**-13
    every = jnp.arange(n, dtype=jnp.int32)
    state, grad = rows.sgd_init(table), rows_grad(every, jnp.full((n, d), -1.0), n)
    update = jax.jit(lambda *a: rows.sgd_update(*a, grad, learning_rate=step))
    for _ in range(steps):
        table, state = update(table, state)
    moved = np.asarray(table, float) - 1
    # Each step moves an element by 2**-7 with probability 2**-6.
    error = 2**-7 * np.sqrt(steps * 2**-6 / (n * d))
    assert abs(moved.mean() - steps * step) < 5 * error


def test_updates_draw_new_bits(rng):
    table = jnp.asarray(rng.standard_normal((40, 50)), F32).astype(BF16)
    grad = rows_grad(np.arange(40), jnp.full((40, 50), 1e-3), 40)
    state = rows.sgd_init(table)
    first, state = rows.sgd_update(table, state, grad, learning_rate=1.0)
    second, _ = rows.sgd_update(table, state, grad, learning_rate=1.0)
    other = rows.sgd_init(table, seed=1)
    third, _ = rows.sgd_update(table, other, grad, learning_rate=1.0)
    for a, b in [(first, second), (first, third)]:
        assert 0.05 < (bits(a) != bits(b)).mean() < 0.95


def test_representable_values_stay():
    """Of both zeros, of infinities and of subnormals too."""
    every = jnp.arange(2**16, dtype=jnp.uint16).reshape(256, 256)
    values = jax.lax.bitcast_convert_type(every, BF16)
    x = values.astype(F32)
    got = reference.round_to_bf16(
        x, jnp.array([1, 2], jnp.uint32), jnp.arange(256, dtype=jnp.int32), 0
    )
    number = ~np.isnan(np.asarray(x))
    np.testing.assert_array_equal(bits(got)[number], bits(values)[number])
    assert np.isnan(np.asarray(got, float)[~number]).all()


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 3.4e38, 1e-45])
def test_values_at_the_ends(value):
    grad = rows_grad([0], jnp.full((1, 40), value, F32), 1)
    got = rows.add_rows(jnp.zeros((1, 40), BF16), grad, key=jax.random.key(0))
    got = np.asarray(got, float)
    if np.isfinite(value):  # a neighbour: infinity is one of the largest
        assert (np.abs(got - value) <= np.abs(value) * 2**-7).any() or value < 1
        assert (got >= 0).all()
    else:
        np.testing.assert_array_equal(got, np.full((1, 40), value))


def test_a_nan_stays_quiet_whatever_its_payload():
    payload = jnp.array([[0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF]], jnp.uint32)
    x = jax.lax.bitcast_convert_type(payload, F32)
    grad = rows_grad([0], x, 1)
    got = rows.add_rows(jnp.zeros((1, 4), BF16), grad, key=jax.random.key(0))
    assert np.isnan(np.asarray(got, float)).all()
    assert (bits(got) & 0x40).all()
