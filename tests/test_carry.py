"""The threshold rule, and the queue against a list."""

from collections import deque
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from scipy import stats

from fsparse import adaptive

M, CAPACITY, SIZE = 5, 8, 3
KEY = jax.random.key(0)
LIKE = {"x": jnp.zeros((M, 2)), "id": jnp.zeros(M, jnp.int32)}
push = jax.jit(adaptive.carry_push)
pop = jax.jit(adaptive.carry_pop, static_argnums=1, static_argnames="flush")


def pool(first):
    ids = first + np.arange(M, dtype=np.int32)
    return {"x": jnp.asarray(np.stack([ids, -ids], 1), jnp.float32), "id": ids}


# ---- threshold ----------------------------------------------------------------------

SCORES = jnp.array([3.0, 1.0, jnp.nan, jnp.inf, -jnp.inf, 2.0, 0.0, 9.0])
VALID = jnp.array([True] * 7 + [False])
ALWAYS = jnp.arange(8) == 6
rule = partial(adaptive.threshold, tau=2.0, prob=0.25, always=ALWAYS)


def test_the_threshold_rule_has_no_bias():
    """Chances of 1 or ``prob``, the inverse as weight; NaN is below any threshold."""
    keys = jax.random.split(KEY, 20_000)
    weights = np.asarray(jax.jit(jax.vmap(lambda key: rule(key, SCORES, VALID)))(keys))
    np.testing.assert_array_equal(weights[:, [0, 3, 5, 6]], 1)
    assert not weights[:, 7].any()
    low = weights[:, [1, 2, 4]]
    assert set(np.unique(low)) == {0, 4}
    z = (np.mean(low > 0, axis=0) - 0.25) / np.sqrt(0.25 * 0.75 / len(keys))
    assert np.abs(z).max() < stats.norm.isf(0.5e-4 / 3)
    pairs = np.corrcoef(low.T)[np.triu_indices(3, 1)]
    assert np.abs(pairs).max() < 4 / np.sqrt(len(keys))


def test_a_threshold_may_be_traced_or_nan():
    of_tau = jax.jit(
        lambda tau: adaptive.threshold(KEY, SCORES, VALID, tau=tau, prob=1)
    )
    np.testing.assert_array_equal(of_tau(2.0), VALID)
    many = jax.jit(
        lambda tau: adaptive.threshold(KEY, SCORES, VALID, tau=tau, prob=0.5)
    )
    assert set(np.asarray(many(jnp.float32(np.nan))).tolist()) <= {0, 2}
    assert set(np.asarray(many(-np.inf))[[0, 1, 3, 4, 5, 6]].tolist()) == {1}


def test_threshold_has_no_gradient():
    def total(scores, tau):
        kept = adaptive.threshold(KEY, scores, VALID, tau=tau, prob=0.5)
        return jnp.sum(kept)

    for grad in jax.grad(total, (0, 1))(SCORES, 2.0):
        assert not np.any(grad)


# ---- the queue ----------------------------------------------------------------------


class Reference:
    """A deque of ids with weights."""

    def __init__(self):
        self.items, self.num_dropped = deque(), 0

    def push(self, ids, weights):
        for i, w in zip(ids, weights, strict=True):
            if w == 0:
                continue
            if w > 0 and np.isfinite(w) and len(self.items) < CAPACITY:
                self.items.append((i, w))
            else:
                self.num_dropped += 1

    def pop(self, size, flush):
        is_full = len(self.items) >= size
        num = size if is_full else len(self.items) * flush
        return [self.items.popleft() for _ in range(num)], is_full


weight = st.sampled_from([0.0, 0.0, 1.0, 10.0, np.nan, np.inf, -1.0])
pushes = st.tuples(st.just("push"), st.lists(weight, min_size=M, max_size=M))
pops = st.tuples(st.just("pop"), st.booleans())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.one_of(pushes, pops), max_size=12))
def test_the_queue_is_a_list(course):
    carry, want, first = adaptive.carry_init(LIKE, CAPACITY), Reference(), 0
    for kind, how in course:
        if kind == "push":
            batch = pool(first)
            carry = push(carry, batch, jnp.asarray(how, jnp.float32))
            want.push(batch["id"].tolist(), how)
            first += M
        else:
            batch, weights, is_full, carry = pop(carry, SIZE, flush=how)
            taken, full = want.pop(SIZE, how)
            assert bool(is_full) == full
            assert np.isfinite(batch["x"]).all()
            assert [w for _, w in taken] == weights[: len(taken)].tolist()
            assert not weights[len(taken) :].any()
            ids = np.array([i for i, _ in taken], int)
            np.testing.assert_array_equal(batch["id"][: len(taken)], ids)
            np.testing.assert_array_equal(batch["x"][: len(taken), 1], -ids)
        assert int(carry.count) == len(want.items)
        assert int(carry.num_dropped) == want.num_dropped


