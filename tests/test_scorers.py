"""Every scorer against a few lines of numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import adaptive, lsh
from fsparse.adaptive import Scorer

D, C, N, B, M = 5, 3, 20, 8, 16
KEY = jax.random.key(0)
FAMILY = lsh.simhash(jax.random.key(1), D, num_tables=16, num_bits=2)


def make_batch(seed, size):
    rng = np.random.default_rng(seed)
    return {
        "x": jnp.asarray(rng.standard_normal((size, D)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, C, size), jnp.int32),
        "index": jnp.asarray(rng.permutation(N)[:size], jnp.int32),
    }


def make_lessons(num=4, bad=False):
    """Batches with targets and weights; the last may be what nobody can learn."""
    for seed in range(num):
        rng = np.random.default_rng(100 + seed)
        targets = rng.exponential(size=B).astype(np.float32)
        weights = rng.choice([0.0, 1.0, 2.5], size=B).astype(np.float32)
        if bad:
            targets[:3], weights[:3] = [np.nan, np.inf, -np.inf], 1
            targets[3], weights[3] = np.nan, 0  # padding, which nobody counts
            weights[4] = np.nan
        yield make_batch(seed, B), targets, weights


def teach(scorer, lessons):
    state = scorer.init(KEY)
    for batch, targets, weights in lessons:
        encoded = scorer.encode(state, batch)
        state = jax.jit(scorer.update)(
            state, encoded, jnp.asarray(targets), jnp.asarray(weights)
        )
    return state


def scores_of(scorer, state, batch, train_state=None):
    encoded = scorer.encode(state, batch)
    scores = scorer.score(state, encoded, train_state, batch)
    assert (scores.shape, scores.dtype) == ((len(batch["y"]),), jnp.float32)
    return np.asarray(scores)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def by_class(decay=0.995, prior=1.0):
    return adaptive.class_mean(lambda b: b["y"], C, decay=decay, prior=prior)


def by_index(**options):
    return adaptive.cache(lambda b: b["index"], N, **options)


def by_sketch(**options):
    return adaptive.sketched(
        FAMILY, lambda b: b["x"], lambda b: b["y"], num_slices=C, **options
    )


def by_kernel(capacity=64):
    return adaptive.exact_kernel(
        FAMILY, lambda b: b["x"], lambda b: b["y"], capacity=capacity
    )


STATEFUL = {
    "class_mean": by_class,
    "cache": by_index,
    "sketched": by_sketch,
    "exact_kernel": by_kernel,
}
every_state = pytest.mark.parametrize("make", STATEFUL.values(), ids=STATEFUL)


# ---- values -------------------------------------------------------------------------


def test_uniform():
    scorer = adaptive.uniform()
    assert (scores_of(scorer, scorer.init(KEY), make_batch(0, M)) == 1).all()


@pytest.mark.parametrize(("decay", "prior"), [(0.9, 1.0), (1.0, 0.25)])
def test_class_mean(decay, prior):
    scorer = by_class(decay, prior)
    total, count = np.zeros(C), np.zeros(C)
    for batch, targets, weights in make_lessons():
        total, count = decay * total, decay * count
        np.add.at(total, batch["y"], np.float64(weights) * targets)
        np.add.at(count, batch["y"], weights)
    wanted = (total + prior * total.sum() / count.sum()) / (count + prior)
    batch = make_batch(9, M)
    close(scores_of(scorer, teach(scorer, make_lessons()), batch), wanted[batch["y"]])
    assert (scores_of(scorer, scorer.init(KEY), batch) == 0).all()


def test_class_mean_of_labels_out_of_range():
    scorer = by_class(decay=1.0)
    state = teach(scorer, make_lessons())
    strange = jnp.array([-1, C, 2**31 - 1], jnp.int32)
    mean = np.sum(state.totals) / np.sum(state.counts)
    close(scorer.score(state, strange, None, None), np.full(3, mean))
    after = scorer.update(state, strange, jnp.ones(3), jnp.ones(3))
    np.testing.assert_array_equal(after.totals, state.totals)
    assert after.num_ignored == 3


def test_class_mean_goes_on_counting_beyond_two_to_the_24():
    scorer = by_class(decay=1.0)
    full = jnp.full(C, 2.0**24)
    state = scorer.init(KEY)._replace(counts=full, totals=full)
    labels = jnp.zeros(1, jnp.int32)
    for _ in range(3):
        before = state
        state = scorer.update(state, labels, jnp.full(1, 2.0), jnp.ones(1))
    assert state.counts[0] == before.counts[0] + 1
    assert state.totals[0] == before.totals[0] + 2


@pytest.mark.parametrize("initial", [None, 3.0])
def test_cache(initial):
    scorer = by_index(initial=initial, decay=0.9)
    last, total, count = np.full(N, np.nan), 0.0, 0.0
    for batch, targets, weights in make_lessons():
        for i, target, weight in zip(batch["index"], targets, weights, strict=True):
            last[i] = target if weight > 0 else last[i]
        total = 0.9 * total + np.sum(np.float64(weights) * targets)
        count = 0.9 * count + np.sum(weights)
    unseen = total / count if initial is None else initial
    assert np.isnan(last).any()
    wanted = np.where(np.isnan(last), unseen, last)
    batch = make_batch(9, M)
    close(
        scores_of(scorer, teach(scorer, make_lessons()), batch), wanted[batch["index"]]
    )
    close(scores_of(scorer, scorer.init(KEY), batch), initial or 0)


def test_cache_of_indices_out_of_range():
    scorer = by_index(initial=3.0)
    strange = jnp.array([-1, N, 0], jnp.int32)
    state = scorer.init(KEY)
    state = scorer.update(state, strange, jnp.array([5.0, 6.0, 7.0]), jnp.ones(3))
    close(scorer.score(state, strange, None, None), [3, 3, 7])
    assert state.num_ignored == 2


def test_exact():
    scorer = adaptive.exact(lambda w, batch: jnp.abs(batch["x"] @ w))
    batch, w = make_batch(0, M), jnp.arange(D, dtype=jnp.float32)
    wanted = np.abs(np.asarray(batch["x"], np.float64) @ np.arange(D))
    close(scores_of(scorer, scorer.init(KEY), batch, w), wanted)
    gradient = jax.grad(lambda w: jnp.sum(scorer.score((), (), w, batch)))(w)
    assert (gradient == 0).all()


@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("explore", [0.0, 0.5])
def test_sketched(decay, explore):
    """Sums over the examples whose code agrees, table by table."""
    scorer, prior = by_sketch(decay=decay, explore=explore), 1.0
    lessons, batch = list(make_lessons()), make_batch(9, M)
    of = lambda name: np.concatenate([np.asarray(b[name]) for b, _, _ in lessons])  # noqa: E731
    age = np.repeat(np.arange(len(lessons))[::-1], B)
    w = np.concatenate([w for _, _, w in lessons]) * decay**age
    t = np.concatenate([t for _, t, _ in lessons]).astype(np.float64)
    mean = np.sum(w * t) / np.sum(w)
    codes = np.asarray(lsh.codes(FAMILY, jnp.asarray(of("x"))))
    asked = np.asarray(lsh.codes(FAMILY, batch["x"]))
    wanted = []
    for code, y in zip(asked, np.asarray(batch["y"]), strict=True):
        own = w * (of("y") == y)
        mu = (np.sum(own * t) + prior * mean) / (np.sum(own) + prior)
        hits = codes == code  # [n, tables]
        c, s = own @ hits, (own * t) @ hits
        f = (np.mean(s) + prior * mu) / (np.mean(c) + prior)
        wanted.append(f + explore * abs(f) / np.sqrt(1 + np.mean(c)))
    got = scores_of(scorer, teach(scorer, lessons), batch)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("capacity", [64, 5])
def test_exact_kernel(capacity):
    """The last examples that count, in float64; more in a batch than there is room."""
    scorer = by_kernel(capacity)
    kept = [
        (np.asarray(batch["x"][i], np.float64), int(batch["y"][i]), t, w)
        for batch, targets, weights in make_lessons()
        for i, (t, w) in enumerate(zip(targets, weights, strict=True))
        if w > 0
    ][-capacity:]
    x, y, t, w = (np.array(column) for column in zip(*kept, strict=True))
    batch, unit = make_batch(9, M), lambda a: a / np.linalg.norm(a, axis=1)[:, None]
    cosine = unit(np.asarray(batch["x"], np.float64)) @ unit(x).T
    kernel = (1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi) ** 2
    own = w * (np.asarray(batch["y"])[:, None] == y)
    mean = (own @ t + np.sum(w * t) / np.sum(w)) / (np.sum(own, axis=1) + 1)
    wanted = ((own * kernel) @ t + mean) / (np.sum(own * kernel, axis=1) + 1)
    got = scores_of(scorer, teach(scorer, make_lessons()), batch)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_sparse_keys_are_those_of_their_dense_form():
    batch = make_batch(0, M)
    every = jnp.broadcast_to(jnp.arange(D, dtype=jnp.int32), (M, D))
    dense, sparse = (
        adaptive.exact_kernel(FAMILY, key_of, capacity=4)
        for key_of in (lambda b: b["x"], lambda b: lsh.SparseRows(every, b["x"]))
    )
    one, two = (s.encode(s.init(KEY), batch).rows for s in (dense, sparse))
    np.testing.assert_array_equal(one, two)


def test_excess():
    train, held_out = by_class(), list(make_lessons(2))
    holdout = teach(train, held_out)
    scorer = adaptive.excess(train, holdout)
    lessons, batch = list(make_lessons(4))[2:], make_batch(9, M)
    state = teach(scorer, lessons)
    ours = scores_of(train, teach(train, lessons), batch)
    rest = scores_of(train, holdout, batch)
    assert (ours < rest).any()
    assert (ours > rest).any()
    close(scores_of(scorer, state, batch), np.maximum(ours - rest, 0))
    np.testing.assert_array_equal(state.holdout.totals, holdout.totals)


# ---- what nobody can learn ----------------------------------------------------------


@every_state
def test_what_is_not_finite_is_ignored_and_counted(make):
    scorer, (lesson,) = make(), make_lessons(1, bad=True)
    batch, targets, weights = lesson
    state = teach(scorer, [lesson])
    assert state.num_ignored == 4  # three targets and a weight, but not the padding
    ok = np.isfinite(targets) & np.isfinite(weights)
    clean = np.where(ok, targets, 0), np.where(ok, weights, 0)
    pool = make_batch(9, M)
    alone = scores_of(scorer, teach(scorer, [(batch, *clean)]), pool)
    np.testing.assert_array_equal(scores_of(scorer, state, pool), alone)
    assert np.isfinite(alone).all()


@every_state
def test_no_lesson_changes_no_score(make):
    scorer = make()
    batch, targets, weights = next(make_lessons(1))
    before = teach(scorer, [(batch, targets, weights)])
    after = teach(scorer, [(batch, targets, weights), (batch, targets, 0 * weights)])
    if make in (by_index, by_kernel):  # the others forget a little of what they know
        pool = make_batch(9, M)
        close(scores_of(scorer, after, pool), scores_of(scorer, before, pool))


@every_state
def test_rows_that_are_not_finite_have_finite_scores(make):
    scorer = make()
    pool = make_batch(9, M)
    pool["x"] = pool["x"].at[0].set(jnp.nan)
    assert np.isfinite(scores_of(scorer, teach(scorer, make_lessons(1)), pool)).all()


# ---- mistakes -----------------------------------------------------------------------

WRONG = {
    "classes": (lambda: adaptive.class_mean(len, 0), ValueError, "num_classes must"),
    "decay": (lambda: by_class(decay=0.0), ValueError, "decay must be above 0"),
    "decay above 1": (lambda: by_index(decay=1.1), ValueError, r"decay must be in \[0"),
    "prior": (lambda: by_class(prior=0.0), ValueError, "prior must be above 0"),
    "initial": (lambda: by_index(initial=np.nan), ValueError, "initial must be in"),
    "examples": (lambda: adaptive.cache(len, 0), ValueError, "num_examples must"),
    "family": (lambda: adaptive.sketched(3, len), TypeError, "family must be of type"),
    "slices": (
        lambda: adaptive.sketched(FAMILY, len, num_slices=2),
        ValueError,
        "label_of must be given",
    ),
    "explore": (lambda: by_sketch(explore=-1.0), ValueError, "explore must be in"),
    "capacity": (lambda: by_kernel(0), ValueError, "capacity must be at least 1"),
    "excess": (lambda: adaptive.excess(len, ()), TypeError, "train must be of type"),
}


@pytest.mark.parametrize(("make", "error", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["y", "index"])
def test_ids_of_another_type_are_refused(name):
    scorer = by_class() if name == "y" else by_index()
    batch = make_batch(0, M)
    batch[name] = batch[name].astype(jnp.float32)
    with pytest.raises(TypeError, match=rf"{name if name == 'index' else 'label'}_of"):
        scorer.encode(scorer.init(KEY), batch)


def test_exact_scores_of_another_shape_are_refused():
    scorer = adaptive.exact(lambda state, batch: batch["x"])
    with pytest.raises(ValueError, match=r"targets of target_fn must be f32\[16\]"):
        scorer.score((), (), None, make_batch(0, M))


def test_scorers_are_values():
    assert isinstance(by_class(), Scorer)


# ---- types --------------------------------------------------------------------------


def steps_of_all_kinds():
    def train_step(w, batch, weights):
        return w, jnp.abs(batch["x"][:, 0]), ()

    of_index, key_of = (lambda b: b["index"]), (lambda b: b["x"])
    scorers = [
        adaptive.uniform(),
        adaptive.exact(lambda w, batch: batch["x"][:, 0]),
        adaptive.excess(by_class(), by_class().init(KEY)),
        by_sketch(explore=0.1),
        *(make() for make in STATEFUL.values()),
    ]
    for scorer in scorers:
        for selector in (adaptive.priority(4), adaptive.infobatch(4)):
            yield adaptive.adaptive_step(train_step, scorer, selector, warmup=1)
    options = {"size": M, "tau": 0.5, "frozen": True}
    yield adaptive.paper_step(train_step, FAMILY, key_of, **options)
    yield adaptive.infobatch_step(train_step, of_index, N, size=M, num_calls=8)


def test_types_stay_with_64_bits_and_without_promotion():
    """Nothing is run: the types are known from tracing."""
    batch = make_batch(0, M)
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        for wrapped in steps_of_all_kinds():
            pool = [batch] if isinstance(wrapped, adaptive.ThresholdStep) else []
            state = jax.eval_shape(wrapped.init, KEY, jnp.float32(0), *pool)
            new, _ = jax.eval_shape(wrapped.step, state, batch)
            assert new == state
        scores = jnp.ones(M, jnp.float32)
        weights = adaptive.infobatch_epoch(KEY, scores, jnp.int32(1), 8)
        assert weights.dtype == jnp.float32


@pytest.mark.parametrize(("target", "weight"), [(3e38, 2.0), (1.0, 1e30)])
def test_huge_targets_and_weights_are_ignored_and_counted(target, weight):
    scorer = adaptive.class_mean(lambda batch: batch, 2)
    labels = jnp.array([0, 1])
    state = scorer.update(
        scorer.init(jax.random.key(0)),
        labels,
        jnp.array([target, 1.0]),
        jnp.array([weight, 1.0]),
    )
    assert state.num_ignored == 1
    np.testing.assert_allclose(scorer.score(state, labels, None, labels), 1)
