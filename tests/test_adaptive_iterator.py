"""Selection around a loader: what it yields, and that it resumes to the same bits."""

import itertools
import json
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fsparse import adaptive, lsh

N, M, SIZE, CLASSES = 23, 6, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (np.arange(N) % CLASSES).astype(np.int32)
LOSS = (0.1 + 3 * Y + RNG.random(N)).astype(np.float32)
FAMILY = lsh.simhash(jax.random.key(0), 4, num_tables=4, num_bits=3)


def take(indices):
    """The ids are in it, for the cache and for the tests."""
    return {"id": indices.astype(np.int32), "x": X[indices], "y": Y[indices]}


SCORERS = {
    "uniform": adaptive.uniform(),
    "class_mean": adaptive.class_mean(lambda batch: batch["y"], CLASSES),
    "cache": adaptive.cache(lambda batch: batch["id"], N),
    "exact": adaptive.exact(lambda scale, batch: scale * jnp.abs(batch["x"][:, 0])),
    "sketched": adaptive.sketched(
        FAMILY, lambda batch: batch["x"], lambda batch: batch["y"], num_slices=CLASSES
    ),
}
every = pytest.mark.parametrize("name", SCORERS)


def make(name, *, seed=3, num_epochs=None, size=SIZE, selector=adaptive.priority):
    pools = adaptive.Pools(take, N, M, seed=seed, num_epochs=num_epochs)
    return adaptive.AdaptiveIterator(
        pools, SCORERS[name], selector(size), seed=seed, train_state=jnp.float32(2)
    )


def run(batches, num_steps):
    """The course of a run that learns from each batch."""
    course = []
    for batch, weights in itertools.islice(batches, num_steps):
        course.append((batch["id"].tolist(), weights.tolist()))
        batches.update(LOSS[batch["id"]])
    return course


# ---- pools --------------------------------------------------------------------------


def test_each_example_once_an_epoch():
    pools = list(adaptive.Pools(take, N, M, seed=1, num_epochs=3))
    assert len(pools) == 3 * 4
    orders = []
    for epoch in range(3):
        part = pools[4 * epoch : 4 * epoch + 4]
        ids = [p.candidates["id"][p.is_valid] for p in part]
        orders.append(np.concatenate(ids).tolist())
        assert sorted(orders[-1]) == list(range(N))
        assert all(len(p.candidates["id"]) == M for p in part)
    assert orders[0] != orders[1] != orders[2]
    again = next(adaptive.Pools(take, N, M, seed=1)).candidates["id"]
    np.testing.assert_array_equal(again, pools[0].candidates["id"])
    other = next(adaptive.Pools(take, N, M, seed=2)).candidates["id"]
    assert (again != other).any()


@pytest.mark.parametrize("stop", [0, 2, 4, 5])
def test_pools_resume(stop):
    def ids(pools):
        return [pool.candidates["id"].tolist() for pool in pools]

    pools = adaptive.Pools(take, N, M, num_epochs=2)
    ids(itertools.islice(pools, stop))
    state = json.loads(json.dumps(pools.get_state()))
    other = adaptive.Pools(take, N, M, num_epochs=2)
    other.set_state(state)
    assert ids(other) == ids(pools)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 60),
    size=st.integers(1, 7),
    pool=st.integers(1, 5),
    seed=st.integers(0, 9),
    group=st.integers(0, 3),
)
def test_first_batches_meet_each_example_once_in_as_many_epochs(
    n, size, pool, seed, group
):
    met = []
    for epoch in range(group * pool, (group + 1) * pool):
        order = adaptive.pool_order(n, size, pool, seed=seed, epoch=epoch)
        assert sorted(order) == list(range(n))
        met += [i for at in range(0, n, size * pool) for i in order[at : at + size]]
    assert set(met) == set(range(n))
    if n % (size * pool) == 0:
        assert len(met) == n


def test_groups_of_epochs_have_orders_of_their_own():
    orders = [adaptive.pool_order(60, 3, 2, epoch=epoch) for epoch in range(4)]
    blocks = [o.reshape(-1, 2, 3) for o in orders]
    for even, odd in (blocks[:2], blocks[2:]):
        np.testing.assert_array_equal(even, odd[:, ::-1])
    assert (orders[0] != orders[2]).any()


def test_pools_begin_with_other_examples():
    pools = adaptive.Pools(lambda ids: ids, 24, 6, pool=3, num_epochs=3)
    firsts = [pool.candidates[:2] for pool in pools]
    assert sorted(np.concatenate(firsts)) == list(range(24))


