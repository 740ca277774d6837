"""What selectors choose, and how often: by Monte Carlo, each candidate for itself.

By linearity, weights whose mean is right for each candidate are right for every loss.
Bounds are met by chance in all but one of 10,000 seeds.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from scipy import stats

from fsparse import adaptive
from fsparse.adaptive import Selection

M, SIZE, NUM_KEYS = 24, 6, 20_000
CHUNK = 2000
KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), (NUM_KEYS // CHUNK, CHUNK))
SELECTORS = {
    "priority": adaptive.priority(SIZE),
    "systematic": adaptive.systematic(SIZE),
    "top": adaptive.top(SIZE, biased=True),
    "priority0": adaptive.priority(SIZE, uniform=0.0),
    "systematic0": adaptive.systematic(SIZE, uniform=0.0),
}
UNBIASED = [name for name in SELECTORS if name != "top"]
every = pytest.mark.parametrize("name", ["priority", "systematic", "top"])
every_unbiased = pytest.mark.parametrize("name", UNBIASED)

RNG = np.random.default_rng(5)
HEAVY = np.exp(1.5 * RNG.normal(size=M))
TINY, HUGE = 1e-30 * (1 + HEAVY), 1e37 * np.minimum(HEAVY, 30)
BAD = HEAVY.copy()
BAD[[0, 5, 9, 11, 17]] = np.nan, np.inf, -np.inf, -3, 0
ONE = np.zeros(M)
ONE[4] = 1e30
SCORES = {
    "equal": np.ones(M),
    "heavy": HEAVY,
    "tiny": TINY,
    "huge": HUGE,  # their sum is no float
    "bad": BAD,
    "one": ONE,
    "apart": np.where(np.arange(M) < 3, 1e30, 1e-30),
    "zero": np.zeros(M),
    "subnormal": np.full(M, 1e-42),
    "negative": -HEAVY,
    "nan": np.full(M, np.nan),
    "inf": np.full(M, np.inf),
}
NEVER_MET = {  # what has a score of 0 or near it, where no uniform share helps
    ("priority0", "bad"),
    ("systematic0", "bad"),
    ("systematic0", "one"),
    ("systematic0", "apart"),
}
MASKS = {
    "all": np.ones(M, bool),
    "some": np.arange(M) % 3 != 1,
    "size + 1": np.isin(np.arange(M), [1, 4, 5, 9, 11, 17, 20]),
}


@partial(jax.jit, static_argnums=0)
def select_many(select, keys, scores, is_valid):
    return jax.vmap(select, (0, None, None))(keys, scores, is_valid)


def draws(name, scores, is_valid, num_keys=NUM_KEYS):
    """Selections of many keys, in float64; one shape of keys, so few programs."""
    scores, is_valid = jnp.asarray(scores, jnp.float32), jnp.asarray(is_valid)
    parts = [
        select_many(SELECTORS[name], keys, scores, is_valid)
        for keys in KEYS[: -(-num_keys // CHUNK)]
    ]
    indices, weights, p = (
        np.concatenate(x)[:num_keys] for x in zip(*parts, strict=True)
    )
    return indices, weights.astype(np.float64), p[0].astype(np.float64)


def per_candidate(indices, weights, m=M):
    """``[num_keys, M]``: the share of each candidate in ``mean(weights * loss)``."""
    num_keys, size = indices.shape
    places = indices + (m + 1) * np.arange(num_keys)[:, None]
    sums = np.bincount(places.ravel(), (weights / size).ravel(), num_keys * (m + 1))
    return sums.reshape(num_keys, m + 1)[:, :m]


def assert_means(samples, want, num_tests=None):
    """z-tests of the columns; those that never vary are compared."""
    mean, error = samples.mean(axis=0), samples.std(axis=0) / np.sqrt(len(samples))
    is_fixed = error <= 1e-6 * np.abs(want)
    np.testing.assert_allclose(mean[is_fixed], want[is_fixed], rtol=1e-5)
    z = (mean - want)[~is_fixed] / error[~is_fixed]
    assert np.abs(z).max(initial=0) < stats.norm.isf(0.5e-4 / (num_tests or want.size))


def oracle(scores, is_valid, uniform):
    """The distribution in float64, by its definition."""
    s = np.asarray(scores, np.float32).astype(np.float64)
    is_finite = is_valid & np.isfinite(s)
    s = np.where(is_finite, np.maximum(s, 0), 0)
    s = np.where(s < 2.0**-126, 0, s)
    mean = s.sum() / max(is_finite.sum(), 1)
    s = np.where(is_valid & ~is_finite, mean, s)
    s = s if s.sum() else is_valid.astype(float)
    return (1 - uniform) * s / s.sum() + uniform * is_valid / is_valid.sum()


# ---- no bias ------------------------------------------------------------------------


@every_unbiased
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("pattern", SCORES)
def test_each_candidate_has_its_share_of_the_mean(name, pattern, mask):
    is_valid = MASKS[mask]
    if (name, pattern) in NEVER_MET:
        pytest.skip("a chance of 2**-30 or 2**-96")
    indices, weights, _ = draws(name, SCORES[pattern], is_valid)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert set(np.unique(indices)) <= {*np.flatnonzero(is_valid), M}
    assert_means(per_candidate(indices, weights), is_valid / is_valid.sum())


@every_unbiased
@pytest.mark.parametrize("pattern", SCORES)
def test_probabilities_are_those_of_the_scores(name, pattern):
    is_valid = MASKS["some"]
    p = draws(name, SCORES[pattern], is_valid, 1)[2]
    want = oracle(SCORES[pattern], is_valid, 0 if name.endswith("0") else 0.1)
    np.testing.assert_allclose(p, want, rtol=1e-5, atol=3e-9)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)
    assert (p[is_valid] > 0).all()
    assert not p[~is_valid].any()


@pytest.mark.parametrize("name", ["systematic", "systematic0"])
@pytest.mark.parametrize("pattern", ["equal", "heavy", "one", "apart", "bad"])
def test_systematic_draws_follow_the_probabilities(name, pattern):
    """Each ``size * p`` times, rounded down or up, with the weight ``1 / (n p)``."""
    is_valid = MASKS["some"]
    indices, weights, p = draws(name, SCORES[pattern], is_valid)
    counts = SIZE * per_candidate(indices, np.ones(weights.shape))
    assert (np.abs(counts - SIZE * p) < 1 + 1e-6).all()
    assert_means(counts[:, p > 1e-6], SIZE * p[p > 1e-6], M)
    np.testing.assert_allclose(weights, 1 / (is_valid.sum() * p[indices]), rtol=1e-6)


def test_tickets_of_a_wide_pool_are_exact():
    """What is given as the probability is a count of tickets over their number."""
    m, size = 50_000, 1000
    scores = np.random.default_rng(0).exponential(size=m).astype(np.float32)
    select = jax.jit(adaptive.systematic(size, uniform=0.0))
    indices, weights, p = select(KEY, jnp.asarray(scores), jnp.ones(m, bool))
    tickets = np.asarray(p, np.float64) * 2**30
    np.testing.assert_allclose(tickets.sum() / 2**30, 1, rtol=1e-5)
    want = np.maximum(scores / scores.sum(dtype=float) * 2**30, 1)
    np.testing.assert_allclose(tickets, want, rtol=1e-5, atol=2)
    np.testing.assert_allclose(weights, 1 / (m * p[indices]), rtol=1e-6)


def test_inclusion_chances_of_priority():
    """Of two, one place: ``P(p/u > q/v) = 1 - q / (2 p)`` for ``p >= q``. Of equal
    ones, ``size / n``.
    """
    is_valid = np.isin(np.arange(M), [2, 7])
    scores = np.where(np.arange(M) == 2, 3, 1).astype(np.float32)
    select = adaptive.priority(1, uniform=0.0)
    indices, weights, _ = select_many(select, KEYS[0], scores, is_valid)
    assert_means(np.asarray(indices) == 2, np.array([1 - 1 / 6]))
    assert (np.asarray(weights) >= 0.5).all()
    indices, _, _ = draws("priority", SCORES["equal"], MASKS["some"])
    chosen = per_candidate(indices, np.full(indices.shape, SIZE))
    assert_means(chosen, SIZE * MASKS["some"] / MASKS["some"].sum())


@pytest.mark.parametrize("name", ["priority", "priority0"])
@pytest.mark.parametrize("pattern", SCORES)
def test_priority_chooses_none_twice(name, pattern):
    indices, weights, _ = draws(name, SCORES[pattern], MASKS["some"], 500)
    assert (np.diff(np.sort(indices), axis=1) > 0).all()
    assert (indices < M).all()
    assert (weights > 0).all()


def test_weights_of_priority_are_those_of_the_paper():
    """``max(p, t) / p`` with ``t`` the next priority; all ``u`` are at most 1."""
    indices, weights, p = draws("priority", HEAVY, MASKS["all"], 300)
    t = (weights * M / SIZE * p[indices]).min(axis=1, keepdims=True)
    n_p = np.maximum(p[indices], t)
    is_above = weights > SIZE / M * (1 + 1e-6)
    np.testing.assert_allclose(
        np.where(is_above, weights * M / SIZE * p[indices], n_p), n_p, rtol=1e-5
    )


def test_equal_scores_are_a_plain_sample_in_systematic():
    indices, weights, _ = draws("systematic", SCORES["equal"], MASKS["some"], 500)
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    assert (np.diff(np.sort(indices), axis=1) > 0).all()


def test_any_two_candidates_may_meet():
    """A random order: neighbours too, and first places are no different from others."""
    indices, _, _ = draws("systematic", SCORES["equal"], MASKS["all"])
    together = per_candidate(indices, np.full(indices.shape, SIZE))
    pairs = together.T @ together
    chance = SIZE * (SIZE - 1) / (M * (M - 1)) * NUM_KEYS
    off = pairs[~np.eye(M, dtype=bool)]
    assert np.abs(off - chance).max() < 5 * np.sqrt(chance)
    counts = np.bincount(indices[:, 0], minlength=M)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_weights_are_bounded_by_the_uniform_share():
    for pattern in SCORES.values():
        _, weights, _ = draws("systematic", pattern, MASKS["all"], 100)
        assert weights.max() <= 10 * (1 + 1e-5)


def test_scores_reduce_the_variance():
    """Of losses like the scores: chosen in proportion, their mean is nearly known."""
    losses = HEAVY * (1 + 0.05 * RNG.normal(size=M))
    variances = {}
    for name in UNBIASED:
        for pattern in ("equal", "heavy"):
            indices, weights, _ = draws(name, SCORES[pattern], MASKS["all"], 4000)
            estimates = per_candidate(indices, weights) @ losses
            variances[name, pattern] = estimates.var()
        assert variances[name, "heavy"] < variances[name, "equal"] / 4


def test_systematic_knows_what_all_have_in_common():
    """Losses of one sign: the mean of the weights is right in every batch. Priority
    sampling of equal scores has a common factor, a Gamma variable's inverse.
    """
    losses = 10 + HEAVY
    of = {}
    for name in ("priority", "systematic"):
        indices, weights, _ = draws(name, SCORES["equal"], MASKS["all"], 4000)
        of[name] = (per_candidate(indices, weights) @ losses).var()
    assert of["systematic"] < HEAVY.var() / SIZE
    assert of["priority"] > 5 * of["systematic"]


# ---- small pools --------------------------------------------------------------------


@every
@pytest.mark.parametrize("valid", [[3], [0, 23], [1, 4, 5, 9, 11, 17]])
@pytest.mark.parametrize("pattern", ["heavy", "zero", "one", "bad"])
def test_a_pool_that_fits_is_chosen_whole(name, valid, pattern):
    is_valid = np.isin(np.arange(M), valid)
    indices, weights, p = draws(name, SCORES[pattern], is_valid, 20)
    for row, w in zip(indices, weights, strict=True):
        assert sorted(row[row < M]) == valid
        np.testing.assert_allclose(w[row < M], SIZE / len(valid), rtol=1e-6)
        assert not w[row == M].any()
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)


@every
def test_an_empty_pool_is_padding(name):
    indices, weights, p = draws(name, HEAVY, np.zeros(M, bool), 5)
    assert (indices == M).all()
    assert not weights.any()
    assert not p.any()


@every
@pytest.mark.parametrize("m", [0, 3, SIZE])
def test_pools_of_any_size(name, m):
    scores, is_valid = jnp.arange(m, dtype=jnp.float32), jnp.ones(m, bool)
    indices, weights, p = SELECTORS[name](KEY, scores, is_valid)
    assert indices.shape == weights.shape == (SIZE,)
    assert p.shape == (m,)
    if m <= SIZE:
        assert sorted(indices.tolist()) == [*range(m)] + (SIZE - m) * [m]
        np.testing.assert_allclose(np.sum(weights), SIZE * (m > 0), rtol=1e-6)


# ---- the biased one -----------------------------------------------------------------


def test_top_takes_the_best_and_weighs_them_alike():
    indices, weights, p = draws("top", HEAVY, MASKS["some"], 10)
    order = np.argsort(-np.where(MASKS["some"], HEAVY, -1))[:SIZE]
    np.testing.assert_array_equal(indices, np.tile(order, (10, 1)))
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    np.testing.assert_allclose(p[order], 1 / SIZE, rtol=1e-6)


def test_top_breaks_ties_at_random():
    indices, _, _ = draws("top", SCORES["equal"], MASKS["all"])
    chosen = per_candidate(indices, np.full(indices.shape, SIZE))
    assert_means(chosen, np.full(M, SIZE / M))


# ---- gradients ----------------------------------------------------------------------


def loss_of(params, x, y):
    w, v = params
    return jnp.square(jnp.tanh(x @ w) @ v - y)


@pytest.mark.parametrize("name", ["priority", "systematic"])
def test_the_weighted_gradient_is_that_of_all(name):
    """Of a network with one hidden layer, every coordinate."""
    keys = jax.random.split(jax.random.key(7), 4)
    x, y = jax.random.normal(keys[0], (M, 3)), jax.random.normal(keys[1], (M,))
    params = jax.random.normal(keys[2], (3, 4)), jax.random.normal(keys[3], (4,))
    is_valid = jnp.asarray(MASKS["some"])
    scores = loss_of(params, x, y)

    def gradient(key):
        selection = SELECTORS[name](key, scores, is_valid)
        x_, y_ = adaptive.take_selected((x, y), selection)
        mean = lambda p: jnp.mean(selection.weights * loss_of(p, x_, y_))  # noqa: E731
        grads = jax.grad(mean)(params)
        return jnp.concatenate([g.ravel() for g in grads])

    gradients = jax.jit(jax.vmap(gradient))
    got = np.concatenate([gradients(keys) for keys in KEYS]).astype(np.float64)
    full = jax.grad(lambda p: jnp.mean(loss_of(p, x[is_valid], y[is_valid])))(params)
    assert_means(got, np.concatenate([np.asarray(g, float).ravel() for g in full]))


@every
def test_scores_are_constants_to_gradients(name):
    def of_weights(scores):
        selection = SELECTORS[name](KEY, scores, jnp.ones(M, bool))
        return selection.weights @ adaptive.take_selected(scores**0, selection)

    scores = jnp.asarray(HEAVY, jnp.float32)
    assert not jax.grad(of_weights)(scores).any()
    assert not jax.grad(jax.checkpoint(of_weights))(scores).any()


# ---- transformations ----------------------------------------------------------------


@every
def test_vmap_scan_and_shard_map_are_a_loop(name):
    keys = jax.random.split(jax.random.key(4), 2)
    scores = jnp.asarray(np.stack([HEAVY, BAD]), jnp.float32)
    args = keys, scores, jnp.asarray(np.stack([MASKS["all"], MASKS["some"]]))
    one = SELECTORS[name]

    def on_devices(*args):
        own = one(*(a[0] for a in args))
        return jax.tree.map(lambda out: out[None], own)

    mesh, spec = Mesh(np.array(jax.devices()[:2]), ("i",)), PartitionSpec("i")
    sharded = jax.shard_map(on_devices, mesh=mesh, in_specs=spec, out_specs=spec)
    loop = [jax.jit(one)(*(a[i] for a in args)) for i in range(2)]
    want = jax.tree.map(lambda *parts: jnp.stack(parts), *loop)
    scanned = jax.jit(lambda: jax.lax.scan(lambda _, a: (None, one(*a)), None, args)[1])
    for got in (jax.vmap(one)(*args), scanned(), jax.jit(sharded)(*args)):
        np.testing.assert_array_equal(got.indices, want.indices)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), got, want)


@every
def test_a_key_or_scores_that_all_shards_share(name):
    """Shards that differ in only one of their arguments."""
    mesh, i, all_ = (
        Mesh(np.array(jax.devices()[:2]), ("i",)),
        *map(PartitionSpec, ("i", None)),
    )
    scores = jnp.asarray(HEAVY, jnp.float32)
    keys = jax.random.split(KEY, 2)

    def own(keys, scores):
        out = SELECTORS[name](keys[0], scores, jnp.ones(scores.shape, bool))
        return out.indices, out.weights

    for key, shared in ((keys, all_), (keys[:1], i)):
        specs = (i, all_) if shared == all_ else (PartitionSpec(), i)
        run = jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=i)
        indices, _ = jax.jit(run)(key, scores)
        assert indices.shape == (2 * SIZE,)


@every
def test_x64_and_strict_promotion_change_nothing(name):
    want = SELECTORS[name](KEY, jnp.asarray(BAD, jnp.float32), jnp.ones(M, bool))
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        scores = jnp.asarray(BAD, jnp.float32)
        got = jax.jit(SELECTORS[name])(KEY, scores, jnp.ones(M, bool))
        size = adaptive.effective_sample_size(got.weights)
    assert [x.dtype for x in got] == [jnp.int32, jnp.float32, jnp.float32]
    assert size.dtype == jnp.float32
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_allclose(got.weights, want.weights, rtol=1e-6)


@every
def test_no_step_of_it_is_a_nan(name):
    """Padding and pools that are empty divide by nothing."""
    with jax.debug_nans(True):
        for is_valid in (MASKS["some"], np.zeros(M, bool), np.arange(M) < 2):
            SELECTORS[name](KEY, jnp.asarray(ONE, jnp.float32), jnp.asarray(is_valid))


# ---- what else there is -------------------------------------------------------------


def test_mixed_is_its_definition():
    for pattern in SCORES.values():
        for uniform in (0.0, 0.3, 1.0):
            scores = jnp.asarray(pattern, jnp.float32)
            got = adaptive.mixed(scores, jnp.asarray(MASKS["some"]), uniform)
            want = oracle(pattern, MASKS["some"], uniform)
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-25)
    assert not adaptive.mixed(scores, jnp.zeros(M, bool), 0.1).any()


def test_effective_sample_size():
    for w in (HEAVY, 1e30 * HEAVY, 1e-30 * HEAVY, np.ones(M), np.eye(M)[3]):
        w32 = jnp.asarray(w, jnp.float32)
        got = adaptive.effective_sample_size(w32)
        np.testing.assert_allclose(got, w.sum() ** 2 / (w**2).sum(), rtol=1e-5)
    assert adaptive.effective_sample_size(jnp.zeros(3)) == 0
    assert adaptive.effective_sample_size(jnp.zeros(0)) == 0


def test_padding_takes_a_row_that_is_chosen():
    selection = Selection(jnp.array([2, 3]), jnp.array([1.0, 0.0]), jnp.ones(3) / 3)
    rows = {"a": jnp.arange(3.0), "b": jnp.arange(6).reshape(3, 2)}
    got = adaptive.take_selected(rows, selection)
    np.testing.assert_array_equal(got["a"], [2, 2])
    np.testing.assert_array_equal(got["b"], [[4, 5], [4, 5]])
    none = Selection(jnp.array([3, 3]), jnp.zeros(2), jnp.zeros(3))
    np.testing.assert_array_equal(adaptive.take_selected(rows["a"], none), [0, 0])
    keys = jax.random.split(KEY, 3)
    assert (adaptive.take_selected(keys, none) == keys[2]).all()
    assert (adaptive.take_selected(keys, selection) == keys[2]).all()


SCORE, VALID = jnp.ones(4), jnp.ones(4, bool)
MISTAKES = [
    (lambda: adaptive.priority(0), ValueError, "priority: size must be at least 1"),
    (lambda: adaptive.systematic(2.5), TypeError, "size must be a static integer"),
    (lambda: adaptive.priority(2, uniform=1.5), ValueError, r"in \[0, 1\]; got 1.5"),
    (lambda: adaptive.priority(2, uniform=np.nan), ValueError, "uniform must be in"),
    (lambda: adaptive.top(2, biased=False), ValueError, "biased must be True.*Take"),
    (lambda: adaptive.top(2), TypeError, "biased"),
    (
        lambda: adaptive.priority(2)(KEY, jnp.ones(4, jnp.bfloat16), VALID),
        TypeError,
        r"priority: scores must be float32; got scores: bf16\[4\]",
    ),
    (lambda: adaptive.systematic(2)(KEY, SCORE, SCORE), TypeError, "must be bool"),
    (
        lambda: adaptive.top(2, biased=True)(KEY, SCORE, VALID[:3]),
        ValueError,
        r"is_valid must have one entry.*f32\[4\], is_valid: bool\[3\]",
    ),
    (lambda: adaptive.mixed(SCORE[None], VALID[None], 0.1), ValueError, "1 axes"),
    (
        lambda: adaptive.take_selected(
            jnp.ones(3), Selection(jnp.array([0]), SCORE[:1], SCORE)
        ),
        ValueError,
        r"M = 4 candidates.*got shape \(3,\)",
    ),
    (lambda: adaptive.effective_sample_size(VALID), TypeError, "must be float32"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
