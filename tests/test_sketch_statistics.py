"""How far off a sketch is, over many sketches of independent hash functions."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import lsh
from fsparse.sketch import exact_nw, nw_init, nw_query, nw_update

N, Q, D, KEYS = 400, 20, 5, 60
X = jax.random.normal(jax.random.key(1), (N, D))
Y = jnp.sin(2 * X[:, 0]) + X[:, 1] ** 2
LABELS = (X[:, 2] > 0).astype(jnp.int32)
MAKE = {
    "simhash": partial(lsh.simhash, num_bits=5),
    "l2": partial(lsh.l2, num_hashes=2, width=4.0, num_bits=10),
    "l2-few-buckets": partial(lsh.l2, num_hashes=2, width=2.0, num_bits=4),
}


@cache
def exact(name, corrected=False):
    family = MAKE[name](jax.random.key(0), D, num_tables=1)
    args = X, Y, X[:Q], LABELS, LABELS[:Q]
    return np.asarray(exact_nw(family, *args, rehash_correction=corrected))


@cache
def estimates(name, rows, groups=1, corrected=False):
    """Of ``KEYS`` sketches: ``(mean, stderr)``, ``[KEYS, Q]`` each."""

    @jax.jit
    def one(key):
        family = MAKE[name](key, D, num_tables=rows)
        sketch = nw_update(nw_init(family, num_slices=2), X, Y, LABELS)
        options = {"num_groups": groups, "rehash_correction": corrected}
        return nw_query(sketch, X[:Q], LABELS[:Q], **options)[:2]

    keys = jax.random.split(jax.random.key(7), KEYS)
    return tuple(map(np.asarray, jax.lax.map(one, keys)))


def mean_square(name, rows, **options):
    error = estimates(name, rows, **options)[0] - exact(name)
    return np.mean(error**2)


@pytest.mark.parametrize("name", ["simhash", "l2"])
def test_rmse_falls_as_one_over_the_root_of_rows(name):
    """``RMSE sqrt(R)`` is constant within 15 %: the mean squares of 60 sketches vary by
    about 8 %, as of 300 independent errors among their 1,200.
    """
    scaled = [np.sqrt(rows * mean_square(name, rows)) for rows in (16, 64, 256)]
    np.testing.assert_allclose(scaled, np.mean(scaled), rtol=0.15)


@pytest.mark.parametrize("name", ["simhash", "l2"])
def test_the_mean_over_sketches_is_exact(name):
    """z of each query; the largest of 20 is below 4 but for one time in 800."""
    error = estimates(name, 256)[0] - exact(name)
    z = error.mean(0) / error.std(0, ddof=1) * np.sqrt(KEYS)
    assert np.abs(z).max() < 4


@pytest.mark.parametrize("name", ["simhash", "l2"])
@pytest.mark.parametrize("groups", [1, 4])
def test_stderr_is_calibrated(name, groups):
    """The mean square of error / stderr is 1 within 20 %, at 64 rows."""
    mean, stderr = estimates(name, 64, groups)
    z2 = np.mean(((mean - exact(name)) / stderr) ** 2)
    assert 0.8 < z2 < 1.2


def test_medians_of_groups_cost_at_most_a_quarter():
    ratio = np.sqrt(mean_square("simhash", 256, groups=8) / mean_square("simhash", 256))
    assert 0.95 < ratio < 1.4  # sqrt(pi / 2) is 1.25, and groups of 32 have a bias


def test_rehash_correction_takes_out_what_meets_by_chance():
    """With 16 buckets: corrected towards the kernel, uncorrected towards the floor."""
    name, rows = "l2-few-buckets", 256
    pure, plain = exact(name, corrected=True), exact(name)
    corrected = estimates(name, rows, corrected=True)[0]
    as_it_is = estimates(name, rows)[0]
    assert np.mean((as_it_is.mean(0) - plain) ** 2) < 1e-3
    off = np.mean((as_it_is - pure) ** 2), np.mean((corrected - pure) ** 2)
    assert off[1] < off[0] / 2
    stderr = estimates(name, rows, corrected=True)[1]
    assert 0.6 < np.mean(((corrected - pure) / stderr) ** 2) < 1.4


def test_density_is_the_mean_kernel():
    """RACE: within 5 standard errors, where the spread of counts is known."""
    family = lsh.simhash(jax.random.key(3), D, num_tables=512, num_bits=5)
    sketch = nw_update(nw_init(family), X, Y)
    kernel = np.asarray(lsh.collision_probability(family, X[:Q], X))
    codes = lsh.codes(family, X)
    counts = np.asarray((codes[:Q, None] == codes[None]).sum(1))
    spread = counts.std(1) / np.sqrt(512) / N
    density = np.asarray(nw_query(sketch, X[:Q]).density)
    assert (np.abs(density - kernel.mean(1)) < 5 * spread).all()
