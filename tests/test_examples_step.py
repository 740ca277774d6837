"""A step of the trainer is lazy Adam on the dense gradient, checked and in place."""

import functools
import os
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_cases import adam_of, example, make_state

from fsparse.data import Batch

extreme_model = example("extreme_model")
Config = extreme_model.Config
D, NUM_FEATURES, NUM_LABELS, B = 8, 30, 20, 4
SIZES = (NUM_FEATURES, NUM_LABELS)
RATE, B1, B2, EPS = 0.5, 0.9, 0.999, 1e-8
CONFIG = Config(
    width=D,
    batch_size=B,
    num_negatives=0,
    learning_rate=0.01,
    embedding_learning_rate=0.03,
    hidden_learning_rate=0.02,
)
# Duplicate features, padding, a weight of 0, an example without labels, one of padding.
BATCH = Batch(
    np.array([[3, 7, 7, 30], [7, 1, 30, 30], [4, 0, 9, 3], [30] * 4], np.int32),
    np.array([[0.5, -1, 2, 0], [1, 0.3, 0, 0], [0.7, 1, 0, -2], [0] * 4], np.float32),
    np.array([[5, 2, 20], [2, 20, 20], [20, 20, 20], [20, 20, 20]], np.int32),
)


def copied(tree):
    """On the host, bfloat16 as float32: a donated state is gone."""
    dtype = lambda x: np.float32 if x.dtype == jnp.bfloat16 else x.dtype  # noqa: E731
    return jax.tree.map(lambda x: np.array(x, dtype(x)), tree)


# ---- a step, by plain differentiation of whole tables -------------------------------


def unit(x):
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True))


def dense_hidden(config, hidden, bag):
    """For rows of `bag` that are not zero."""
    u = unit(bag)
    inner = jax.nn.relu(np.sqrt(D) * u @ hidden.w + hidden.b)
    h = config.scale * unit(u + inner @ hidden.v)
    return jnp.concatenate([h[:, :-1], jnp.ones((len(h), 1))], axis=1)


def dense_loss(params, facts, batch, active):
    """Over the examples with labels; `active: bool[n]` are the labels summed over."""
    table, output = params.table.value, params.output.value
    padded = jnp.concatenate([table, jnp.zeros((1, D))])
    total, count = 0.0, 0
    for ids, weights, labels in zip(*batch, strict=True):
        own = labels[labels < NUM_LABELS]
        if len(own):
            bag = jnp.sum(weights[:, None] * padded[ids], axis=0)[None]
            logits = (dense_hidden(CONFIG, params.hidden, bag) @ output.T)[0]
            correction = 0 if active.all() else facts.log_q
            logits = (logits - correction).at[own].add(-facts.margin[own])
            log_z = jax.nn.logsumexp(logits[np.flatnonzero(active)])
            total += jnp.sum(log_z - logits[own])
            count += len(own)
    return total / count


def dense_gradient(params, facts, active):
    loss = functools.partial(dense_loss, facts=facts, batch=BATCH, active=active)
    return jax.jit(jax.value_and_grad(loss))(params)


def adam(table, mu, nu, grad, rate, t):
    mu = B1 * mu + (1 - B1) * grad
    nu = B2 * nu + (1 - B2) * grad**2
    step = (mu / (1 - B1**t)) / (np.sqrt(nu / (1 - B2**t)) + EPS)
    return table - rate * step, mu, nu


def lazy_adam(table, moments, grad, rate, named):
    """Adam on the rows named; the others and their moments stay."""
    old = (table, moments.mu, moments.nu)
    new = adam(*old, grad, rate, moments.count + 1)
    return [np.where(named[:, None], n, o) for n, o in zip(new, old, strict=True)]


class Step(NamedTuple):
    """Before and after one step, and what the dense loss says of it."""

    before: Any
    after: Any
    loss: Any
    want_loss: Any
    grads: Any
    active: Any


@functools.cache
def step(num_negatives, table_dtype="float32"):
    """Without negatives the labels of the batch are active; with very many, all are."""
    config = CONFIG._replace(num_negatives=num_negatives, table_dtype=table_dtype)
    state = make_state(config, SIZES)
    before = copied(state)
    active = np.full(NUM_LABELS, num_negatives > 0)
    active[[2, 5]] = True
    want_loss, grads = dense_gradient(before.params, before.facts, active)
    after, loss = extreme_model.train_step(config, state, BATCH, jnp.float32(RATE))
    return Step(before, copied(after), loss, want_loss, copied(grads), active)


every_active_set = pytest.mark.parametrize("num_negatives", [0, 600])
every_dtype = pytest.mark.parametrize("table_dtype", ["float32", "bfloat16"])
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


def neighbours(new, wanted):
    """bfloat16 has 8 digits, and is rounded up or down."""
    np.testing.assert_allclose(new, wanted, rtol=2**-7, atol=2e-6)


