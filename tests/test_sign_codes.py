"""The op of SimHash against float64, and against its twin, to the bit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import lsh
from fsparse.lsh import _sign_codes
from fsparse.lsh._probing import flip_sets
from fsparse.lsh._simhash import SimHash

EPS = 2.0**-24
# Rows, coordinates, tables, bits, probes: few rows and many; blocks of whole tiles and
# others; a depth beyond one block's; tables that one block of columns does not hold.
SIZES = [
    (1, 1, 1, 1, 1),
    (3, 9, 5, 3, 8),
    (4, 33, 7, 5, 2),
    (5, 8, 3, 15, 40),
    (65, 300, 40, 7, 1),
    (300, 64, 64, 10, 1),
    (17, 64, 64, 10, 10),
    (20, 128, 32, 8, 3),
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


def make(rng, size, dtype=jnp.float32):
    b, d, tables, bits, _ = size
    directions = jnp.asarray(rng.standard_normal((d, tables * bits)), dtype)
    x = rng.standard_normal((b, d)).astype(np.float32)
    return SimHash(d, tables, bits, directions), x


def margins_and_errors(family, x):
    """In float64, and a bound of what sums of float32 may be off."""
    x = np.asarray(x, np.float64)
    w = np.asarray(family.directions, np.float64)
    shape = len(x), family.num_tables, family.num_bits
    error = (family.dim + 1) * EPS * (np.abs(x) @ np.abs(w))
    return (x @ w).reshape(shape), error.reshape(shape)


def digits(codes, num_bits):
    return (np.asarray(codes)[..., None] >> np.arange(num_bits)) & 1


def check_codes(family, x):
    margins, error = margins_and_errors(family, x)
    bits = digits(lsh.codes(family, x), family.num_bits)
    np.testing.assert_array_equal(bits[margins > error], 1)
    np.testing.assert_array_equal(bits[margins < -error], 0)


def check_probes(family, x, num_probes):
    """Distinct, from the code on, each as cheap as the one that ranks there."""
    margins, error = margins_and_errors(family, x)
    k = family.num_bits
    got = np.asarray(lsh.probes(family, x, num_probes))
    np.testing.assert_array_equal(got[..., 0], lsh.codes(family, x))
    assert (np.diff(np.sort(got), axis=-1) > 0).all()
    costs = np.abs(margins) @ digits(np.arange(2**k), k).T
    flips = got ^ got[..., :1]
    mine, best = np.take_along_axis(costs, flips, -1), np.sort(costs)[..., :num_probes]
    slack = 2 * error.sum(-1, keepdims=True) + 2 * k * EPS * best
    assert (np.abs(mine - best) <= slack).all()


@every_size
@every_dtype
def test_matches_float64(rng, size, dtype):
    family, x = make(rng, size, dtype)
    check_codes(family, x)
    check_probes(family, x, size[-1])


def operands(family, x, num_probes, ids=None):
    flips = jnp.asarray(flip_sets(family.num_bits, num_probes))
    if ids is None:
        x, ids = x[None], jnp.arange(family.dim, dtype=jnp.int32)[None]
    return jnp.asarray(x), family.directions, jnp.asarray(ids), flips


def both(args, num_bits, num_probes):
    """The handler and the twin."""
    params = {"num_bits": num_bits, "num_probes": num_probes}
    return [
        jax.jit(partial(fn, **params))(*args)[0]
        for fn in (_sign_codes._op, _sign_codes._twin)
    ]


def whole(rng, *shape):
    """Small whole numbers: sums are exact, and many are 0, or alike."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@every_size
@every_dtype
def test_matches_its_twin_to_the_bit(rng, size, dtype):
    """Where sums are exact; equal margins and equal costs have the same order."""
    b, d, tables, bits, num_probes = size
    directions = jnp.asarray(whole(rng, d, tables * bits), dtype)
    family = SimHash(d, tables, bits, directions)
    got, want = both(operands(family, whole(rng, b, d), num_probes), bits, num_probes)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("b", [1, 2, 6])
@pytest.mark.parametrize("num_probes", [1, 6])
def test_rows_of_their_own_match_the_twin(rng, b, num_probes):
    """``g`` sets of ids, for ``b`` rows each; padding hides what is not finite."""
    family = SimHash(9, 4, 3, jnp.asarray(whole(rng, 9, 12)))
    ids = rng.integers(-2, 12, (5, 7)).astype(np.int32)
    v = whole(rng, 5, b, 7)
    v[:, 0] = np.where((ids < 0) | (ids >= 9), np.nan, v[:, 0])
    v[1, -1, 3], ids[1, 3] = np.inf, 4
    got, want = both(operands(family, v, num_probes, ids), 3, num_probes)
    np.testing.assert_array_equal(got, want)
    if num_probes == 1:
        assert (np.asarray(got)[1, -1] == 0).all()
        assert (np.asarray(got)[0] != 0).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("b", [2, 9])