def test_pools_larger_than_the_data():
    pool = next(adaptive.Pools(take, 2, 5, num_epochs=1))
    assert pool.is_valid.tolist() == [True, True, False, False, False]
    assert set(pool.candidates["id"].tolist()) == {0, 1}
    assert not list(adaptive.Pools(take, 2, 5, num_epochs=0))


# ---- batches ------------------------------------------------------------------------


def test_batches_are_rows_of_the_data():
    batches = make("class_mean", num_epochs=1)
    seen = []
    for batch, weights in batches:
        np.testing.assert_array_equal(batch["x"], X[batch["id"]])
        assert isinstance(batch["x"], np.ndarray)
        assert weights.dtype == np.float32
        seen += batch["id"][weights > 0].tolist()
    assert len(set(seen)) == len(seen) == 4 * SIZE


def test_padding_repeats_what_was_chosen():
    batches = make("uniform", num_epochs=1, size=5 * M)
    for batch, weights in batches:
        num_valid = (weights > 0).sum()
        assert num_valid == len(set(batch["id"].tolist()))
        np.testing.assert_allclose(weights[weights > 0], 5 * M / num_valid, rtol=1e-6)


def test_it_learns_which_class_is_hard():
    """Its mean losses are 0.6 and 3.6, so six of seven choices are of the second."""
    batches = make("class_mean", selector=adaptive.systematic)
    run(batches, 50)
    course = run(batches, 100)
    share = np.mean([i % 2 for ids, _ in course for i in ids])
    assert share > 0.65
    means = [np.dot(w, LOSS[ids]) / SIZE for ids, w in course]
    z = (np.mean(means) - LOSS.mean()) / (np.std(means) / 10)
    assert abs(z) < stats.norm.isf(0.5e-4)


def test_what_is_not_updated_is_not_learnt():
    batches = make("class_mean")
    start = batches.get_state()["scorer"]
    list(itertools.islice(batches, 3))
    jax.tree.map(np.testing.assert_array_equal, batches.get_state()["scorer"], start)


def test_typed_keys_of_a_scorer_are_saved():
    def score(key, encoded, train_state, batch):
        return jax.random.uniform(key, batch["id"].shape)

    scorer = adaptive.Scorer(
        lambda key: {"key": key},
        lambda state, batch: (),
        lambda state, *args: score(state["key"], *args),
        lambda state, *learnt: {"key": jax.random.fold_in(state["key"], 1)},
    )
    make = lambda seed: adaptive.AdaptiveIterator(  # noqa: E731
        adaptive.Pools(take, N, N), scorer, adaptive.priority(4), seed=seed
    )
    batches, other = make(0), make(0)
    batches.update(jnp.float32(next(batches)[1]))
    other.set_state(pickle.loads(pickle.dumps(batches.get_state())))
    np.testing.assert_array_equal(next(batches)[0]["id"], next(other)[0]["id"])


def test_scorers_see_the_model():
    """A model that says that all are alike but one."""
    scorer = adaptive.exact(lambda favourite, batch: 1.0 * (batch["id"] == favourite))
    pools = adaptive.Pools(take, N, N)
    select = adaptive.top(1, biased=True)
    batches = adaptive.AdaptiveIterator(pools, scorer, select, train_state=jnp.int32(4))
    assert next(batches)[0]["id"] == [4]
    batches.train_state = jnp.int32(7)
    assert next(batches)[0]["id"] == [7]


# ---- state --------------------------------------------------------------------------


@every
@pytest.mark.parametrize("stop", [0, 5])
def test_a_run_that_resumes_is_the_same(name, stop):
    batches = make(name)
    run(batches, stop)
    state = pickle.loads(pickle.dumps(batches.get_state()))
    want = run(batches, 6)
    other = make(name)
    run(other, 2)  # whatever it was before
    other.set_state(state)
    assert other.pending is None
    assert run(other, 6) == want
    a, b = other.get_state(), batches.get_state()
    jax.tree.map(np.testing.assert_array_equal, a, b)


@every
def test_a_run_may_stop_between_a_batch_and_its_update(name):
    batches = make(name)
    run(batches, 4)
    batch, weights = next(batches)
    state = pickle.loads(pickle.dumps(batches.get_state()))
    other = make(name)
    other.set_state(state)
    again, same_weights = other.pending
    jax.tree.map(np.testing.assert_array_equal, again, batch)
    np.testing.assert_array_equal(same_weights, weights)
    for one in (batches, other):
        one.update(LOSS[batch["id"]])
        assert one.pending is None
    assert run(other, 6) == run(batches, 6)


