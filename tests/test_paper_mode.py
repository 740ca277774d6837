"""The paper's mode and InfoBatch's rule, against simulations in plain Python."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import adaptive, lsh
from fsparse.adaptive import paper_step, threshold_step

M, SIZE, D, PROB = 12, 16, 4, 0.25
FAMILY = lsh.simhash(jax.random.key(3), D, num_tables=10, num_bits=3)


def make_pool(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((M, D)).astype(np.float32)
    y = (rng.random(M) < 0.2).astype(np.int32)
    index = np.arange(M, dtype=np.int32) + M * seed
    return {"x": jnp.asarray(x), "y": jnp.asarray(y), "index": jnp.asarray(index)}


def loss_of(batch):
    """Known to the simulation, and different on both sides of a plane."""
    return jnp.where(batch["x"][:, 0] > 0, 2.0, 0.5) + 0.1 * batch["y"]


def record(batches, batch, weights):
    losses = loss_of(batch)
    return batches + 1, losses, {"index": batch["index"], "weights": weights}


class Simulated:
    """Lists, a queue and two arrays of cells."""

    def __init__(self, tau, warmup, frozen):
        self.tau, self.warmup, self.frozen = tau, warmup, frozen
        self.sums = np.zeros((FAMILY.num_tables, FAMILY.num_buckets))
        self.counts = np.zeros_like(self.sums)
        self.queue, self.calls = deque(), 0

    def score(self, code):
        at = np.arange(len(code)), code
        s, c = self.sums[at].mean(), self.counts[at].mean()
        if c == 0:
            every = self.counts[0].sum()
            return self.sums[0].sum() / every if every else 0.0
        return s / c

    def must_keep(self, pool):
        """None where the score is too near to the threshold to tell."""
        if self.calls < self.warmup:
            return [True] * M
        scores = [self.score(code) for code in codes_of(pool["x"])]
        return [
            bool(y) or (None if abs(s - self.tau) < 1e-4 else s >= self.tau)
            for s, y in zip(scores, np.asarray(pool["y"]), strict=True)
        ]

    def step(self, pool, weights):
        """Takes the program's word for its draws, and for nothing else."""
        for i, (must, weight) in enumerate(
            zip(self.must_keep(pool), np.asarray(weights), strict=True)
        ):
            allowed = {True: [1], False: [0, 1 / PROB], None: [0, 1, 1 / PROB]}[must]
            assert weight in np.float32(allowed)
            if weight > 0:
                example = jax.tree.map(lambda x, i=i: np.asarray(x[i]), pool)
                self.queue.append((example, weight))
        batch = None
        if len(self.queue) >= SIZE:
            batch = [self.queue.popleft() for _ in range(SIZE)]
            if self.calls < self.warmup or not self.frozen:
                self.learn(batch)
        self.calls += 1
        return batch

    def learn(self, batch):
        for example, weight in batch:
            (loss,) = loss_of({k: v[None] for k, v in example.items()})
            at = np.arange(FAMILY.num_tables), codes_of(example["x"][None])[0]
            self.sums[at] += weight * float(loss)
            self.counts[at] += weight


def codes_of(x):
    return np.asarray(lsh.codes(FAMILY, jnp.asarray(x)))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_mode_is_its_simulation(frozen):
    init, step = paper_step(
        record,
        FAMILY,
        lambda batch: batch["x"],
        size=SIZE,
        tau=1.3,
        prob=PROB,
        always=lambda batch: batch["y"] == 1,
        warmup=6,
        frozen=frozen,
    )
    state, run = init(jax.random.key(0), jnp.int32(0), make_pool(0)), jax.jit(step)
    simulated, num_batches = Simulated(1.3, 6, frozen), 0
    lucky, unlucky = 0, 0
    for seed in range(60):
        pool = make_pool(seed)
        state, info = run(state, pool)
        batch = simulated.step(pool, info.weights)
        assert bool(info.is_trained) == (batch is not None)
        assert info.num_waiting == len(simulated.queue)
        if batch is not None:
            num_batches += 1
            wanted = [(int(e["index"]), float(w)) for e, w in batch]
            got = zip(
                *(info.aux[k].tolist() for k in ("index", "weights")), strict=True
            )
            assert list(got) == wanted
        lucky += int(np.sum(np.asarray(info.weights) == 1 / PROB))
        unlucky += int(np.sum(np.asarray(info.weights) == 0))
    assert state.train == num_batches > 20
    assert state.carry.num_dropped == 0
    cells = np.asarray(state.scorer.table)
    np.testing.assert_allclose(cells[..., 0], simulated.counts, rtol=1e-5)
    np.testing.assert_allclose(cells[..., 1], simulated.sums, rtol=1e-4)
    draws = lucky + unlucky
    z = (lucky - PROB * draws) / np.sqrt(draws * PROB * (1 - PROB))
    assert draws > 150
    assert abs(z) < 3.3