def course(carry, key):
    """A push and a pop, as in a step."""
    scores = jax.random.normal(key, (M,))
    weights = adaptive.threshold(key, scores, scores > -1, tau=0.5, prob=0.5)
    carry = adaptive.carry_push(carry, {"x": scores}, weights)
    batch, weights, is_full, carry = adaptive.carry_pop(carry, SIZE)
    return carry, (batch, weights, is_full)


def test_scan_vmap_and_shard_map_are_a_loop():
    keys = jax.random.split(KEY, (2, 6))
    empty = adaptive.carry_init({"x": jnp.zeros(M)}, CAPACITY)

    def scanned(keys):
        start = jax.tree.map(lambda a: a + 0 * jnp.sum(jax.random.bits(keys[0])), empty)
        start = jax.tree.map(lambda a, b: a.astype(b.dtype), start, empty)
        return jax.lax.scan(course, start, keys)[1]

    def looped(keys):
        carry, outs = empty, []
        for key in keys:
            carry, out = jax.jit(course)(carry, key)
            outs.append(out)
        return jax.tree.map(lambda *parts: jnp.stack(parts), *outs)

    want = jax.tree.map(lambda *parts: jnp.stack(parts), *map(looped, keys))
    mesh, spec = Mesh(np.array(jax.devices()[:2]), ("i",)), PartitionSpec("i")
    one = lambda keys: jax.tree.map(lambda a: a[None], scanned(keys[0]))  # noqa: E731
    sharded = jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec)
    for run in (jax.vmap(scanned), sharded):
        jax.tree.map(np.testing.assert_array_equal, jax.jit(run)(keys), want)


def test_x64_and_strict_promotion_change_nothing():
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        empty = adaptive.carry_init({"x": jnp.zeros(M, jnp.float32)}, CAPACITY)
        key = jax.random.key(1)
        scores = jax.random.normal(key, (M,), jnp.float32)
        weights = adaptive.threshold(key, scores, scores > -1, tau=0.5, prob=0.5)
        carry = adaptive.carry_push(empty, {"x": scores}, weights)
        _, w, _, popped = adaptive.carry_pop(carry, SIZE, flush=True)
    assert w.dtype == jnp.float32
    for new in (carry, popped):
        assert [a.dtype for a in jax.tree.leaves(new)] == [
            a.dtype for a in jax.tree.leaves(empty)
        ]


def test_shapes_alone_are_enough_to_begin():
    shapes = jax.eval_shape(lambda: LIKE)
    carry = adaptive.carry_init(shapes, CAPACITY)
    jax.tree.map(np.testing.assert_array_equal, carry, adaptive.carry_init(LIKE, 8))


def test_an_eager_queue_can_be_donated():
    push = jax.jit(adaptive.carry_push, donate_argnums=0)
    carry = push(adaptive.carry_init(LIKE, 8), LIKE, jnp.ones(M))
    assert carry.count == M


CARRY = adaptive.carry_init(LIKE, CAPACITY)
W = jnp.ones(M)
THRESHOLD = partial(adaptive.threshold, KEY, SCORES, VALID, tau=1.0)
MISTAKES = [
    (lambda: THRESHOLD(prob=0.0), ValueError, "threshold: prob must be in"),
    (lambda: THRESHOLD(prob=1.1), ValueError, "prob must be in"),
    (lambda: THRESHOLD(prob=0.5, always=W), TypeError, "always must be bool"),
    (lambda: THRESHOLD(prob=0.5, always=W > 0), ValueError, r"always: bool\[5\]"),
    (lambda: adaptive.carry_init(LIKE, 0), ValueError, "capacity must be at least 1"),
    (lambda: adaptive.carry_init(W[0], 2), ValueError, "a row for each"),
    (lambda: adaptive.carry_push(LIKE, LIKE, W), TypeError, "carry must be of type"),
    (lambda: adaptive.carry_push(CARRY, W, W), ValueError, "must have the structure"),
    (lambda: adaptive.carry_push(CARRY, LIKE, W[1:]), ValueError, "a row for each"),
    (
        lambda: adaptive.carry_push(CARRY, {**LIKE, "id": W}, W),
        ValueError,
        r"candidates: f32\[5\], items: i32\[8\]",
    ),
    (lambda: adaptive.carry_pop(CARRY, 9), ValueError, "size=9 must fit the queue"),
    (lambda: adaptive.carry_pop(CARRY, 0), ValueError, "size must be at least 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
