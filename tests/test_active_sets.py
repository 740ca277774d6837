"""Active sets against a walk over each row in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

import fsparse
from fsparse import Table, active_set, first_distinct, sample_active_set, samplers
from fsparse.distinct import _twin
from fsparse.samplers import Query

ids_near = st.integers(-2, 12)


def walk(row, n, k):
    """The first k distinct ids of a row, rising and padded, and how many there are."""
    seen = dict.fromkeys(i for i in np.ravel(row).tolist() if 0 <= i < n)
    first = sorted(list(seen)[:k])
    return first + [n] * (k - len(first)), len(seen)


def assert_first_distinct(ids, n, k):
    """By the handler and by the twin."""
    want = [walk(row, n, k) for row in ids]
    first = np.array([row for row, _ in want], np.int32).reshape(len(ids), k)
    count = np.array([number for _, number in want], np.int32)
    handler = first_distinct(ids, k, num_rows=n)
    twin = jax.jit(_twin, static_argnames="k")(ids, jnp.full(1, n, jnp.int32), k=k)
    for got in (handler, twin):
        for x, y in zip(got, (first, count), strict=True):
            assert x.dtype == jnp.int32
            np.testing.assert_array_equal(x, y)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(ids_near, min_size=5, max_size=5), min_size=3, max_size=3),
    st.sampled_from([1, 4, 11]),
    st.sampled_from([1, 5, 9]),
)
def test_first_distinct_by_brute_force(rows, n, k):
    assert_first_distinct(np.array(rows, np.int32).reshape(-1, 5), n, k)


@pytest.mark.parametrize(
    ("c", "n", "k"),
    [
        (0, 64, 1),
        (1, 1, 1),
        (30, 65, 40),
        (1000, 64, 64),
        (1000, 65, 40),
        (30, 100_000, 30),
        (1000, 100_000, 999),
        (1000, 100_000, 1001),
    ],
)
def test_first_distinct_of_many_rows(rng, c, n, k):
    """Few ids of a wide table are sorted; many are read off a set of bits."""
    ids = rng.integers(-1, n + 1, (3, c)).astype(np.int32)
    assert_first_distinct(ids, n, k)


def test_first_distinct_leaves_nothing_behind(rng):
    """Each thread keeps a set: other sizes, and rows that overflow, come and go."""
    for n, k in [(500, 3), (40, 40), (3000, 1), (500, 400), (40, 2)]:
        ids = rng.integers(-1, n + 1, (6, 300)).astype(np.int32)
        assert_first_distinct(ids, n, k)


def test_first_distinct_of_one_row():
    first, count = first_distinct(jnp.array([4, 4, 9, 2, -1, 3]), 2, num_rows=5)
    np.testing.assert_array_equal(first, [2, 4])
    assert count == 3


# ---- active sets --------------------------------------------------------------------


def assert_active_set(active, labels, candidates, n, size):
    """Against a walk over the labels and then the candidates of each set."""
    shared = not candidates or candidates[0].ndim == 1
    ids = np.asarray(active.ids)
    assert ids.shape == ((size,) if shared else (len(labels), size))
    ids = np.broadcast_to(ids, (len(labels), size))
    dropped = []
    for i, row in enumerate(labels):
        own = labels if shared else row
        given = [x if shared else x[i] for x in candidates]
        every = [np.arange(n)] if size >= n else []
        parts = [np.ravel(x) for x in [own, *given, *every]]
        want, _ = walk(np.concatenate(parts), n, size)
        np.testing.assert_array_equal(ids[i], want)
        dropped.append(max(walk(own, n, 1)[1] - size, 0))
        targets = [want.index(x) if 0 <= x < n and x in want else size for x in row]
        np.testing.assert_array_equal(active.targets[i], targets)
    assert active.num_dropped == (max(dropped, default=0) if shared else sum(dropped))
    np.testing.assert_array_equal(active.is_active, np.asarray(active.ids) < n)
    assert active.ids.dtype == active.targets.dtype == jnp.int32
    assert active.num_dropped.dtype == jnp.int32


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.sampled_from([1, 5, 11]),
    st.sampled_from([1, 2, 10]),
    st.sampled_from([None, (), (3,)]),
)
def test_active_set_by_brute_force(data, n, size, scope):
    """In the batch, shared and per example; labels repeat, or are all padding."""

    def draw(*shape):
        count = int(np.prod(shape))
        ids = data.draw(st.lists(ids_near, min_size=count, max_size=count))
        return np.array(ids, np.int32).reshape(shape)

    labels = draw(3, 2)
    candidates = [] if scope is None else [draw(*scope, 2), draw(*scope, 3)]
    active = active_set(labels, *candidates, num_rows=n, size=size)
    assert_active_set(active, labels, candidates, n, size)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
@pytest.mark.parametrize("per_example", [False, True])
def test_a_batch_without_labels_has_its_candidates(shape, per_example):
    labels = np.zeros(shape, np.int32)
    every = np.array([3, 1, 3, 0], np.int32)
    candidates = [np.tile(every, (shape[0], 1)) if per_example else every]
    active = active_set(labels, *candidates, num_rows=9, size=2)
    assert active.targets.shape == shape
    np.testing.assert_array_equal(
        active.ids, np.tile([1, 3], active.ids.shape[:-1] + (1,))
    )
    assert active.num_dropped == 0


def test_labels_that_do_not_fit_are_counted():
    labels = np.array([[5, 1, 5], [8, 9, 2]], np.int32)
    shared = active_set(labels, num_rows=9, size=2)
    np.testing.assert_array_equal(shared.ids, [1, 5])
    np.testing.assert_array_equal(shared.targets, [[1, 0, 1], [2, 2, 2]])
    assert shared.num_dropped == 2
    none = np.zeros((2, 0), np.int32)
    each = active_set(labels, none, num_rows=9, size=1)
    np.testing.assert_array_equal(each.ids, [[5], [8]])
    np.testing.assert_array_equal(each.targets, [[0, 1, 0], [0, 1, 1]])
    assert each.num_dropped == 2


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("size", [20, 23])
def test_loss_over_all_rows_is_the_dense_loss(rng, per_example, size):
    """Values and gradients, whatever the sampler."""
    n, d, b = 20, 6, 8
    x = jnp.asarray(rng.standard_normal((b, d)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((n, d)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, n, (b, 1)), jnp.int32)

    def sampled(x, w):
        active = sample_active_set(
            samplers.popularity(np.arange(n)),
            jax.random.key(0),
            Query(labels),
            size=size,
            per_example=per_example,
        )
        logits = fsparse.sampled_matmul(x, w, active.ids)
        loss = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
        return loss.mean()

    def dense(x, w):
        log_p = jax.nn.log_softmax(x @ w.T)
        return -jnp.take_along_axis(log_p, labels, axis=1).mean()

    got, want = (jax.value_and_grad(f, (0, 1))(x, w) for f in (sampled, dense))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# ---- with samplers ------------------------------------------------------------------

N, D, B = 40, 4, 6
rng = np.random.default_rng(0)
X, W = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((B, D), (N, D)))
LABELS = jnp.asarray(rng.integers(-1, N + 2, (B, 2)), jnp.int32)
QUERY = Query(LABELS, X, W)
SAMPLERS = {
    "uniform": samplers.uniform(N),
    "popularity": samplers.popularity(np.arange(N)),
    "in_batch": samplers.in_batch(),
    "top_k": samplers.top_k(),
    "mix": samplers.mix(samplers.top_k(), samplers.popularity(np.arange(N)), 0.5),
}
all_kinds = pytest.mark.parametrize("name", ["in_batch", "mix"])  # and uniform fill
every_scope = pytest.mark.parametrize("per_example", [False, True])


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, 15) for name in SAMPLERS), ("mix", 1), ("mix", N), ("mix", N + 5)],
)
@every_scope
def test_labels_and_size_rows_are_active(name, size, per_example):
    key = jax.random.key(2)
    draw = jax.jit(
        lambda key, query: sample_active_set(
            SAMPLERS[name], key, query, size=size, per_example=per_example
        )
    )
    active = draw(key, QUERY)
    ids = np.asarray(active.ids).reshape(-1, size)
    np.testing.assert_array_equal(np.sum(ids < N, axis=1), min(size, N))
    assert (np.diff(ids[:, : min(size, N)], axis=1) > 0).all()
    ids = np.broadcast_to(ids, (B, size))
    found = np.asarray(active.targets) < size
    for i, j in zip(*np.nonzero(found), strict=True):
        assert ids[i, active.targets[i, j]] == LABELS[i, j]
    if size > 12:
        assert active.num_dropped == 0
        np.testing.assert_array_equal(found, (LABELS >= 0) & (LABELS < N))


def test_without_fill_there_is_padding():
    labels = jnp.array([[3], [3], [5]], jnp.int32)
    query = Query(labels, table=W)
    for sampler, fill, want in [
        (samplers.in_batch(), False, [[3, 5, N, N]] * 3),
        (samplers.in_batch(), True, None),
    ]:
        active = sample_active_set(
            sampler, jax.random.key(0), query, size=4, per_example=True, fill=fill
        )
        if want is None:
            assert active.is_active.all()
            assert (jnp.sum(active.ids == 3, 1) == 1).all()
        else:
            np.testing.assert_array_equal(active.ids, want)


def sampled_loss(sampler, key, x, w, labels, per_example):
    """With the sampler inside of what is differentiated."""
    active = sample_active_set(
        sampler, key, Query(labels, x, w), size=16, per_example=per_example
    )
    logits = fsparse.sampled_matmul(x, w, active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


@all_kinds
@every_scope
def test_gradients_are_those_of_the_set_as_a_constant(name, per_example):
    """Also by rows: a sampler's search of the table is no read of it."""
    key, sampler = jax.random.key(3), SAMPLERS[name]
    active = sample_active_set(sampler, key, QUERY, size=16, per_example=per_example)

    def constant(x, w):
        logits = fsparse.sampled_matmul(x, w, active.ids)
        loss = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
        return loss.mean()

    def loss(x, w):
        return sampled_loss(sampler, key, x, w, LABELS, per_example)

    want = jax.value_and_grad(constant, (0, 1))(X, W)
    value, (dx, dw) = fsparse.value_and_grad(loss, (0, 1))(X, Table(W))
    assert dw.ids.shape == (active.ids.size,)
    for got in [jax.value_and_grad(loss, (0, 1))(X, W), (value, (dx, dw.to_dense()))]:
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@all_kinds
@every_scope
def test_vmap_scan_and_shard_map_are_a_loop(name, per_example):
    keys = jax.random.split(jax.random.key(4), 2)
    xs, labels = jnp.stack([X, -X]), jnp.stack([LABELS, LABELS[::-1]])

    def one(key, x, labels):
        return sample_active_set(
            SAMPLERS[name],
            key,
            Query(labels, x, W),
            size=16,
            per_example=per_example,
        )[:3]

    def on_devices(*args):
        own = one(*(a[0] for a in args))
        return jax.tree.map(lambda out: out[None], own)

    mesh, spec = Mesh(np.array(jax.devices()[:2]), ("i",)), PartitionSpec("i")
    sharded = jax.shard_map(on_devices, mesh=mesh, in_specs=spec, out_specs=spec)
    args = keys, xs, labels
    loop = [jax.jit(one)(*(a[i] for a in args)) for i in range(2)]
    want = jax.tree.map(lambda *parts: jnp.stack(parts), *loop)
    scanned = jax.jit(lambda: jax.lax.scan(lambda _, a: (None, one(*a)), None, args)[1])
    for got in (jax.vmap(one)(*args), scanned(), jax.jit(sharded)(*args)):
        jax.tree.map(np.testing.assert_array_equal, got, want)