def scored(batch):
    return batch["score"]


def make_step(**options):
    defaults = {"size": 4, "tau": 1.0, "prob": PROB}
    scorer = adaptive.exact(lambda train, batch: scored(batch))
    return threshold_step(
        lambda w, batch, weights: (w + weights.sum(), scored(batch), weights),
        scorer,
        **(defaults | options),
    )


def test_everything_is_kept_at_first_and_at_the_end():
    init, step = make_step(warmup=2, until=5)
    low = {"score": jnp.zeros(4)}
    state, run = init(jax.random.key(1), jnp.float32(0), low), jax.jit(step)
    kept = []
    for _ in range(7):
        state, info = run(state, low)
        kept.append((np.asarray(info.weights) == 1).all())
    assert kept == [True, True, False, False, False, True, True]


def test_weights_are_right_on_average():
    """``sum(weights * loss)`` over what is kept, by a z-test over 4,000 draws."""
    pool = {"score": jnp.array([3.0, 0.2, 0.9, 1.0])}
    init, step = make_step()
    state = init(jax.random.key(0), jnp.float32(0), pool)
    of_key = lambda key: step(state._replace(key=key), pool)[1].weights  # noqa: E731
    weights = jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(2), 4000))
    draws = np.asarray(weights, np.float64) @ np.asarray(pool["score"], np.float64)
    z = (draws.mean() - 5.1) / (draws.std() / np.sqrt(len(draws)))
    assert abs(z) < 3.3


def test_scan_is_the_loop_and_padding_is_never_kept():
    init, step = make_step()
    scores = jnp.asarray(np.random.default_rng(0).exponential(size=(8, 4)), jnp.float32)
    pools, valid = {"score": scores}, scores < 2
    state = init(jax.random.key(1), jnp.float32(0), {"score": scores[0]})
    scanned, infos = jax.jit(lambda s: jax.lax.scan(lambda s, x: step(s, *x), s,
                                                    (pools, valid)))(state)  # fmt: skip
    run = jax.jit(step)
    for i in range(8):
        state, info = run(state, {"score": scores[i]}, valid[i])
        np.testing.assert_array_equal(info.weights, infos.weights[i])
        assert (info.weights[~valid[i]] == 0).all()
    assert (infos.weights == 0).any()
    assert scanned.train == state.train > 0
    assert scanned.carry.count == state.carry.count


def test_a_donated_queue_stays_where_it_is():
    init, step = make_step(size=512)
    wide = {"score": jnp.ones(512), "x": jnp.ones((512, 256))}
    run = jax.jit(step, donate_argnums=0)
    state = jax.block_until_ready(init(jax.random.key(0), jnp.float32(0), wide))
    where = state.carry.items[0]["x"].unsafe_buffer_pointer()
    for _ in range(3):
        state, info = run(state, wide)
        assert state.carry.items[0]["x"].unsafe_buffer_pointer() == where
        assert info.is_trained


def test_mistakes_are_told():
    pool = {"score": jnp.zeros(5)}
    init, step = make_step()
    with pytest.raises(ValueError, match="size must be at least the number of cand"):
        init(jax.random.key(0), jnp.float32(0), pool)
    state = init(jax.random.key(0), jnp.float32(0), {"score": jnp.zeros(4)})
    with pytest.raises(ValueError, match="size must be at least the number of cand"):
        step(state, pool)
    with pytest.raises(TypeError, match="scorer must be of type Scorer"):
        threshold_step(len, len, size=4, tau=1.0, prob=0.5)
    for bad in ({"size": 0}, {"warmup": -1}, {"until": -1}):
        with pytest.raises(ValueError, match=f"threshold_step: {next(iter(bad))} must"):
            make_step(**bad)


