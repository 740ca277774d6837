"""SimHash by fast rotations against float64, and against its twin, to the bit."""

from functools import partial

import jax
import jax.numpy as jnp
import lsh_oracles as oracles
import numpy as np
import pytest
from test_sign_codes import digits

from fsparse import lsh
from fsparse.lsh import _hadamard_codes
from fsparse.lsh._probing import candidates

EPS = 2.0**-24
# Rows, coordinates, tables, bits, probes: less than a vector, one, and several; one
# pass and more; a part of the outputs, all of them, and many rotations.
SIZES = [
    (1, 1, 1, 1, 1),
    (3, 2, 5, 3, 8),
    (5, 6, 1, 5, 7),
    (4, 16, 3, 5, 2),
    (7, 21, 2, 3, 1),
    (3, 60, 13, 5, 1),
    (65, 128, 3, 15, 40),
    (33, 250, 64, 10, 1),
    (200, 938, 32, 8, 3),
    (3, 1025, 300, 10, 1),
]
MANY_PASSES = (2, 5000, 10, 7, 1)
every_size = pytest.mark.parametrize("size", SIZES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])


def make(rng, size, dtype=jnp.float32):
    b, d, tables, bits, _ = size
    sizes = {"num_tables": tables, "num_bits": bits}
    family = lsh.simhash(jax.random.key(d), d, kind="hadamard", **sizes)
    return family, jnp.asarray(rng.standard_normal((b, d)), dtype)


def both(family, x, num_probes):
    """The handler and the twin; of groups if there are any."""
    signs, flips = family.signs, jnp.asarray(candidates(family.num_bits, num_probes))
    args = (x, signs, flips) if x.ndim == 3 else (x[None], signs[None], flips)
    params = {"num_tables": family.num_tables, "num_probes": num_probes}
    return [
        jax.jit(partial(fn, **params))(*args)[0]
        for fn in (_hadamard_codes._op, _hadamard_codes._twin)
    ]


@pytest.mark.parametrize("size", [*SIZES, MANY_PASSES], ids=str)
@every_dtype
def test_matches_its_twin_to_the_bit(rng, size, dtype):
    """Without an exact sum: the same pairs are added."""
    got, want = both(*make(rng, size, dtype), size[-1])
    np.testing.assert_array_equal(got, want)


@every_size
@every_dtype
def test_matches_float64(rng, size, dtype):
    family, x = make(rng, size, dtype)
    rows = np.asarray(x, np.float64)
    margins, n = oracles.margins(family, rows), family.signs.shape[-1]
    error = 4 * np.log2(2 * n) * EPS * np.sqrt(n) * np.linalg.norm(rows, axis=1)
    bits = digits(lsh.codes(family, x), family.num_bits)
    is_sure = np.abs(margins) > error[:, None, None]
    assert is_sure.mean() > 0.9
    np.testing.assert_array_equal(bits[is_sure], (margins > 0)[is_sure])


@every_dtype
def test_sums_that_cancel_match_the_twin(rng, dtype):
    """Signs of rounding errors: one other pair in a sum would show."""
    family, _ = make(rng, (1, 250, 64, 4, 1))
    first = jnp.where(jnp.arange(256) < 2, family.signs[0, 0], 0)[:250]
    x = first * jnp.asarray(rng.uniform(1, 2, (50, 250)), dtype)
    x += jnp.asarray(1e-7 * rng.standard_normal((50, 250)), dtype)
    got, want = both(family, x.astype(dtype), 6)
    np.testing.assert_array_equal(got, want)


def test_whole_numbers_match_the_twin(rng):
    """Many margins are 0, or alike; costs have the same order."""
    family, _ = make(rng, (1, 60, 8, 7, 1))
    x = jnp.asarray(rng.integers(-1, 2, (40, 60)), jnp.float32).at[0].set(0)
    got, want = both(family, x, 30)
    np.testing.assert_array_equal(got, want)
    assert (np.asarray(got)[0, 0, :, 0] == 0).all()