def test_a_state_is_no_view_of_what_updates_overwrite():
    batches = make("sketched")
    run(batches, 2)
    state = batches.get_state()
    copy = pickle.loads(pickle.dumps(state))
    run(batches, 3)
    jax.tree.map(np.testing.assert_array_equal, state, copy)


def test_states_have_one_shape():
    batches = make("sketched")
    shapes = []
    for step in range(3):
        shapes.append(jax.tree.map(np.shape, batches.get_state()))
        batch, _ = next(batches)
        shapes.append(jax.tree.map(np.shape, batches.get_state()))
        if step:
            batches.update(LOSS[batch["id"]])
    assert all(shape == shapes[0] for shape in shapes)


def test_the_end_leaves_the_state():
    batches = make("class_mean", num_epochs=1)
    run(batches, 4)
    state = batches.get_state()
    with pytest.raises(StopIteration):
        next(batches)
    jax.tree.map(np.testing.assert_array_equal, batches.get_state(), state)


def test_seeds_differ():
    assert run(make("uniform", seed=1), 4) != run(make("uniform", seed=2), 4)


# ---- mistakes -----------------------------------------------------------------------


def updated(targets):
    batches = make("class_mean")
    next(batches)
    batches.update(targets)


def restored(**changes):
    batches = make("class_mean")
    batches.set_state({**batches.get_state(), **changes})


POOLS = adaptive.Pools(take, N, M)
MISTAKES = [
    (lambda: adaptive.Pools(take, 0, M), ValueError, "num_examples must be at least"),
    (
        lambda: adaptive.Pools(take, N, 1.5),
        TypeError,
        "num_candidates must be a",
    ),
    (
        lambda: adaptive.Pools(take, N, M, pool=4),
        ValueError,
        "num_candidates must be a multiple of pool; got 6 and 4",
    ),
    (
        lambda: adaptive.pool_order(N, 0, 4),
        ValueError,
        "adaptive.pool_order: batch_size must be at least 1",
    ),
    (
        lambda: adaptive.AdaptiveIterator(POOLS, None, adaptive.priority(2)),
        TypeError,
        "scorer must be of type Scorer",
    ),
    (lambda: make("uniform").update(np.ones(3)), RuntimeError, "Call next"),
    (lambda: updated(np.ones(SIZE, np.int32)), TypeError, "targets must be float32"),
    (lambda: updated(np.ones(4, np.float32)), ValueError, r"f32\[4\], weights: f32\[3"),
    (lambda: restored(seed=9), ValueError, "same seed; got 9 in the state, 3 here"),
    (
        lambda: restored(scorer=[np.ones(2)]),
        ValueError,
        "must be of the same scorer",
    ),
    (
        lambda: POOLS.set_state({**POOLS.get_state(), "num_candidates": 4}),
        ValueError,
        "same num_candidates; got 4",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- grain --------------------------------------------------------------------------


def test_without_grain_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install 'fsparse\[grain\]'"):
        adaptive.grain_dataset(None, SCORERS["uniform"], adaptive.priority(2))


@pytest.fixture
def grain():
    return pytest.importorskip("grain")


def dataset(grain, name):
    source = [{"id": np.int32(i), "x": X[i], "y": Y[i]} for i in range(N)]
    candidates = grain.MapDataset.source(source).seed(1).shuffle().repeat(2).batch(M)
    return adaptive.grain_dataset(candidates, SCORERS[name], adaptive.priority(SIZE))


@pytest.mark.parametrize("name", ["class_mean", "sketched"])
def test_a_data_set_of_grain_resumes(grain, name):
    """States pass through JSON, as grain's checkpoints write them."""
    batches = iter(dataset(grain, name))
    assert isinstance(batches, grain.DatasetIterator)
    run(batches, 3)
    batch, _ = next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    other = iter(dataset(grain, name))
    other.set_state(state)
    np.testing.assert_array_equal(other.pending[0]["id"], batch["id"])
    for one in (batches, other):
        one.update(LOSS[batch["id"]])
    want = run(batches, 99)
    assert len(want) == 4  # 46 examples in pools of six: the last has four
    assert run(other, 99) == want


def test_iterators_of_a_data_set_are_independent(grain):
    data = dataset(grain, "class_mean")
    one, other = iter(data), iter(data)
    first = run(one, 5)
    assert run(other, 5) == first
    one.train_state = 3
    assert (one.train_state, other.train_state) == (3, None)
    one.close()
    with pytest.raises(ValueError, match="closed"):
        next(one)