# ---- InfoBatch ----------------------------------------------------------------------


def test_an_epoch_leaves_out_a_share_of_what_is_easy():
    rng, n, r = np.random.default_rng(0), 20_000, 0.3
    scores = rng.exponential(size=n).astype(np.float32)
    scores[:100] = np.nan  # not seen yet
    run = jax.jit(
        adaptive.infobatch_epoch, static_argnums=3, static_argnames="prune_ratio"
    )
    weights = np.asarray(run(jax.random.key(0), scores, 3, 8, prune_ratio=r))
    easy = scores < np.nanmean(scores)
    assert (weights[~easy] == 1).all()
    kept = weights[easy] > 0
    np.testing.assert_allclose(weights[easy][kept], 1 / (1 - r), rtol=1e-6)
    z = (kept.sum() - (1 - r) * easy.sum()) / np.sqrt(easy.sum() * r * (1 - r))
    assert abs(z) < 3.3
    assert (run(jax.random.key(0), scores, 7, 8) == 1).all()  # the last eighth
    assert (run(jax.random.key(0), scores, 6, 8) == 0).any()


def test_a_stream_is_pruned_by_what_is_remembered():
    """Two passes over the data: the first knows nothing, the second prunes."""
    init, step = adaptive.infobatch_step(
        record,
        lambda batch: batch["index"],
        8 * M,
        size=M,
        num_calls=32,
        prune_ratio=0.5,
    )
    pools = [make_pool(seed) for seed in range(8)]
    state, run = init(jax.random.key(0), jnp.int32(0), pools[0]), jax.jit(step)
    known = np.full(8 * M, 3.0)
    for call in range(32):
        pool = pools[call % 8]
        scores = known[pool["index"]]
        state, info = run(state, pool)
        easy = (scores < scores.mean() - 1e-5) & (call < 28)
        assert (info.weights[~easy] == 1).all()
        assert set(np.asarray(info.weights)[easy].tolist()) <= {0.0, 2.0}
        if info.is_trained:
            known[info.aux["index"]] = loss_of(
                jax.tree.map(lambda *xs: jnp.concatenate(xs), *pools)
            )[info.aux["index"]]
    seen = np.isfinite(state.scorer.targets)
    np.testing.assert_allclose(known[seen], state.scorer.targets[seen], rtol=1e-6)
    assert seen.all()


def test_the_selector_gives_easy_candidates_their_share():
    select = adaptive.infobatch(8, prune_ratio=0.75)
    scores = jnp.arange(32.0)
    is_valid = jnp.arange(32) != 31
    run = jax.vmap(lambda key: select(key, scores, is_valid))
    chosen = jax.jit(run)(jax.random.split(jax.random.key(0), 4000))
    p = np.asarray(chosen.probabilities[0])
    np.testing.assert_allclose(p[15:31] / p[0], 4, rtol=1e-5)
    np.testing.assert_allclose(p[:15], p[0], rtol=1e-6)
    means = np.mean(
        np.asarray(chosen.weights * scores[chosen.indices], np.float64), axis=1
    )
    z = (means.mean() - 15) / (means.std() / np.sqrt(len(means)))
    assert abs(z) < 3.3


def test_ratios_out_of_range_are_refused():
    for ratio in (-0.1, 1.0):
        with pytest.raises(ValueError, match="infobatch: prune_ratio must be in"):
            adaptive.infobatch(4, prune_ratio=ratio)
    with pytest.raises(ValueError, match="infobatch_epoch: delta must be in"):
        adaptive.infobatch_epoch(jax.random.key(0), jnp.ones(3), 0, 1, delta=2.0)
    with pytest.raises(TypeError, match="infobatch_epoch: scores must be float32"):
        adaptive.infobatch_epoch(jax.random.key(0), jnp.ones(3, int), 0, 1)


def test_infobatch_keeps_all_where_scores_are_equal():
    """Whatever the rounding of their mean."""
    for n, score in ((7, 0.1), (512, 0.7), (1000, 0.7)):
        scores = jnp.full(n, score, jnp.float32)
        weights = adaptive.infobatch_epoch(jax.random.key(0), scores, 0, 8)
        np.testing.assert_array_equal(weights, 1)