def test_rows_that_are_not_finite_are_zeros(rng, bad, b):
    family, x = make(rng, (b, 21, 6, 4, 1))
    x[1, -1] = bad
    zeroed = x.copy()
    zeroed[1] = 0
    for fn in (lsh.codes, partial(lsh.probes, num_probes=16)):
        np.testing.assert_array_equal(fn(family, x), fn(family, zeroed))
    assert (np.asarray(lsh.codes(family, x))[1] == 0).all()


@pytest.mark.parametrize("b", [1, 9])
def test_projections_that_overflow_match_the_twin(b):
    """To both infinities, and to NaN where they meet."""
    x = np.full((b, 2), 3e38, np.float32)
    w = jnp.array([[2, 2, -2, 1e-38, 1e-39], [2, -2, -2, 0, 1e-39]], jnp.float32)
    family = SimHash(2, 1, 5, jnp.tile(w, (1, 3)).reshape(2, 15)[:, :5])
    got, want = both(operands(family, x, 32), 5, 32)
    np.testing.assert_array_equal(got, want)


def cancelling(rng, b, d, columns):
    """Rows whose every projection is 0 but for the rounding of its sum."""
    w = rng.standard_normal((d, columns)).astype(np.float32)
    w[-1] = -w[:-1].sum(0)
    scale = rng.uniform(1, 2, (b, 1)).astype(np.float32)
    return np.broadcast_to(scale, (b, d)).copy(), w


@pytest.mark.parametrize("d", [3, 64, 700])
@every_dtype
def test_a_row_has_the_same_codes_alone_and_in_any_batch(rng, d, dtype):
    """Signs of rounding errors: one other bit in a sum would show."""
    x, w = cancelling(rng, 70, d, 40 * 7)
    family = SimHash(d, 40, 7, jnp.asarray(w, dtype))
    want = np.asarray(lsh.codes(family, x))
    if dtype == jnp.float32:
        assert 0.1 < digits(want, 7).mean() < 0.9
    for part in (1, 2, 5):
        got = [lsh.codes(family, x[i : i + part]) for i in range(0, 70, part)]
        np.testing.assert_array_equal(np.concatenate(got), want)
    ids = np.broadcast_to(np.arange(d, dtype=np.int32), x.shape)
    np.testing.assert_array_equal(lsh.codes(family, lsh.SparseRows(ids, x)), want)


@pytest.mark.parametrize("num_probes", [1, 5])
def test_vmap_over_rows_and_families(rng, num_probes):
    x = rng.standard_normal((3, 6, 8)).astype(np.float32)
    w = jnp.asarray(rng.standard_normal((3, 8, 12)), jnp.float32)
    ask = lambda w, x: lsh.probes(SimHash(8, 4, 3, w), x, num_probes)  # noqa: E731
    each = [ask(*args) for args in zip(w, x, strict=True)]
    np.testing.assert_array_equal(jax.vmap(ask)(w, x), np.stack(each))
    shared = np.stack([ask(w[0], rows) for rows in x])
    np.testing.assert_array_equal(jax.vmap(ask, (None, 0))(w[0], x), shared)
    others = np.stack([ask(directions, x[0]) for directions in w])
    np.testing.assert_array_equal(jax.vmap(ask, (0, None))(w, x[0]), others)


def test_no_array_of_all_projections():
    """4,096 rows of 640 projections: 10 MB, of which nothing is left."""
    family = jax.eval_shape(lambda: lsh.simhash(jax.random.key(0), 128))
    rows = jax.ShapeDtypeStruct((4096, 128), jnp.float32)
    compiled = jax.jit(lsh.codes).lower(family, rows).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**16


@pytest.mark.parametrize(
    ("tables", "flips", "num_probes", "message"),
    [
        (1, (2, 3), 1, r"w.shape\[1\] / probes.shape\[2\] must be 15 or less; got 32"),
        (8, (2, 5), 1, r"flips.shape\[1\] must be 4 or less; got 5"),
        (8, (2, 4), 3, r"probes.shape\[3\] must be 2 or less; got 3"),
    ],
)
def test_the_handler_refuses_what_it_cannot_hash(tables, flips, num_probes, message):
    args = (
        jnp.ones((1, 4, 6), jnp.float32),
        jnp.ones((6, 32), jnp.float32),
        jnp.zeros((1, 6), jnp.int32),
        jnp.zeros(flips, bool),
    )
    out = jax.ShapeDtypeStruct((1, 4, tables, num_probes), jnp.int32)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.ffi.ffi_call("fsparse_sign_codes", out)(*args))
