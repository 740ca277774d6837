"""The variance that scores save: estimated from what was chosen, and exactly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import adaptive
from fsparse.adaptive import Selection

M, SIZE, NUM_KEYS = 40, 8, 4000
KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
NORMS = np.exp(RNG.normal(size=M)).astype(np.float32)
VALID = np.arange(M) % 4 != 1
SCORES = {
    "good": NORMS * np.exp(0.3 * RNG.normal(size=M)).astype(np.float32),
    "bad": 1 / NORMS,
    "equal": np.ones(M, np.float32),
}


def exact(p):
    """Ratio of the second moments of a gradient of one example."""
    g, p = NORMS[VALID].astype(float), np.asarray(p, float)[VALID]
    return np.mean(g**2) / np.mean(g**2 / (VALID.sum() * p))


def moments(select, follow):
    """Means over many selections of the two second moments, and their errors."""
    p = adaptive.mixed(jnp.asarray(SCORES[select]), jnp.asarray(VALID), 0.1)
    scores = p if follow else jnp.ones(M)
    selectors = [adaptive.systematic(SIZE, uniform=0.0), adaptive.priority(SIZE)]

    def one(key, selector):
        selection = selector(key, scores, jnp.asarray(VALID))
        norms = adaptive.take_selected(jnp.asarray(NORMS), selection)
        gain = adaptive.gain_init()
        return adaptive.gain_update(gain, selection, norms, p, rate=1.0)

    keys = jax.random.split(KEY, NUM_KEYS)
    for selector in selectors:
        run = jax.jit(jax.vmap(partial(one, selector=selector)))
        yield p, jax.tree.map(lambda a: np.asarray(a, float), run(keys))


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("scores", SCORES)
def test_both_moments_are_estimated_without_bias(scores, follow):
    """Whether the scores are followed or watched, by either selector."""
    for p, gain in moments(scores, follow):
        g, q = NORMS[VALID].astype(float), np.asarray(p, float)[VALID]
        for got, want in (
            (gain.uniform, np.mean(g**2)),
            (gain.scores, np.mean(g**2 / (VALID.sum() * q))),
        ):
            error = np.std(got) / np.sqrt(NUM_KEYS)
            assert abs(got.mean() - want) < 4 * error + 1e-5 * want
        got = gain.uniform.mean() / gain.scores.mean()
        assert abs(got / exact(p) - 1) < 0.1


def test_it_is_the_ratio_of_the_variances():
    """Of independent draws, by ``p`` and uniformly, of gradients around zero."""
    p = np.asarray(adaptive.mixed(jnp.asarray(SCORES["good"]), jnp.asarray(VALID), 0.1))
    signs = RNG.choice([-1, 1], (20_000, 2))
    n = VALID.sum()
    by_scores = RNG.choice(M, 20_000, p=p.astype(float) / p.sum(dtype=float))
    uniform = RNG.choice(np.flatnonzero(VALID), 20_000)
    one = signs[:, 0] * NORMS[by_scores] / (n * p[by_scores])
    other = signs[:, 1] * NORMS[uniform]
    assert abs(other.var() / one.var() / exact(p) - 1) < 0.15


def chosen(indices, weights):
    p = jnp.full(3, 1 / 3)
    return Selection(jnp.array(indices, jnp.int32), jnp.array(weights, jnp.float32), p)


P = jnp.array([0.5, 0.3, 0.2])


def test_the_averages_are_exponential():
    gain, want = adaptive.gain_init(), np.zeros(2)
    for step in range(5):
        g = np.array([1.0 + step, 2.0])
        selection = chosen([0, 2], [1.5, 0.5])
        gain = adaptive.gain_update(gain, selection, jnp.float32(g), P, rate=0.3)
        wg = np.array([1.5, 0.5]) * g**2
        new = [wg.mean(), (wg / (3 * np.array([0.5, 0.2]))).mean()]
        want = 0.7 * want + 0.3 * np.array(new)
    np.testing.assert_allclose([gain.uniform, gain.scores], want, rtol=1e-5)
    got = adaptive.variance_reduction(gain)
    np.testing.assert_allclose(got, want[0] / want[1], rtol=1e-5)


def test_padding_does_not_count():
    """A pool of one in a batch of two has the weights 2 and 0."""
    gain = adaptive.gain_update(
        adaptive.gain_init(),
        chosen([1, 3], [2.0, 0.0]),
        jnp.array([3.0, jnp.nan]),
        jnp.array([0.0, 1.0, 0.0]),
        rate=1.0,
    )
    np.testing.assert_allclose([gain.uniform, gain.scores], 9, rtol=1e-6)
    assert gain.num_ignored == 0


def test_what_is_not_finite_is_left_out_and_counted():
    update = partial(adaptive.gain_update, rate=0.5)
    start = update(adaptive.gain_init(), chosen([0, 1], [1, 1]), jnp.ones(2), P)
    for bad in (jnp.nan, jnp.inf, -jnp.inf, 1e30):
        some = update(start, chosen([0, 1], [1, 1]), jnp.array([2.0, bad]), P)
        want = update(start, chosen([0, 0], [1, 1]), jnp.array([2.0, 2.0]), P)
        np.testing.assert_allclose(some[:2], want[:2], rtol=1e-6)
        assert some.num_ignored == 1
        none = update(start, chosen([0, 1], [1, 1]), jnp.array([bad, bad]), P)
        np.testing.assert_array_equal(none[:2], start[:2])
        assert none.num_ignored == 2


def test_an_empty_pool_and_targets_of_zero_say_nothing():
    nothing = adaptive.gain_update(
        adaptive.gain_init(), chosen([3, 3], [0, 0]), jnp.ones(2), jnp.zeros(3)
    )
    zero = adaptive.gain_update(nothing, chosen([0, 1], [1, 1]), jnp.zeros(2), P)
    for gain in (adaptive.gain_init(), nothing, zero):
        assert adaptive.variance_reduction(gain) == 1
        assert gain.num_ignored == 0


def test_transformations_and_types():
    gains = jax.tree.map(lambda a: jnp.stack([a, a]), adaptive.gain_init())
    selections = jax.tree.map(lambda a: jnp.stack([a, a]), chosen([0, 1], [1, 1]))
    targets = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    got = jax.jit(jax.vmap(adaptive.gain_update))(
        gains, selections, targets, jnp.stack([P, P])
    )
    for i in range(2):
        want = adaptive.gain_update(
            adaptive.gain_init(), chosen([0, 1], [1, 1]), targets[i], P
        )
        np.testing.assert_allclose(jax.tree.map(lambda a: a[i], got), want, rtol=1e-6)  # noqa: B023
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        wide = jax.jit(adaptive.gain_update)(
            adaptive.gain_init(), chosen([0, 1], [1, 1]), targets[0], P
        )
    assert [a.dtype for a in wide] == [a.dtype for a in adaptive.gain_init()]

    def of_targets(targets):
        selection = chosen([0, 1], [1, 1])
        gain = adaptive.gain_update(adaptive.gain_init(), selection, targets, P)
        return adaptive.variance_reduction(gain)

    assert not jax.grad(of_targets)(targets[0]).any()


update = partial(adaptive.gain_update, adaptive.gain_init(), chosen([0, 1], [1, 1]))
MISTAKES = [
    (lambda: update(jnp.ones(3), P), ValueError, r"target for each weight.*f32\[3\]"),
    (lambda: update(jnp.ones(2), P[:2]), ValueError, "probability for each candidate"),
    (lambda: update(jnp.ones(2, jnp.int32), P), TypeError, "targets must be float32"),
    (lambda: update(jnp.ones(2), P, rate=2.0), ValueError, "rate must be in"),
    (lambda: adaptive.variance_reduction(P), TypeError, "gain must be of type Gain"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
