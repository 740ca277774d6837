"""Mistakes in the making and the use of hash families, named at trace time."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_lsh_inputs import FAMILIES, KEY, MAKERS, D

from fsparse import lsh

X = jnp.ones((2, D))
IDS = jnp.zeros((2, 3), jnp.int32)
F = FAMILIES["simhash"]


def rows_of(ids=IDS, values=X[:, :3]):
    return lsh.SparseRows(ids, values)


MISTAKES = [
    (lambda: lsh.codes(F, X[:, :4]), ValueError, "codes: x.shape[1] must equal dim=11"),
    (lambda: lsh.codes(F, X[0]), ValueError, "codes: x must have 2 axes; got"),
    (lambda: lsh.codes(F, IDS), TypeError, "codes: x must be float32 or bfloat16; got"),
    (lambda: lsh.codes(F, "x"), TypeError, "codes: x must be an array; got str."),
    (lambda: lsh.codes(X, X), TypeError, "codes: family must be of type Family; got"),
    (
        lambda: lsh.codes(F, rows_of(ids=X[:, :3])),
        TypeError,
        "codes: ids must be int32; got ids: f32[2,3].",
    ),
    (
        lambda: lsh.codes(F, rows_of(values=IDS)),
        TypeError,
        "codes: values must be float32 or bfloat16; got values: i32[2,3].",
    ),
    (
        lambda: lsh.codes(F, rows_of(values=X)),
        ValueError,
        "codes: ids and values must have one shape; got ids: i32[2,3], values: f32[2,",
    ),
    (
        lambda: lsh.codes(F, rows_of(IDS[0], X[0, :3])),
        ValueError,
        "codes: ids must have 2 axes; got ids: i32[3].",
    ),
    (lambda: lsh.probes(F, X, 0), ValueError, "num_probes must be at least 1; got 0."),
    (lambda: lsh.probes(F, X, 33), ValueError, "num_probes must be at most 32; got 33"),
    (lambda: lsh.probes(F, X, 2.0), TypeError, "num_probes must be a static integer"),
    (lambda: lsh.probes(X, X, 2), TypeError, "probes: family must be of type Family"),
    *[
        (
            partial(lsh.probes, FAMILIES[name], X, 2),
            ValueError,
            "probes: family must be one that can probe neighbours, which simhash can; ",
        )
        for name in ("dwta", "minhash", "l2")
    ],
    *[
        (
            partial(make, KEY, **{"dim": D, size: 0}),
            ValueError,
            f"{name.split('-')[0]}: {size} must be at least 1; got 0.",
        )
        for name, make in MAKERS.items()
        for size in ("dim", *sorted({"num_tables", *make.keywords} - {"kind", "width"}))
    ],
    *[
        (
            partial(make, KEY, D, num_bits=16),
            ValueError,
            f"{name.split('-')[0]}: num_bits must be at most 15; got 16. Make it",
        )
        for name, make in MAKERS.items()
        if name != "dwta"
    ],
    *[
        (partial(make, KEY, 1.5), TypeError, "dim must be a static integer; got float.")
        for make in MAKERS.values()
    ],
    *[
        (
            partial(lsh.dwta, KEY, D, bin_size=size),
            ValueError,
            f"dwta: bin_size must be a power of two and at least 2; got {size}.",
        )
        for size in (1, 6)
    ],
    (
        lambda: lsh.dwta(KEY, D, num_hashes=6),
        ValueError,
        "dwta: bin_size**num_hashes must be at most 32768; got 8**6. Use fewer hashes",
    ),
    (
        lambda: lsh.simhash(KEY, D, kind="srp"),
        ValueError,
        "simhash: kind must be one of dense, sparse, hadamard; got srp.",
    ),
    *[
        (
            partial(lsh.simhash, KEY, D, density=density),
            ValueError,
            f"simhash: density must be in (0, 1]; got {density}.",
        )
        for density in (0, 1.5, np.nan)
    ],
    *[
        (
            partial(lsh.l2, KEY, D, width=width),
            ValueError,
            f"l2: width must be in (0, 2.14748e+09]; got {width}.",
        )
        for width in (0, -1.0, np.inf, np.nan)
    ],
    (
        lambda: lsh.l2(KEY, D, width=jnp.ones(())),
        TypeError,
        "l2: width must be a static number; got ArrayImpl.",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_the_largest_sizes_are_allowed():
    dwta = partial(lsh.dwta, num_hashes=15, bin_size=2)
    others = [partial(f, num_bits=15) for f in (lsh.simhash, lsh.minhash, lsh.l2)]
    for make in (dwta, *others):
        assert jax.eval_shape(partial(make, dim=D), KEY).num_buckets == 2**15
