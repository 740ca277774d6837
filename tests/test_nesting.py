"""Ways to nest transformations around a whole training step.

The step differentiates a loss of two tables and a dense layer, and moves them by lazy
Adam, momentum and optax. Its oracle is written with dense arrays: the gradient by
``jax.grad`` of one-hot products, the rows that were named by a mask. Each test puts the
same transformations around both.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dense import bag, one_hot, sampled
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import fsparse
from fsparse import Table, rows

N, M, D, B, K, STEPS = 7, 9, 5, 4, 3, 3
RATE, DECAY, B1, B2, EPS = 0.1, 0.9, 0.9, 0.999, 1e-8


class Params(NamedTuple):
    table: jax.Array  # f32[N, D]
    output: jax.Array  # f32[M, D]
    w: jax.Array  # f32[D, D]


class Batch(NamedTuple):
    ids: jax.Array  # i32[B, K], with repetitions and padding
    active: jax.Array  # i32[K + 2]


def make_params(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = (N, D), (M, D), (D, D)
    return Params(*map(jax.random.normal, keys, shapes))


def make_batch(seed=0):
    a, b = jax.random.split(jax.random.key(seed))
    return Batch(
        jax.random.randint(a, (B, K), -1, N + 1, jnp.int32),
        jax.random.randint(b, (K + 2,), -1, M + 1, jnp.int32),
    )


def stack(make, count=STEPS):
    return jax.tree.map(lambda *xs: jnp.stack(xs), *map(make, range(count)))


# ---- the step of fsparse ------------------------------------------------------------


def optimizer(rate):
    return fsparse.multi_transform(
        {
            "input": rows.adam(rate, b1=B1, b2=B2, eps=EPS),
            "output": rows.sgd(rate, momentum=DECAY),
            "dense": optax.sgd(rate),
        },
        Params("input", "output", "dense"),
    )


def loss(params, batch):
    h = jnp.tanh(fsparse.embedding_bag(params.table, batch.ids) @ params.w)
    logits = fsparse.sampled_matmul(h, params.output, batch.active)
    return jnp.mean(jnp.sin(logits))


def init(params):
    marked = Params(Table(params.table), Table(params.output), params.w)
    return marked, optimizer(RATE).init(marked)


def step(state, batch, rate=RATE):
    params, moments = state
    value, grads = fsparse.value_and_grad(loss)(params, batch)
    return optimizer(rate).step(params, moments, grads), value


def arrays(state):
    """What the oracle has, too: the parameters."""
    params = state[0]
    return Params(params.table.value, params.output.value, params.w)


# ---- the same, dense ----------------------------------------------------------------


def dense_loss(params, batch):
    h = jnp.tanh(bag(params.table, batch.ids) @ params.w)
    return jnp.mean(jnp.sin(sampled(h, params.output, batch.active)))


def dense_init(params):
    zeros = jnp.zeros((N, D))
    return params, (zeros, zeros, jnp.zeros((M, D)), jnp.zeros(()))


def dense_step(state, batch, rate=RATE):
    value, grads = jax.value_and_grad(dense_loss)(state[0], batch)
    return dense_update(state, batch, grads, rate), value


def dense_update(state, batch, grads, rate=RATE):
    params, (mu, nu, trace, t) = state
    t = t + 1
    named = one_hot(batch.ids.ravel(), N).sum(0)[:, None] > 0
    mu = jnp.where(named, B1 * mu + (1 - B1) * grads.table, mu)
    nu = jnp.where(named, B2 * nu + (1 - B2) * grads.table**2, nu)
    root = jnp.sqrt(jnp.where(nu > 0, nu, 1) / (1 - B2**t))
    move = jnp.where(nu > 0, mu / (1 - B1**t) / (root + EPS), 0)
    table = params.table - rate * jnp.where(named, move, 0)
    is_active = one_hot(batch.active.ravel(), M).sum(0)[:, None] > 0
    trace = jnp.where(is_active, DECAY * trace + grads.output, trace)
    output = params.output - rate * jnp.where(is_active, trace, 0)
    new = Params(table, output, params.w - rate * grads.w)
    return new, (mu, nu, trace, t)


def dense_arrays(state):
    return state[0]


class World(NamedTuple):
    init: object
    step: object
    arrays: object


OURS, DENSE = World(init, step, arrays), World(dense_init, dense_step, dense_arrays)


# ---- nestings -----------------------------------------------------------------------


def jitted(world):
    state = world.init(make_params())
    for i in range(STEPS):
        state, value = jax.jit(world.step)(state, make_batch(i))
    return world.arrays(state), value


def run_scan(world, params, batches, rate=RATE, wrap=lambda f: f):
    body = wrap(lambda state, batch: world.step(state, batch, rate))
    state, values = jax.lax.scan(body, world.init(params), batches)
    return world.arrays(state), values


def scan(world):
    return run_scan(world, make_params(), stack(make_batch))


def fori_loop(world):
    batches = stack(make_batch)

    def body(i, state):
        return world.step(state, jax.tree.map(lambda x: x[i], batches))[0]

    return world.arrays(jax.lax.fori_loop(0, STEPS, body, world.init(make_params())))


def while_in_cond(world):
    """Steps until the loss is low, if there is a batch."""

    def steps(state):
        more = lambda c: (c[0] < 5) & (c[2] > -0.2)  # noqa: E731
        body = lambda c: (c[0] + 1, *world.step(c[1], make_batch()))  # noqa: E731
        return jax.lax.while_loop(more, body, (0, state, jnp.float32(1)))[1]

    def run(state, yes):
        return jax.lax.cond(yes, steps, lambda state: state, state)

    state = world.init(make_params())
    return [world.arrays(jax.jit(run)(state, yes)) for yes in (True, False)]


def ensemble(world):
    """vmap of everything: members have parameters and batches of their own."""
    return jax.vmap(lambda p, b: run_scan(world, p, b))(
        stack(make_params, 2), jax.tree.map(lambda x: x[:, None], stack(make_batch, 2))
    )


def ensemble_in_scan(world):
    """jit(scan(vmap(step))) with one batch for all members."""

    def body(states, batch):
        return jax.vmap(world.step, (0, None))(states, batch)

    states = jax.vmap(world.init)(stack(make_params, 2))
    states, values = jax.jit(lambda s, b: jax.lax.scan(body, s, b))(
        states, stack(make_batch)
    )
    return jax.vmap(world.arrays)(states), values


def learning_rates(world):
    """vmap over the learning rate alone: the state becomes mapped on the way."""
    rates = jnp.array([0.0, 0.1, 0.3])
    return jax.vmap(lambda r: run_scan(world, make_params(), stack(make_batch), r))(
        rates
    )


def after_training(world):
    def final(rate, params):
        return run_scan(world, params, stack(make_batch), rate, jax.checkpoint)[1][-1]

    return final


def meta_gradient(world):
    """grad(scan(checkpoint(step))) in the rate and in the first parameters."""
    return jax.grad(after_training(world), (0, 1))(jnp.float32(RATE), make_params())


def meta_gradient_forward(world):
    """jvp of training, and grad of it: forward over reverse over steps."""
    final = partial(after_training(world), params=make_params())
    rate, one = jnp.float32(RATE), jnp.float32(1)
    return jax.jvp(final, [rate], [one]), jax.grad(
        lambda r: jax.jvp(final, [r], [one])[1]
    )(rate)


def vmap_of_meta_gradient(world):
    """vmap(grad(scan(step))), over rates and over parameters."""
    each = jax.vmap(jax.grad(after_training(world), (0, 1)))
    return each(jnp.array([0.05, 0.2]), stack(make_params, 2))


def checkpointed_loss_in_vmap(world):
    """Gradients of each example by vmap, in a step by remat in jit."""
    per_example = jax.vmap(
        lambda p, ids: world.step(p, Batch(ids[None], make_batch().active)), (None, 0)
    )
    states, values = jax.jit(jax.checkpoint(per_example))(
        world.init(make_params()), make_batch().ids
    )
    return jax.vmap(world.arrays)(states), values


NESTINGS = [
    jitted,
    scan,
    fori_loop,
    while_in_cond,
    ensemble,
    ensemble_in_scan,
    learning_rates,
    meta_gradient,
    meta_gradient_forward,
    vmap_of_meta_gradient,
    checkpointed_loss_in_vmap,
]


def assert_close(got, want, tol=2e-4):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape
        largest = max(1.0, float(jnp.max(jnp.abs(b), initial=0)))
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * largest)


@pytest.mark.parametrize("nesting", NESTINGS, ids=lambda nesting: nesting.__name__)
def test_nesting(nesting):
    assert_close(nesting(OURS), nesting(DENSE))


# ---- over devices -------------------------------------------------------------------

MESH = Mesh(np.array(jax.devices()[:2]), ("i",))


def sharded(f, in_specs, out_specs):
    return jax.jit(jax.shard_map(f, mesh=MESH, in_specs=in_specs, out_specs=out_specs))


def data_parallel(state, batch):
    """A batch in two halves, tables on both devices."""

    def mean_loss(params):
        return jax.lax.pmean(loss(params, batch), "i")

    value, grads = fsparse.value_and_grad(mean_loss)(state[0])
    return optimizer(RATE).step(*state, grads), value


def test_data_parallel_steps_in_a_scan():
    """shard_map(scan(step)): the state stays the same on all devices."""

    def run(state, batches):
        return jax.lax.scan(data_parallel, state, batches)

    specs = Batch(P(None, "i"), P())
    state, values = sharded(run, (P(), specs), P())(
        init(make_params()), stack(make_batch)
    )
    want, want_values = jax.lax.scan(
        dense_step, dense_init(make_params()), stack(make_batch)
    )
    assert_close((arrays(state), values), (dense_arrays(want), want_values))


def test_ensemble_over_devices():
    """shard_map(vmap(scan(step))): two members on each device."""
    params = stack(make_params, 4)
    run = jax.vmap(lambda p, b: run_scan(OURS, p, b), (0, None))
    got = sharded(run, (P("i"), P()), P("i"))(params, stack(make_batch))
    want = jax.vmap(lambda p, b: run_scan(DENSE, p, b), (0, None))(
        params, stack(make_batch)
    )
    assert_close(got, want)


def test_rows_over_devices():
    """A table in two halves; ids of the other half are padding. No row is gathered."""
    params, batch, half = make_params(), make_batch(), (N + 1) // 2
    padded = jnp.pad(params.table, ((0, 1), (0, 0)))

    def loss_of_shard(table, rest, batch):
        first = jax.lax.axis_index("i") * half
        ids = jnp.where(batch.ids < N, batch.ids, 2 * half)  # padding on both devices
        own = fsparse.embedding_bag(table, ids - first)
        h = jnp.tanh(jax.lax.psum(own, "i") @ rest.w)
        return jnp.mean(jnp.sin(fsparse.sampled_matmul(h, rest.output, batch.active)))

    def run(table, rest, batch):
        value, grads = fsparse.value_and_grad(loss_of_shard)(Table(table), rest, batch)
        moved = rows.sgd(RATE).update(table, rows.sgd(RATE).init(table), grads)
        return moved[0], jax.lax.pmean(value, "i")

    moved, value = sharded(run, (P("i"), P(), P()), (P("i"), P()))(
        padded, params, batch
    )
    want, grads = jax.value_and_grad(dense_loss)(params, batch)
    assert_close((moved[:N], value), (params.table - RATE * grads.table, want))
    np.testing.assert_array_equal(moved[N:], 0)