@every_active_set
@every_dtype
def test_loss_is_the_dense_loss(num_negatives, table_dtype):
    done = step(num_negatives, table_dtype)
    np.testing.assert_allclose(done.loss, done.want_loss, rtol=2e-6)


@every_active_set
@every_dtype
@pytest.mark.parametrize("name", ["table", "output"])
def test_rows_take_a_step_of_lazy_adam_on_the_dense_gradient(
    num_negatives, table_dtype, name
):
    before, after, _, _, grads, active = step(num_negatives, table_dtype)
    named = {"table": np.isin(range(NUM_FEATURES), BATCH.feature_ids), "output": active}
    rates = {"table": CONFIG.embedding_learning_rate, "output": CONFIG.learning_rate}
    one, two = (
        [getattr(x.params, name).value, *adam_of(x, name)] for x in (before, after)
    )
    moments, grad = adam_of(before, name), getattr(grads, name).value
    want = lazy_adam(one[0], moments, grad, rates[name] * RATE, named[name])
    for new, wanted, old in zip(two[:3], want, one[:3], strict=True):
        (close if table_dtype == "float32" else neighbours)(new, wanted)
        np.testing.assert_array_equal(new[~named[name]], old[~named[name]])
        assert (new != old).any()
    assert (one[3], two[3]) == (6, 7)


@every_active_set
@pytest.mark.parametrize("name", ["w", "b", "v"])
def test_hidden_layer_takes_a_step_of_adam(num_negatives, name):
    before, after, _, _, grads, _ = step(num_negatives)
    one, two = (
        [getattr(x.hidden, name) for x in (s.params, *s.moments["hidden"][0][1:])]
        for s in (before, after)
    )
    rate = CONFIG.hidden_learning_rate * RATE
    for new, wanted in zip(
        two, adam(*one, getattr(grads.hidden, name), rate, 7), strict=True
    ):
        close(new, wanted)


def test_step_keeps_facts_and_codes_and_counts():
    state = make_state(CONFIG, SIZES)
    before = copied(state)
    new, _ = extreme_model.train_step(CONFIG, state, BATCH, jnp.float32(1))
    assert new.step == before.step + 1
    assert not np.array_equal(new.key, before.key)
    for now, old in zip(
        (*new.facts, new.codes), (*before.facts, before.codes), strict=True
    ):
        np.testing.assert_array_equal(now, old)