@pytest.mark.parametrize("b", [1, 6])
def test_groups_have_rotations_of_their_own(rng, b):
    family, _ = make(rng, (1, 20, 16, 5, 1))
    signs = jnp.sign(jnp.asarray(rng.standard_normal((3, *family.signs.shape))))
    of_groups = lsh._simhash.HadamardSimHash(20, 16, 5, signs.astype(jnp.float32))
    x = (
        jnp.asarray(rng.standard_normal((3, b, 20)), jnp.float32)
        .at[1, -1, 7]
        .set(jnp.inf)
    )
    got, want = both(of_groups, x, 4)
    np.testing.assert_array_equal(got, want)


@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_zeros(rng, bad, dtype):
    family, x = make(rng, (9, 21, 6, 4, 1), dtype)
    bad_rows, zeroed = x.at[1, -1].set(bad), x.at[1].set(0)
    for fn in (lsh.codes, partial(lsh.probes, num_probes=16)):
        np.testing.assert_array_equal(fn(family, bad_rows), fn(family, zeroed))
    assert (np.asarray(lsh.codes(family, bad_rows))[1] == 0).all()


@pytest.mark.parametrize("huge", [1e36, 3e38])
def test_projections_that_overflow_match_the_twin(rng, huge):
    """To both infinities, and to NaN where they meet."""
    family, x = make(rng, (8, 21, 6, 4, 1))
    got, want = both(family, huge * jnp.sign(x), 16)
    np.testing.assert_array_equal(got, want)


def test_a_row_has_the_same_codes_alone_and_in_any_batch(rng):
    family, x = make(rng, (70, 100, 20, 6, 1))
    want = np.asarray(lsh.codes(family, x))
    got = np.concatenate([lsh.codes(family, row[None]) for row in x])
    np.testing.assert_array_equal(got, want)
    ids = np.broadcast_to(np.arange(100, dtype=np.int32), x.shape)
    np.testing.assert_array_equal(lsh.codes(family, lsh.SparseRows(ids, x)), want)


def test_vmap_over_rows_and_families(rng):
    x = jnp.asarray(rng.standard_normal((3, 6, 8)), jnp.float32)
    make_one = partial(lsh.simhash, dim=8, num_tables=5, num_bits=3, kind="hadamard")
    families = jax.vmap(make_one)(jax.random.split(jax.random.key(1), 3))
    ask = partial(lsh.probes, num_probes=3)
    one = lambda i: jax.tree.map(lambda leaf: leaf[i], families)  # noqa: E731
    each = np.stack([ask(one(i), x[i]) for i in range(3)])
    np.testing.assert_array_equal(jax.vmap(ask)(families, x), each)
    shared = np.stack([ask(one(0), rows) for rows in x])
    np.testing.assert_array_equal(jax.vmap(ask, (None, 0))(one(0), x), shared)
    others = np.stack([ask(one(i), x[0]) for i in range(3)])
    np.testing.assert_array_equal(jax.vmap(ask, (0, None))(families, x[0]), others)


def test_no_array_of_rotations():
    """4,096 rows of 1,024 outputs: 17 MB, of which nothing is left."""
    make_one = partial(lsh.simhash, dim=938, num_tables=32, num_bits=8, kind="hadamard")
    family = jax.eval_shape(make_one, jax.random.key(0))
    rows = jax.ShapeDtypeStruct((4096, 938), jnp.float32)
    compiled = jax.jit(lsh.codes).lower(family, rows).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**16


@pytest.mark.parametrize(
    ("flips", "num_probes", "message"),
    [
        ((2, 16), 1, r"flips.shape\[1\] must be 15 or less; got 16"),
        ((2, 5), 1, r"probes.shape\[2\] \* flips.shape\[1\] must be 8 or less; got 10"),
        ((2, 4), 3, r"probes.shape\[3\] must be 2 or less; got 3"),
    ],
)
def test_the_handler_refuses_what_it_cannot_hash(flips, num_probes, message):
    args = jnp.ones((1, 4, 6)), jnp.ones((1, 1, 3, 8)), jnp.zeros(flips, bool)
    out = jax.ShapeDtypeStruct((1, 4, 2, num_probes), jnp.int32)
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.ffi.ffi_call("fsparse_hadamard_codes", out)(*args))
