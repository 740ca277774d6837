"""The wrapped step: what it does, and that it does it under every transformation."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import fsparse
from fsparse import Table, adaptive, lsh, rows, samplers
from fsparse.adaptive import adaptive_step

M, B, D, C = 32, 8, 4, 3  # candidates, chosen, coordinates, classes
FAMILY = lsh.simhash(jax.random.key(7), D, num_tables=8, num_bits=3)


# ---- a small model ------------------------------------------------------------------


class Model(NamedTuple):
    w: jax.Array  # f32[D, C]
    moments: object


OPTIMIZER = optax.adam(0.05)


def losses_of(w, batch):
    logits = batch["x"] @ w
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])


def train_step(model, batch, weights, average=lambda grads: grads):
    def loss_fn(w):
        losses = losses_of(w, batch)
        return jnp.mean(weights * losses), losses

    (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(model.w)
    updates, moments = OPTIMIZER.update(average(grads), model.moments)
    return Model(optax.apply_updates(model.w, updates), moments), losses, average(loss)


def make_model():
    w = jnp.zeros((D, C))
    return Model(w, OPTIMIZER.init(w))


def make_pool(seed, m=M):
    of_x, of_y = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(of_x, (m, D))
    flips = jax.random.bernoulli(of_y, 0.2, (m,))
    y = (jnp.argmax(x[:, :C], axis=1) + flips) % C
    return {"x": x, "y": y.astype(jnp.int32), "index": jnp.arange(m, dtype=jnp.int32)}


def make_scorer(name="sketched"):
    return {
        "uniform": adaptive.uniform,
        "class_mean": lambda: adaptive.class_mean(lambda b: b["y"], C),
        "cache": lambda: adaptive.cache(lambda b: b["index"], M),
        "exact": lambda: adaptive.exact(lambda model, b: losses_of(model.w, b)),
        "exact_kernel": lambda: adaptive.exact_kernel(
            FAMILY, lambda b: b["x"], lambda b: b["y"], capacity=16
        ),
        "sketched": lambda: adaptive.sketched(
            FAMILY, lambda b: b["x"], lambda b: b["y"], num_slices=C
        ),
    }[name]()


def make_step(name="sketched", step=train_step, selector=None, **options):
    selector = selector or adaptive.priority(B)
    return adaptive_step(step, make_scorer(name), selector, **options)


def assert_same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = map(data_of, (x, y))
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert x.tobytes() == y.tobytes()


def close(a, b):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), a, b)


def data_of(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


# ---- one step, by hand --------------------------------------------------------------


def test_a_step_is_the_composition_of_its_parts():
    scorer, selector = make_scorer(), adaptive.priority(B)
    init, step = adaptive_step(train_step, scorer, selector, min_gain=None)
    state, run = init(jax.random.key(0), make_model()), jax.jit(step)

    @jax.jit
    def by_hand(state, pool):
        encoded = scorer.encode(state.scorer, pool)
        scores = scorer.score(state.scorer, encoded, state.train, pool)
        key, of_choice = jax.random.split(state.key)
        chosen = selector(of_choice, scores, jnp.ones(M, bool))
        batch = jax.tree.map(lambda x: x[chosen.indices], pool)
        model, losses, loss = train_step(state.train, batch, chosen.weights)
        encoded = scorer.encode(state.scorer, batch)
        learnt = scorer.update(state.scorer, encoded, losses, chosen.weights)
        return key, chosen, model, learnt, loss

    for seed in range(3):
        pool, before = make_pool(seed), state
        state, info = run(before, pool)
        key, chosen, model, learnt, loss = by_hand(before, pool)
        np.testing.assert_array_equal(info.selection.indices, chosen.indices)
        np.testing.assert_allclose(info.selection.weights, chosen.weights, rtol=1e-5)
        close((state.train, state.scorer), (model, learnt))
        np.testing.assert_allclose(info.aux, loss, rtol=1e-5)
        assert bool(info.is_on)
        assert (data_of(state.key) == data_of(key)).all()
        size = np.sum(chosen.weights) ** 2 / np.sum(np.square(chosen.weights))
        np.testing.assert_allclose(info.effective_sample_size, size, rtol=1e-5)


def test_scan_is_the_loop():
    init, step = make_step(warmup=2, probe_every=3)
    state = init(jax.random.key(0), make_model())
    pools = jax.vmap(make_pool)(jnp.arange(6))
    scanned, infos = jax.jit(partial(jax.lax.scan, step))(state, pools)
    run = jax.jit(step)
    for i in range(6):
        state, info = run(state, jax.tree.map(lambda x, i=i: x[i], pools))
        of_scan = jax.tree.map(lambda x, i=i: x[i], infos)
        assert_same_bits(info.selection, of_scan.selection)
    close(scanned._replace(key=()), state._replace(key=()))


def test_vmap_over_seeds_is_the_loop():
    init, step = make_step(warmup=1, probe_every=2)
    keys = jax.random.split(jax.random.key(0), 3)
    pool = make_pool(0)

    def run(key):
        state = init(key, make_model())
        state, infos = jax.lax.scan(lambda s, _: step(s, pool), state, length=3)
        return state.train.w, infos.selection.indices

    many, one = jax.jit(jax.vmap(run))(keys), jax.jit(run)
    for i, key in enumerate(keys):
        w, indices = one(key)
        np.testing.assert_array_equal(many[1][i], indices)
        np.testing.assert_allclose(many[0][i], w, rtol=1e-4, atol=1e-6)


def test_gradients_go_through_a_step():
    """In hyper-parameters of the user's step; choices are constants."""

    def after(rate):
        def sgd_step(w, batch, weights):
            grads = jax.grad(lambda w: jnp.mean(weights * losses_of(w, batch)))(w)
            w = w - rate * grads
            return w, losses_of(w, batch), ()

        init, step = make_step("class_mean", sgd_step, min_gain=None)
        state = init(jax.random.key(0), jnp.zeros((D, C)))
        pools = jax.vmap(make_pool)(jnp.arange(2))
        state, _ = jax.lax.scan(step, state, pools)
        return jnp.mean(losses_of(state.train, make_pool(9)))

    rate, eps, after = jnp.float32(0.3), 1e-2, jax.jit(after)
    numeric = (after(rate + eps) - after(rate - eps)) / (2 * eps)
    np.testing.assert_allclose(jax.grad(after)(rate), numeric, rtol=0.05)