def test_batch_of_padding_changes_no_weights():
    state = make_state(CONFIG, SIZES)
    before = copied(state.params)
    nothing = Batch(*(np.full_like(x, x[3, 0]) for x in BATCH))
    new, loss = extreme_model.train_step(CONFIG, state, nothing, jnp.float32(1))
    assert loss == 0
    np.testing.assert_array_equal(new.params.table.value, before.table.value)
    np.testing.assert_array_equal(new.params.output.value, before.output.value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


def test_hidden_layer():
    hidden = make_state(CONFIG, SIZES).params.hidden
    bag = np.random.default_rng(1).standard_normal((6, D)).astype(np.float32)
    h = extreme_model.hidden_layer(CONFIG, hidden, jnp.asarray(bag))
    np.testing.assert_allclose(
        h, dense_hidden(CONFIG, hidden, bag), rtol=1e-5, atol=1e-5
    )


# ---- wrong arguments ----------------------------------------------------------------

WRONG = {
    "feature ids": (
        {"feature_ids": BATCH.feature_ids.astype(np.int16)},
        TypeError,
        r"embedding_bag: ids must be int32; got ids: i16\[4,4\]",
    ),
    "float ids": (
        {"feature_ids": BATCH.feature_ids.astype(np.float32)},
        TypeError,
        r"embedding_bag: ids must be int32; got ids: f32\[4,4\]",
    ),
    "weights": (
        {"feature_weights": BATCH.feature_weights.astype(np.float16)},
        TypeError,
        r"embedding_bag: weights must be float32; got weights: f16\[4,4\]",
    ),
    "shape of weights": (
        {"feature_weights": BATCH.feature_weights[:, :3]},
        ValueError,
        r"embedding_bag: weights.shape\[1\] must .* f32\[4,3\], ids: i32\[4,4\]",
    ),
    "label ids": (
        {"label_ids": BATCH.label_ids.astype(np.uint32)},
        TypeError,
        r"active_set: labels must be int32; got labels: u32\[4,3\]",
    ),
    "labels without an axis": (
        {"label_ids": BATCH.label_ids[:, 0]},
        ValueError,
        r"active_set: labels must have 2 axes; got labels: i32\[4\]",
    ),
    "more labels than examples": (
        {"label_ids": np.repeat(BATCH.label_ids, 2, axis=0)},
        ValueError,
        r"sampled_softmax_loss: .* for each example; got targets: i32\[8,3\], logits",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_batch_is_refused_while_tracing(change, error, message):
    run = functools.partial(extreme_model.train_step, CONFIG)
    state = jax.eval_shape(lambda: make_state(CONFIG, SIZES))
    with pytest.raises(error, match=message):
        jax.eval_shape(run, state, BATCH._replace(**change), jnp.float32(1))


def test_wrong_state_and_rate_are_refused_while_tracing():
    run = functools.partial(extreme_model.train_step, CONFIG)
    state = jax.eval_shape(lambda: make_state(CONFIG, SIZES))
    other = jax.eval_shape(lambda: make_state(CONFIG._replace(width=9), SIZES))
    mixed = state._replace(params=state.params._replace(table=other.params.table))
    with pytest.raises(ValueError, match=r"sampled_matmul: .*f32\[8,8\].*f32\[4,9\]"):
        jax.eval_shape(run, mixed, BATCH, jnp.float32(1))
    mixed = state._replace(moments=other.moments)
    with pytest.raises(
        ValueError, match=r"adam_update: mu must have the shape of table"
    ):
        jax.eval_shape(run, mixed, BATCH, jnp.float32(1))
    with pytest.raises(
        ValueError, match=r"adam_update: learning_rate must have 0 axes"
    ):
        jax.eval_shape(run, state, BATCH, jnp.ones(2))


# ---- in place -----------------------------------------------------------------------


@every_dtype
def test_step_of_a_wide_layer_has_no_copy_of_it(table_dtype):
    """Nothing is allocated here: the compiler tells."""
    config = Config(batch_size=512, num_negatives=4096, table_dtype=table_dtype)
    sizes = (262_144, 218_590)
    state = jax.eval_shape(lambda: extreme_model.init(config, *sizes, 0))
    shape = jax.ShapeDtypeStruct
    batch = Batch(
        shape((512, 60), jnp.int32),
        shape((512, 60), jnp.float32),
        shape((512, 1), jnp.int32),
    )
    lowered = extreme_model.train_step.lower(
        config, state, batch, shape((), jnp.float32)
    )
    memory = lowered.compile().memory_analysis()
    tables = [x for x in jax.tree.leaves(state) if x.shape[:1] in [(n,) for n in sizes]]
    num_bytes = sum(x.size * x.dtype.itemsize for x in tables)
    itemsize = jnp.dtype(table_dtype).itemsize
    assert num_bytes > 6 * 218_590 * 128 * itemsize
    assert memory.alias_size_in_bytes >= num_bytes
    assert memory.temp_size_in_bytes < 218_590 * 128


def wide_pointers(state):
    tables = (state.params.table.value, state.params.output.value)
    moments = (adam_of(state, "table"), adam_of(state, "output"))
    arrays = [*tables, *(x for m in moments for x in (m.mu, m.nu))]
    return [x.unsafe_buffer_pointer() for x in arrays]


def random_batch(seed, sizes, capacities=(3, 1)):
    rng = np.random.default_rng(seed)
    (num_features, num_labels), (k, labels) = sizes, capacities
    return Batch(
        rng.integers(0, num_features + 1, (B, k)).astype(np.int32),
        rng.standard_normal((B, k)).astype(np.float32),
        rng.integers(0, num_labels + 1, (B, labels)).astype(np.int32),
    )


@every_dtype
def test_tables_stay_where_they_are_and_the_step_is_traced_once(
    monkeypatch, table_dtype
):
    config = Config(width=16, batch_size=B, num_negatives=32, table_dtype=table_dtype)
    sizes = (5000, 3000)
    traces, loss = [], extreme_model.active_loss

    def counted(*args):
        traces.append(1)
        return loss(*args)

    monkeypatch.setattr(extreme_model, "active_loss", counted)
    state = jax.block_until_ready(extreme_model.init(config, *sizes, 0))
    before = wide_pointers(state)
    assert len(set(before)) == 6
    for i in range(5):
        batch = random_batch(i, sizes)
        rate = jnp.float32(1 / (i + 1))
        state, value = extreme_model.train_step(config, state, batch, rate)
        assert wide_pointers(state) == before
    assert np.isfinite(value)
    assert len(traces) == 1


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_over_ten_thousand_steps():
    config, sizes = Config(width=D, batch_size=B, num_negatives=8), (50, 40)
    state = extreme_model.init(config, *sizes, 0)
    batches = [random_batch(i, sizes) for i in range(10)]
    rate, sizes_seen = jnp.float32(1e-3), {}
    for i in range(10_001):
        state, loss = extreme_model.train_step(config, state, batches[i % 10], rate)
        if i in (1000, 10_000):
            jax.block_until_ready(state)
            sizes_seen[i] = resident_bytes()
    assert np.isfinite(loss)
    assert sizes_seen[10_000] - sizes_seen[1000] < 4e6
