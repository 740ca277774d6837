"""What samplers draw, and how often: counts in bounds that a right one misses by chance
less than once in 10,000 keys.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fsparse
from fsparse import Table, samplers
from fsparse.samplers import Query

B, D = 3, 4
NONE = Query(jnp.zeros((B, 0), jnp.int32))
KEY = jax.random.key(0)


def draws(sampler, size, num_keys, seed=1, query=NONE, per_example=False):
    """``i32[num_keys, size]``, or ``[num_keys, b, size]``."""
    keys = jax.random.split(jax.random.key(seed), num_keys)
    sample = lambda key: sampler.sample(key, query, size, per_example)  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(sample))(keys))


def assert_probabilities(ids, n, q):
    """Chi-square of independent draws against the probabilities of the rows."""
    counts = np.bincount(ids.ravel(), minlength=n)
    assert counts.size == n
    assert not counts[q == 0].any()
    expected = q[q > 0] / q.sum() * counts.sum()
    assert stats.chisquare(counts[q > 0], expected).pvalue > 1e-4


# ---- uniform ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size"),
    [(1, 1), (1, 5), (2, 1), (7, 2), (7, 5), (7, 7), (50, 49), (50, 7), (50, 60)],
)
def test_uniform_rows_are_distinct_and_spread(n, size):
    ids = draws(samplers.uniform(n), size, 20)
    assert ids.dtype == np.int32
    for row in np.sort(ids, axis=1):
        rows = row[: min(n, size)]
        assert (np.diff(rows) > 0).all()
        assert rows[0] >= 0
        assert rows[-1] < n
        np.testing.assert_array_equal(row[n:], n)
        if size <= n:  # one in each stratum: two strata lie between neighbours at most
            gaps = np.diff(np.append(rows, rows[0] + n))
            assert gaps.max() <= 2 * -(-n // size)


def test_each_uniform_draw_is_any_row():
    """So any part of the candidates has each row alike; 4,000 keys."""
    n = 23
    ids = draws(samplers.uniform(n), 10, 4000)
    for position in (0, 3, 9):
        assert_probabilities(ids[:, position], n, np.ones(n))


def test_inclusion_probabilities_of_uniform():
    """A row is in the set or not: a binomial of each, over 20,000 keys."""
    n, size, num_keys = 11, 4, 20_000
    counts = np.bincount(draws(samplers.uniform(n), size, num_keys).ravel())
    q = np.exp(samplers.uniform(n).log_q(jnp.arange(n), size))
    np.testing.assert_allclose(q, size / n, rtol=1e-6)
    deviations = (counts - num_keys * q) / np.sqrt(num_keys * q * (1 - q))
    assert np.abs(deviations).max() < stats.norm.isf(1e-4 / n / 2)


def test_the_part_of_a_set_is_spread_over_all_rows():
    """A set takes candidates until it is full: none of ten stretches is left out."""
    n, size = 10_000, 1000
    for row in draws(samplers.uniform(n), size, 5):
        counts = np.bincount(row[: size // 10] // (n // 10), minlength=10)
        assert counts.min() >= 6
        assert counts.max() <= 14


def test_examples_draw_for_themselves():
    for sampler in (samplers.uniform(1000), samplers.popularity(np.ones(1000))):
        ids = draws(sampler, 8, 1, per_example=True)[0]
        assert ids.shape == (B, 8)
        assert len(np.unique(ids)) > 16


@pytest.mark.parametrize("n", [70_001, 2**31 - 2])
def test_uniform_draws_in_wide_strata(n):
    """Of a stratum of any width: the whole of it, evenly."""
    ids = draws(samplers.uniform(n), 3, 3000)
    tenths = (ids.astype(np.int64) * 10 // n).ravel()
    assert_probabilities(tenths, 10, np.ones(10))
    assert len(np.unique(ids)) > 0.8 * min(ids.size, n)


def test_uniform_rows_leave_no_room_to_fill(rng):
    query = Query(jnp.asarray(rng.integers(0, 500, (B, 4)), jnp.int32))
    for per_example in (False, True):
        options = {"size": 40, "per_example": per_example}
        sets = [
            fsparse.sample_active_set(
                samplers.uniform(500), KEY, query, fill=fill, **options
            )
            for fill in (False, True)
        ]
        assert sets[0].is_active.all()
        np.testing.assert_array_equal(sets[0].ids, sets[1].ids)


# ---- popularity ---------------------------------------------------------------------

COUNTS = np.array([5, 0, 1, 40, 0, 3, 0])


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_popularity_draws_by_frequency(power, smoothing):
    sampler = samplers.popularity(COUNTS, power, smoothing)
    weights = (COUNTS + smoothing) ** power * (COUNTS + smoothing > 0)
    ids = draws(sampler, 20, 1000)
    assert_probabilities(ids, len(COUNTS), weights)
    with np.errstate(divide="ignore"):
        want = np.log(1 - (1 - weights / weights.sum()) ** 20)
    got = sampler.log_q(jnp.arange(len(COUNTS), dtype=jnp.int32), 20)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_ends", [0, 1, 2, 7, 1000, 40_000])
def test_inversion_is_a_search_of_all_ends(rng, num_ends):
    """Ends that lie close together, too, and draws beside them."""
    spread = rng.integers(0, 2**32, num_ends - num_ends // 3, dtype=np.uint32)
    close = 2**31 + np.arange(num_ends // 3, dtype=np.uint32)
    ends = np.sort(np.concatenate([spread, close]))
    bits = np.concatenate(
        [rng.integers(0, 2**32, 500, dtype=np.uint32), ends, ends - 1, [0, 2**32 - 1]]
    ).astype(np.uint32)
    got = samplers._inverse(ends)(jnp.asarray(bits))
    np.testing.assert_array_equal(got, np.searchsorted(ends, bits, side="right"))


def test_popularity_tells_the_rows_of_a_wide_layer_apart():
    """A cumulative sum in float32 has no room for most of these rows."""
    n = 670_091
    counts = np.ones(n)
    counts[0] = 1e7
    sampler = samplers.popularity(counts, smoothing=0.0)
    last = np.asarray(sampler.log_q(jnp.array([0, 1, n - 1, n]), 1))
    total = 1e7 + n - 1
    np.testing.assert_allclose(last[:3], np.log([1e7 / total, *2 * [1 / total]]), 5e-3)
    assert last[3] == 0
    ids = draws(sampler, 100_000, 1).ravel()
    rare = ids[ids > 0]
    share = len(rare) / 1e5
    assert abs(share - (n - 1) / total) < 4 * np.sqrt(share / 1e5)
    assert len(np.unique(rare)) > 0.99 * len(rare)
    assert stats.kstest(rare / n, "uniform").pvalue > 1e-4


def test_the_rarest_row_can_be_drawn():
    """By one of the 2**32 values of the bits; log_q says so."""
    sampler = samplers.popularity([1e300, 1, 1e300], power=2.0, smoothing=0.0)
    got = sampler.log_q(jnp.array([1], jnp.int32), 1)
    np.testing.assert_allclose(got, [-32 * np.log(2)], rtol=1e-6)
    q = np.exp(np.asarray(sampler.log_q(jnp.arange(3, dtype=jnp.int32), 1), float))
    np.testing.assert_allclose(q.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("counts", [[3], [0, 3, 0], [0, 0, 7]])
def test_popularity_of_one_row(counts):
    sampler = samplers.popularity(counts, smoothing=0.0)
    ids = draws(sampler, 50, 2, per_example=True)
    np.testing.assert_array_equal(ids, np.flatnonzero(counts)[0])


# ---- in the batch, and by logits ----------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_in_batch_goes_around_the_batch(size):
    n = 9
    labels = np.array([[4, n, 2], [-1, 7, n], [n, n, n], [0, 2, 2]], np.int32)
    query = Query(jnp.asarray(labels), table=jnp.zeros((n, 2)))
    sample = partial(samplers.in_batch().sample, KEY, query, size)

    def padded(rows):
        own = [i for i in np.ravel(rows).tolist() if 0 <= i < n]
        return (own + [n] * size)[:size]

    np.testing.assert_array_equal(sample(False), padded(labels))
    others = [np.roll(labels, -i - 1, axis=0)[:-1] for i in range(len(labels))]
    np.testing.assert_array_equal(sample(True), [padded(x) for x in others])


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (1, 2)])
def test_in_batch_without_other_labels(shape):
    query = Query(jnp.zeros(shape, jnp.int32), table=jnp.zeros((9, 2)))
    ids = samplers.in_batch().sample(KEY, query, 4, True)
    np.testing.assert_array_equal(ids, np.full((shape[0], 4), 9))


@pytest.mark.parametrize("size", [1, 2, 5, 12, 15])
@pytest.mark.parametrize("wrap", [jnp.asarray, Table])
def test_top_k_by_brute_force(rng, size, wrap):
    n, b = 12, 3
    x = rng.standard_normal((b, D)).astype(np.float32)
    w = rng.standard_normal((n, D)).astype(np.float32)
    query = Query(jnp.zeros((b, 1), jnp.int32), x, wrap(jnp.asarray(w)))
    ranking = np.argsort(-(x @ w.T), axis=1, kind="stable")
    sample = partial(samplers.top_k().sample, KEY, query, size)
    want = np.pad(ranking, ((0, 0), (0, size)), constant_values=n)[:, :size]
    np.testing.assert_array_equal(sample(True), want)
    each = min(2 * -(-size // b), size, n)
    by_rank = list(dict.fromkeys(ranking[:, :each].T.ravel().tolist()))
    np.testing.assert_array_equal(sample(False), (by_rank + [n] * size)[:size])


def test_top_k_of_examples_that_agree_leaves_room():
    x, w = jnp.ones((4, 1)), jnp.arange(10.0)[:, None]
    query = Query(jnp.zeros((4, 1), jnp.int32), x, w)
    ids = samplers.top_k().sample(KEY, query, 8, False)
    np.testing.assert_array_equal(ids, [9, 8, 7, 6, *[10] * 4])


# ---- mix ----------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0, 0.25, 0.5, 0.9, 1])
@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("per_example", [False, True])
def test_mix_takes_a_fraction_of_each(fraction, size, per_example):
    """Rows 0 to 9 by one sampler, row 10 by the other; a part has the fraction."""
    first = samplers.popularity([1] * 10 + [0], smoothing=0.0)
    second = samplers.popularity([0] * 10 + [1], smoothing=0.0)
    sampler = samplers.mix(first, second, fraction)
    ids = draws(sampler, size, 3, per_example=per_example).reshape(-1, size)
    share = round(fraction * size)
    np.testing.assert_array_equal(np.sum(ids < 10, axis=1), share)
    parts = np.cumsum(ids < 10, axis=1)
    expected = share / size * np.arange(1, size + 1)
    assert np.abs(parts - expected).max() <= 1


def test_log_q_of_mix_by_monte_carlo():
    """How often 10 draws have a row, with 4,000 keys."""
    n, size, num_keys = len(COUNTS), 10, 4000
    sampler = samplers.mix(samplers.uniform(n), samplers.popularity(COUNTS), 0.4)
    ids = draws(sampler, size, num_keys)
    found = np.mean((ids[:, :, None] == np.arange(n)).any(axis=1), axis=0)
    expected = np.exp(sampler.log_q(jnp.arange(n, dtype=jnp.int32), size))
    deviation = np.sqrt(expected * (1 - expected) / num_keys)
    assert (np.abs(found - expected) < 4.5 * deviation + 1e-6).all()


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.uniform(5),
        samplers.popularity([1, 2, 3, 4, 5]),
        samplers.mix(samplers.uniform(5), samplers.popularity([1, 2, 3, 4, 5]), 0.5),
    ],
)
def test_padding_has_a_log_q_of_zero(sampler):
    ids = jnp.array([[-1, 5, 2**31 - 1], [0, 4, 2]], jnp.int32)
    got = jax.jit(sampler.log_q, static_argnums=1)(ids, 3)
    assert got.dtype == jnp.float32
    assert got.shape == ids.shape
    np.testing.assert_array_equal(got[0], 0)
    assert (got[1] != 0).all()


def test_corrected_loss_estimates_that_over_all_rows():
    """With log_q, the mean of many partition sums of sets is that of all rows."""
    n, size, num_keys = 30, 8, 4000
    logits = np.random.default_rng(0).standard_normal(n)
    sampler = samplers.popularity(np.arange(n))
    ids = draws(sampler, size, num_keys)
    weights = np.exp(logits - np.asarray(sampler.log_q(jnp.arange(n), size)))
    sums = (ids[:, :, None] == np.arange(n)).any(axis=1) @ weights
    error = sums.std() / np.sqrt(num_keys)
    assert abs(sums.mean() - np.exp(logits).sum()) < 4 * error


# ---- mistakes -----------------------------------------------------------------------

LABELS = jnp.zeros((B, 1), jnp.int32)
X, W = jnp.ones((B, D)), jnp.ones((5, D))
UNIFORM, TOP_K = samplers.uniform(5), samplers.top_k()


def on_query(sampler, query=NONE, size=3):
    return lambda: sampler.sample(KEY, query, size, True)


def whole(sampler, query, size=3):
    return lambda: fsparse.sample_active_set(sampler, KEY, query, size=size)


MISTAKES = [
    (lambda: samplers.uniform(0), ValueError, "samplers.uniform: num_rows must be at"),
    (lambda: samplers.uniform(2.5), TypeError, "num_rows must be a static integer"),
    (lambda: samplers.uniform(2**31 - 1), ValueError, "fewer than 2**31 - 1 rows"),
    (lambda: samplers.popularity([1, -1]), ValueError, "one of them positive; got"),
    (lambda: samplers.popularity([0, 0]), ValueError, "one of them positive; got"),
    (lambda: samplers.popularity([np.nan]), ValueError, "counts must be finite"),
    (lambda: samplers.popularity([np.inf]), ValueError, "counts must be finite"),
    (lambda: samplers.popularity([]), ValueError, "one of them positive; got"),
    (lambda: samplers.popularity([[1]]), ValueError, "counts must have 1 axes; got"),
    (lambda: samplers.popularity(["a"]), TypeError, "counts must be numbers; got"),
    (lambda: samplers.popularity([True]), TypeError, "counts must be numbers; got"),
    (
        lambda: jax.jit(lambda x: samplers.popularity(x).num_rows)(X[0]),
        TypeError,
        "samplers.popularity: counts must be known at trace time; got a traced array. "
        "Make the sampler outside of jit.",
    ),
    (lambda: samplers.popularity([1], -1.0), ValueError, "power must be in [0, "),
    (lambda: samplers.popularity([1], np.nan), ValueError, "power must be in [0, "),
    (lambda: samplers.popularity([1], 1, -2), ValueError, "smoothing must be in [0, "),
    (lambda: samplers.popularity([1], "1"), TypeError, "power must be a number; got"),
    *[
        (
            lambda fraction=fraction: samplers.mix(UNIFORM, TOP_K, fraction),
            ValueError,
            f"samplers.mix: fraction must be in [0, 1]; got {fraction}.",
        )
        for fraction in (-0.1, 1.5)
    ],
    (
        lambda: samplers.mix(UNIFORM, 3, 0.5),
        TypeError,
        "second must be of type Sampler",
    ),
    (
        lambda: samplers.mix(UNIFORM, samplers.uniform(6), 0.5),
        ValueError,
        "first and second must be of the same number of rows; got 5 and 6.",
    ),
    (
        on_query(UNIFORM, size=0),
        ValueError,
        "samplers.uniform: size must be at least 1",
    ),
    (on_query(UNIFORM, LABELS), TypeError, "query must be of type Query; got"),
    (on_query(UNIFORM, Query(X)), TypeError, "labels must be int32; got labels: f32"),
    (on_query(UNIFORM, Query(LABELS[0])), ValueError, "labels must have 2 axes; got"),
    (
        on_query(UNIFORM, Query(LABELS, table=W[:4])),
        ValueError,
        "samplers.uniform: table must have the 5 rows that the sampler was made for; "
        "got table: f32[4,4].",
    ),
    (
        on_query(samplers.popularity([1] * 4), Query(LABELS, table=W)),
        ValueError,
        "samplers.popularity: table must have the 4 rows",
    ),
    (
        on_query(samplers.in_batch()),
        ValueError,
        "samplers.in_batch: query.table must be given, since it has the rows; got",
    ),
    (on_query(TOP_K, Query(LABELS, table=W)), ValueError, "query.x must be given; got"),
    (on_query(TOP_K, Query(LABELS, X)), ValueError, "query.table must be given"),
    (
        on_query(TOP_K, Query(LABELS, X[:2], W)),
        ValueError,
        "x and labels must have a row for each example; got x: f32[2,4], labels: i32[",
    ),
    (on_query(TOP_K, Query(LABELS, LABELS, W)), TypeError, "x must be float32; got"),
    (
        lambda: TOP_K.log_q(LABELS, 3),
        ValueError,
        "samplers.top_k: log_q must come from a sampler of known probabilities; got "
        "samplers.top_k. Such are uniform, popularity, and mix of these",
    ),
    (lambda: samplers.in_batch().log_q(LABELS, 3), ValueError, "uniform, popularity"),
    (
        lambda: samplers.mix(UNIFORM, TOP_K, 0.5).log_q(LABELS, 4),
        ValueError,
        "uniform, popularity, and mix of these",
    ),
    (lambda: UNIFORM.log_q(X, 3), TypeError, "ids must be int32; got ids: f32[3,4]"),
    (lambda: UNIFORM.log_q(LABELS, 0), ValueError, "size must be at least 1; got 0."),
    (whole("uniform", NONE), TypeError, "sampler must be of type Sampler; got str"),
    (whole(UNIFORM, LABELS), TypeError, "query must be of type Query; got"),
    (whole(UNIFORM, NONE, 0), ValueError, "size must be at least 1; got 0."),
    (
        whole(samplers.in_batch(), NONE),
        ValueError,
        "sample_active_set: query.table must be given, since it has the rows; got "
        "None. Pass Query(labels, table=table).",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