# ---- data parallel ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cache", "sketched"])
def test_devices_learn_what_all_of_them_learnt(name):
    """The scorer's state is that of one device that saw all the lessons."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    average = partial(jax.lax.pmean, axis_name="data")
    step = partial(train_step, average=average)
    init, split = make_step(name, step, min_gain=0.0, axis_name="data")
    state = init(jax.random.key(0), make_model())
    whole, parts = PartitionSpec(), PartitionSpec("data")
    of_info = adaptive.AdaptiveInfo(whole, parts, whole, whole, whole)
    specs = {"in_specs": (whole, parts), "out_specs": (whole, of_info)}
    run = jax.jit(jax.shard_map(split, mesh=mesh, **specs))
    scorer = make_scorer(name)
    alone = scorer.init(jax.random.key(0))
    for seed in range(3):
        pool, before = make_pool(seed), state
        state, info = jax.block_until_ready(run(before, pool))
        chosen = info.selection
        at = np.asarray(chosen.indices) + np.repeat([0, M // 2], B)
        batch = jax.tree.map(lambda x, at=at: x[at], pool)
        losses = losses_of(before.train.w, batch)
        encoded = scorer.encode(alone, batch)
        alone = scorer.update(alone, encoded, losses, chosen.weights)
        close(*jax.device_get((state.scorer, alone)))
    first, second = np.split(np.asarray(chosen.indices), 2)
    assert not np.array_equal(first, second)  # keys of their own


# ---- the switch ---------------------------------------------------------------------


def oracle(scores_of):
    """Scores that a batch carries."""
    return adaptive.exact(lambda train, batch: batch[scores_of])


def follow(state, batch, weights):
    return state, batch["norm"], ()


def make_norms(seed, quality):
    """Norms of gradients, a few large; scores that are they, or their inverse."""
    norm = jnp.exp(1.5 * jax.random.normal(jax.random.key(seed), (M,)))
    return {"norm": norm, "score": norm if quality == "useful" else 1 / norm}


def test_switch_goes_off_for_useless_scores_and_on_again():
    selector = adaptive.priority(B)
    options = {"min_gain": 1.0, "probe_every": 4}
    init, step = adaptive_step(follow, oracle("score"), selector, **options)
    run = jax.jit(step)
    state = init(jax.random.key(0), ())
    course = []
    for i in range(400):
        quality = "useless" if i < 100 else "useful"
        state, info = run(state, make_norms(i, quality))
        course.append(bool(info.is_on))
        if not info.is_on:  # a plain batch
            assert len(set(info.selection.indices.tolist())) == B
            np.testing.assert_allclose(info.selection.weights, 1, rtol=1e-6)
    assert course[0]  # nothing is known yet
    assert not any(course[20:100])
    assert all(course[350:])
    assert info.variance_reduction > 1.5


@pytest.mark.parametrize(("quality", "ends_on"), [("useful", True), ("useless", False)])
def test_scores_are_followed_once_a_probe_finds_a_gain(quality, ends_on):
    init, step = adaptive_step(
        follow, oracle("score"), adaptive.systematic(B), probe_every=3
    )
    run, state, course = jax.jit(step), init(jax.random.key(0), ()), []
    for i in range(30):
        state, info = run(state, make_norms(i, quality))
        course.append(bool(info.is_on))
    assert not course[0]  # nothing is known yet
    assert course[-1] == ends_on


def test_uniform_batches_may_be_the_first_candidates():
    init, step = adaptive_step(
        follow, oracle("score"), adaptive.systematic(B), when_off="first"
    )
    is_valid = jnp.arange(M) % 3 > 0
    state = init(jax.random.key(0), ())
    for seed in range(3):
        state, info = step(state, make_norms(seed, "useless"), is_valid)
        firsts = np.flatnonzero(is_valid)[:B]
        np.testing.assert_array_equal(info.selection.indices, firsts)
        np.testing.assert_allclose(info.selection.weights, 1, rtol=1e-6)
    few = jnp.arange(M) < 2
    _, info = step(state, make_norms(9, "useless"), few)
    np.testing.assert_array_equal(info.selection.indices, [0, 1] + [M] * (B - 2))
    np.testing.assert_allclose(info.selection.weights, [B / 2] * 2 + [0] * (B - 2))


def test_scores_are_not_evaluated_while_the_switch_is_off():
    calls = []

    def watched(train, batch):
        jax.debug.callback(lambda: calls.append(1))
        return batch["score"]

    init, step = adaptive_step(
        follow, adaptive.exact(watched), adaptive.priority(B), probe_every=5
    )
    run, state = jax.jit(step), init(jax.random.key(0), ())
    evaluated = []
    for i in range(60):
        calls.clear()
        state, info = run(state, make_norms(i, "useless"))
        jax.block_until_ready(state)
        jax.effects_barrier()
        evaluated.append(len(calls))
        assert len(calls) == int(bool(info.is_on) or i % 5 == 0)
    assert sum(evaluated[-20:]) == 4


def test_nothing_is_encoded_but_the_chosen_while_the_switch_is_off():
    """Hashing the candidates is the cost of a sketch."""
    sizes = []

    def key_of(batch):
        sizes.append(batch["x"].shape[0])
        return batch["x"]

    scorer = adaptive.sketched(FAMILY, key_of)
    init, step = adaptive_step(train_step, scorer, adaptive.priority(B))
    jax.make_jaxpr(step)(init(jax.random.key(0), make_model()), make_pool(0))
    assert sorted(set(sizes)) == [B, M]  # once in each branch


def test_warm_up_is_uniform_and_measures():
    init, step = adaptive_step(
        follow, oracle("score"), adaptive.priority(B), warmup=10, probe_every=2
    )
    run, state = jax.jit(step), init(jax.random.key(0), ())
    for i in range(12):
        state, info = run(state, make_norms(i, "useful"))
        assert bool(info.is_on) == (i >= 10)
        if i < 10:
            np.testing.assert_allclose(info.selection.weights, 1, rtol=1e-6)
    assert info.variance_reduction > 1


# ---- odd pools ----------------------------------------------------------------------


def test_empty_pool_trains_on_nothing_and_poisons_nothing():
    init, step = make_step(min_gain=None)
    run, state = jax.jit(step), init(jax.random.key(0), make_model())
    state, _ = run(state, make_pool(0))
    poison = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x,
        make_pool(1),
    )
    new, info = run(state, poison, jnp.zeros(M, bool))
    assert (info.selection.indices == M).all()
    assert (info.selection.weights == 0).all()
    assert info.effective_sample_size == 0
    assert np.isfinite(new.train.w).all()
    assert_same_bits(new.scorer.totals, state.scorer.totals)
    assert_same_bits(new.gain, state.gain)


def test_padding_of_a_batch_repeats_what_is_chosen():
    seen = []

    def watch(state, batch, weights):
        seen.append((batch["x"], weights))
        return state, batch["x"][:, 0], ()

    init, step = adaptive_step(watch, adaptive.uniform(), adaptive.priority(B))
    pool = make_pool(0)
    pool["x"] = pool["x"].at[3:].set(jnp.nan)
    step(init(jax.random.key(0), ()), pool, jnp.arange(M) < 3)
    x, weights = map(np.asarray, seen[-1])
    assert np.isfinite(x).all()
    assert (weights > 0).sum() == 3
    np.testing.assert_allclose(np.mean(weights), 1, rtol=1e-6)
    assert {row.tobytes() for row in x} == {
        row.tobytes() for row in np.asarray(pool["x"][:3])
    }


def test_targets_that_are_not_finite_teach_nothing():
    def broken(state, batch, weights):
        return state, jnp.where(batch["y"] == 0, jnp.nan, 1.0), ()

    init, step = make_step(step=broken, min_gain=None)
    state, info = jax.jit(step)(init(jax.random.key(0), ()), make_pool(0))
    num_bad = int((make_pool(0)["y"][info.selection.indices] == 0).sum())
    assert num_bad > 0
    assert state.scorer.num_ignored == num_bad
    assert state.gain.num_ignored == num_bad
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.scorer))


def test_keys_may_be_among_the_candidates():
    def noisy(state, batch, weights):
        noise = jax.vmap(jax.random.normal)(batch["key"])
        return state, noise, ()

    init, step = adaptive_step(noisy, adaptive.uniform(), adaptive.priority(B))
    pool = {"key": jax.random.split(jax.random.key(0), M)}
    _, info = jax.jit(step)(init(jax.random.key(0), ()), pool)
    assert info.selection.indices.shape == (B,)


# ---- checkpoints, types, mistakes ---------------------------------------------------


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path):
    init, step = make_step(warmup=1, probe_every=2)
    run, state = jax.jit(step), init(jax.random.PRNGKey(0), make_model())
    for seed in range(3):
        state, _ = run(state, make_pool(seed))
    fsparse.checkpoint.save(tmp_path / "run", state, {})
    again, _ = fsparse.checkpoint.load(tmp_path / "run", jax.eval_shape(lambda: state))
    for seed in range(3, 6):
        pool = make_pool(seed)
        (state, info), (again, same) = run(state, pool), run(again, pool)
        assert_same_bits((state, info), (again, same))


def test_a_step_is_traced_once_and_keeps_its_types():
    traces = []

    def counted(*args):
        traces.append(1)
        return train_step(*args)

    init, step = make_step(step=counted)
    run, state = jax.jit(step, donate_argnums=0), init(jax.random.key(0), make_model())
    for seed in range(3):
        types = jax.tree.map(jax.typeof, state)
        state, _ = run(state, make_pool(seed))
        assert types == jax.tree.map(jax.typeof, state)
    assert len(traces) == 1


def test_donated_state_leaves_the_scorer_usable():
    init, step = make_step()
    run = jax.jit(step, donate_argnums=0)
    for _ in range(2):  # the family is the scorer's own still
        run(init(jax.random.key(0), make_model()), make_pool(0))


def test_mistakes_are_told():
    ok = make_scorer(), adaptive.priority(B)
    with pytest.raises(TypeError, match="adaptive_step: scorer must be of type Scorer"):
        adaptive_step(train_step, train_step, ok[1])
    for bad in ({"warmup": -1}, {"probe_every": 0}, {"min_gain": -1.0}):
        with pytest.raises(ValueError, match=f"adaptive_step: {next(iter(bad))} must"):
            adaptive_step(train_step, *ok, **bad)
    with pytest.raises(ValueError, match=r"when_off must be one of .*; got 'last'"):
        adaptive_step(train_step, *ok, when_off="last")
    init, step = adaptive_step(train_step, *ok)
    state, pool = init(jax.random.key(0), make_model()), make_pool(0)
    with pytest.raises(ValueError, match="first axes are alike"):
        step(state, pool | {"y": pool["y"][1:]})
    with pytest.raises(ValueError, match=r"is_valid must be bool\[32\]"):
        step(state, pool, jnp.ones(M - 1, bool))
    with pytest.raises(TypeError, match="is_valid must be bool"):
        step(state, pool, jnp.ones(M))
    with pytest.raises(ValueError, match="at least 1 candidate; got 0"):
        step(state, jax.tree.map(lambda x: x[:0], pool))
    for targets, error in (
        (jnp.ones(B + 1), ValueError),
        (jnp.ones(B, int), TypeError),
    ):
        broken = adaptive_step(lambda s, b, w, t=targets: (s, t, ()), *ok)
        with pytest.raises(error, match="the targets of train_step must be"):
            broken.step(state, pool)


# ---- without bias -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exact", "sketched", "class_mean"])
def test_the_weighted_gradient_is_right_on_average(name):
    """End to end: a z-test over 4,000 draws of the first step after a few others."""
    pool, num_draws = make_pool(5), 4000

    def gradient(w, batch, weights):
        loss = lambda w: jnp.mean(weights * losses_of(w, batch))  # noqa: E731
        return w, losses_of(w, batch), jax.grad(loss)(w)

    def learn(w, batch, weights):
        _, losses, grads = gradient(w, batch, weights)
        return w - grads, losses, ()

    score_fn = adaptive.exact(losses_of)
    scorer = score_fn if name == "exact" else make_scorer(name)
    selector = adaptive.priority(B)
    init, step = adaptive_step(learn, scorer, selector, min_gain=None)
    state = init(jax.random.key(0), jnp.zeros((D, C)))
    for seed in range(10):
        state, _ = jax.jit(step)(state, make_pool(seed))
    _, look = adaptive_step(gradient, scorer, selector, min_gain=None)
    of_key = lambda key: look(state._replace(key=key), pool)[1].aux  # noqa: E731
    keys = jax.random.split(jax.random.key(1), num_draws)
    draws = np.asarray(jax.jit(jax.vmap(of_key))(keys), np.float64)
    whole = jax.grad(lambda w: jnp.mean(losses_of(w, pool)))(state.train)
    error = draws.std(axis=0) / np.sqrt(num_draws)
    z = (draws.mean(axis=0) - np.asarray(whole)) / error
    assert np.abs(z).max() < 4.2  # of 12 numbers: 3 in 10,000


# ---- tables in place ----------------------------------------------------------------

N, WIDTH, ACTIVE = 20_000, 64, 32
NEGATIVES = samplers.uniform(N)
TABLES = fsparse.multi_transform({"tables": rows.adam(0.01)})


def sparse_losses(params, key, batch):
    query = samplers.Query(batch["y"])
    active = fsparse.sample_active_set(NEGATIVES, key, query, size=ACTIVE)
    h = fsparse.embedding_bag(params["in"], batch["ids"])
    logits = fsparse.sampled_matmul(h, params["out"], active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)


def sparse_step(state, batch, weights):
    params, moments, key = state

    def loss_fn(params):
        losses = sparse_losses(params, key, batch)
        return jnp.mean(weights * losses), losses

    grad_fn = fsparse.value_and_grad(loss_fn, has_aux=True)
    (loss, losses), grads = grad_fn(params)
    params, moments = TABLES.step(params, moments, grads)
    return (params, moments, jax.random.fold_in(key, 1)), losses, loss


def sparse_state():
    tables = {name: Table(jnp.full((N, WIDTH), 0.01)) for name in ("in", "out")}
    return tables, TABLES.init(tables), jax.random.key(0)


def sparse_pool(seed):
    draw = partial(jax.random.randint, jax.random.key(seed), minval=0, maxval=N)
    ids, y = draw(shape=(M, 4)), draw(shape=(M, 1))
    return {"ids": ids, "y": y, "index": y[:, 0], "x": ids.astype(jnp.float32) / N}


SPARSE = {
    "exact": lambda: adaptive.exact(
        lambda state, batch: sparse_losses(state[0], state[2], batch)
    ),
    "cache": lambda: adaptive.cache(lambda batch: batch["index"], N * WIDTH),
    "sketched": lambda: adaptive.sketched(
        lsh.simhash(jax.random.key(1), 4, num_tables=64, num_bits=13),
        lambda batch: batch["x"],
        lambda batch: batch["index"],
        num_slices=2,
    ),
}


def wide(state):
    return [x for x in jax.tree.leaves(state) if x.nbytes >= N * WIDTH * 4]


def wide_copies(compiled, state):
    kinds = {f"f32[{','.join(map(str, x.shape))}]" for x in wide(state)}
    copies = [x for x in compiled.as_text().splitlines() if " copy(" in x]
    return [line for line in copies if any(kind in line for kind in kinds)]


PROGRAMS = [
    ("exact", {}, "jit"),
    ("exact", {"min_gain": None}, "scan"),
    ("cache", {}, "jit"),
    ("sketched", {}, "scan"),
    ("sketched", {"min_gain": None}, "jit"),
]


@pytest.mark.parametrize(("name", "options", "form"), PROGRAMS)
def test_donated_tables_stay_where_they_are(name, options, form):
    """Those of the model, which exact scores read, and those of the scorer."""
    init, step = adaptive_step(
        sparse_step, SPARSE[name](), adaptive.priority(B), **options
    )
    if form == "scan":
        one = step
        step = lambda state, pool: jax.lax.scan(  # noqa: E731
            lambda state, _: one(state, pool), state, length=3
        )
    run = jax.jit(step, donate_argnums=0)
    state = jax.block_until_ready(init(jax.random.key(0), sparse_state()))
    compiled = run.lower(state, sparse_pool(0)).compile()
    memory = compiled.memory_analysis()
    assert len(wide(state)) == 6 + (name != "exact")
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in wide(state))
    assert memory.temp_size_in_bytes < N * WIDTH * 4 / 4
    assert not wide_copies(compiled, state)
    before = [x.unsafe_buffer_pointer() for x in wide(state)]
    for seed in range(3):
        state, info = run(state, sparse_pool(seed))
        assert [x.unsafe_buffer_pointer() for x in wide(state)] == before
    assert np.isfinite(info.aux).all()
