"""Mistakes at the edge of sketches are named, at trace time."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from fsparse import lsh
from fsparse import sketch as sk

KEY, D = jax.random.key(0), 4
FAMILY = lsh.simhash(KEY, D, num_tables=6, num_bits=3)
L2 = lsh.l2(KEY, D, num_tables=6, num_bits=3)
PLAIN, SLICED = sk.nw_init(FAMILY), sk.nw_init(FAMILY, num_slices=3, num_outputs=2)
X, Y = jnp.ones((5, D)), jnp.ones(5)
LABELS = jnp.zeros(5, jnp.int32)
HUGE = lsh.simhash(KEY, 1, num_tables=1, num_bits=15)

MISTAKES = [
    (lambda: sk.nw_init(X), TypeError, "nw_init: family must be of type Family"),
    (
        lambda: sk.nw_init(FAMILY, num_slices=0),
        ValueError,
        "nw_init: num_slices must be at least 1; got 0.",
    ),
    (
        lambda: sk.nw_init(FAMILY, num_outputs=1.5),
        TypeError,
        "nw_init: num_outputs must be a static integer; got float.",
    ),
    (
        lambda: sk.nw_init(HUGE, num_slices=2**16),
        ValueError,
        "must be less than 2**31 - 1, for cells are numbered in int32; got 2147483648.",
    ),
    *[
        (
            partial(f, FAMILY, *args),
            TypeError,
            f"{f.__name__}: {what} must be of type NW",
        )
        for f, what, args in [
            (sk.nw_update, "sketch", (X, Y)),
            (sk.nw_query, "sketch", (X,)),
            (sk.nw_decay, "sketch", (0.5,)),
            (sk.nw_rotate, "sketch", ()),
            (sk.nw_num_bytes, "sketch", ()),
            (sk.nw_psum, "sketch", ("i",)),
            (sk.nw_merge, "a", (PLAIN,)),
        ]
    ],
    (
        lambda: sk.nw_update(PLAIN, X, Y[:3]),
        ValueError,
        "nw_update: y must be of shape (5,); got y: f32[3], x: i32[5,6].",
    ),
    (
        lambda: sk.nw_update(SLICED, X, Y, LABELS),
        ValueError,
        "nw_update: y must be of shape (5, 2); got y: f32[5]",
    ),
    (
        lambda: sk.nw_update(PLAIN, X, LABELS),
        TypeError,
        "nw_update: y must be float32; got y: i32[5].",
    ),
    (
        lambda: sk.nw_update(SLICED, X, jnp.ones((5, 2))),
        ValueError,
        "nw_update: labels must be given, since the sketch has 3 slices; got None.",
    ),
    (
        lambda: sk.nw_update(PLAIN, X, Y, Y),
        TypeError,
        "nw_update: labels must be int32; got labels: f32[5].",
    ),
    (
        lambda: sk.nw_query(SLICED, X, LABELS[:2]),
        ValueError,
        "nw_query: labels must have one for each example; got labels: i32[2]",
    ),
    (
        lambda: sk.nw_update(PLAIN, X, Y, weights=Y[:1]),
        ValueError,
        "nw_update: weights must have one for each example; got weights: f32[1]",
    ),
    (
        lambda: sk.nw_update(PLAIN, jnp.zeros((5, 7), jnp.int32), Y),
        ValueError,
        "nw_update: x must be rows, or codes i32[b, 6]; got x: i32[5,7].",
    ),
    (
        lambda: sk.nw_query(PLAIN, X[:, :2]),
        ValueError,
        "x.shape[1] must equal dim=4; got x: f32[5,2].",
    ),
    (
        lambda: sk.nw_query(PLAIN, X, prior=-1.0),
        ValueError,
        "nw_query: prior must be in [0, 16777216.0]; got -1.0.",
    ),
    (
        lambda: sk.nw_query(PLAIN, X, num_groups=4),
        ValueError,
        "nw_query: num_groups must divide the rows of the sketch; got 4 for 6 rows.",
    ),
    (
        lambda: sk.nw_query(PLAIN, X, rehash_correction=True),
        ValueError,
        "nw_query: rehash_correction must be for l2 or minhash, whose codes are hashed",
    ),
    (
        lambda: sk.nw_decay(PLAIN, 0.0),
        ValueError,
        "nw_decay: gamma must be in (0, 1]; got 0.0.",
    ),
    (
        lambda: sk.nw_decay(PLAIN, float("nan")),
        ValueError,
        "nw_decay: gamma must be in (0, 1]; got nan.",
    ),
    (
        lambda: sk.nw_decay(PLAIN, Y),
        ValueError,
        "nw_decay: gamma must have 0 axes; got gamma: f32[5].",
    ),
    (
        lambda: sk.nw_merge(PLAIN, SLICED),
        ValueError,
        "nw_merge: sketches must have one size and kind of family; got SimHash(dim=4, "
        "num_tables=6, num_buckets=8), num_outputs=None, num_slices=1, num_blocks=1",
    ),
    (lambda: sk.nw_merge(PLAIN, sk.nw_init(L2)), ValueError, "got SimHash("),
    (
        lambda: sk.exact_nw(FAMILY, X, Y, X, LABELS),
        ValueError,
        "exact_nw: labels and query_labels must both be given or neither; got only "
        "labels.",
    ),
    (
        lambda: sk.exact_nw(FAMILY, X, Y, X, rehash_correction=True),
        ValueError,
        "exact_nw: rehash_correction must be for l2 or minhash",
    ),
    (
        lambda: sk.exact_nw(lsh.dwta(KEY, D, num_tables=1), X, Y, X),
        ValueError,
        "family must be simhash, l2 or minhash, whose chances have a formula; got",
    ),
    (lambda: sk.standardizer(X[:0]), ValueError, "sample must have rows; got"),
    (
        lambda: sk.standardizer(X)(X[:, :2]),
        ValueError,
        "standardizer: rows must have 4 coordinates; got x: f32[5,2].",
    ),
]


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_are_named(call, error, message, jitted):
    with pytest.raises(error, match=re.escape(message)):
        jax.eval_shape(call) if jitted else call()


def other_family():
    return lsh.simhash(jax.random.key(1), D, num_tables=6, num_bits=3)


def test_sketches_of_other_hash_functions_do_not_merge():
    other = sk.nw_init(other_family())
    with pytest.raises(ValueError, match="must share their hash functions; got two"):
        sk.nw_merge(PLAIN, other)
    merged = jax.jit(sk.nw_merge)(PLAIN, other)
    assert jnp.isnan(merged.table).all()  # loud, where nothing can be raised
    assert_all_nan(sk.nw_query(merged, X)[:3])
    alike = sk.nw_init(lsh.simhash(KEY, D, num_tables=6, num_bits=3))
    assert not jnp.isnan(jax.jit(sk.nw_merge)(PLAIN, alike).table).any()
    sk.nw_merge(PLAIN, alike)


def test_traced_decay_out_of_range():
    """Brought into range; NaN is loud."""
    decay = jax.jit(sk.nw_decay)
    assert float(decay(PLAIN, jnp.float32(2)).unit) == 1
    assert float(decay(PLAIN, jnp.float32(0)).unit) == 2.0**100
    assert_all_nan(sk.nw_query(decay(PLAIN, jnp.float32(jnp.nan)), X))


def assert_all_nan(estimate):
    assert all(jnp.isnan(x).all() for x in estimate)
