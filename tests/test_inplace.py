"""A donated step writes into its tables: no copy, no temporary of their size."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import RowGrad, embedding_bag, row_grad, take_rows
from fsparse.rows import (
    adagrad_init,
    adagrad_update,
    adam_init,
    adam_update,
    sgd_update,
)

N, D, B, K, M = 20_000, 64, 8, 4, 32
TABLE_BYTES = N * D * 4


def sgd(table, state, grad, lr):
    return sgd_update(table, grad, learning_rate=lr), state


def adagrad(table, state, grad, lr):
    return adagrad_update(table, state, grad, learning_rate=lr)


def adam(table, state, grad, lr):
    return adam_update(table, state, grad, learning_rate=lr)


OPTIMIZERS = {
    "sgd": (lambda table: (), sgd),
    "adagrad": (adagrad_init, adagrad),
    "adam": (adam_init, adam),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def make_state(name):
    """An input table and an output table, each with its optimizer's state."""
    init, _ = OPTIMIZERS[name]
    tables = [jnp.full((N, D), value, jnp.float32) for value in (0.01, 0.02)]
    return jax.block_until_ready([(table, init(table)) for table in tables])


def make_batch(seed=0):
    ids, active = jax.random.split(jax.random.key(seed))
    draw = lambda key, shape: jax.random.randint(key, shape, 0, N + 1)  # noqa: E731
    return draw(ids, (B, K)), draw(active, (M,))


def make_step(name):
    """One training step of an embedding bag and a layer of active neurons."""
    _, update = OPTIMIZERS[name]

    def loss(h, rows):
        return jnp.mean(jnp.tanh(h @ rows.T))

    def step(state, batch, lr):
        (table, table_state), (out, out_state) = state
        ids, active = batch
        h, rows = embedding_bag(table, ids), take_rows(out, active)
        value, (dh, drows) = jax.value_and_grad(loss, (0, 1))(h, rows)
        table_grad = RowGrad(ids, jnp.ones((B, K)), dh)
        new = update(table, table_state, table_grad, lr)
        return [new, update(out, out_state, row_grad(active, drows), lr)], value

    return step


def over_steps(step, length=4):
    """The same step in a scan, with the state as its carry."""

    def run(state, batch, lr):
        return jax.lax.scan(
            lambda state, _: step(state, batch, lr), state, length=length
        )

    return run


def pointers(state):
    return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state) if x.ndim == 2]


def table_copies(compiled):
    lines = compiled.as_text().splitlines()
    return [line for line in lines if f"f32[{N},{D}]" in line and " copy(" in line]


FORMS = {"jit": lambda step: step, "scan": over_steps}
every_form = pytest.mark.parametrize("form", FORMS)


@every_optimizer
@every_form
def test_donated_step_is_in_place(name, form):
    run = jax.jit(FORMS[form](make_step(name)), donate_argnums=0)
    state, batch = make_state(name), make_batch()
    compiled = run.lower(state, batch, jnp.float32(0.1)).compile()
    memory = compiled.memory_analysis()
    num_tables = len(pointers(state))
    assert memory.alias_size_in_bytes >= num_tables * TABLE_BYTES
    assert memory.temp_size_in_bytes < TABLE_BYTES / 10
    assert not table_copies(compiled)
    before = pointers(state)
    for _ in range(3):
        state, value = run(state, batch, jnp.float32(0.1))
        assert pointers(state) == before
    assert np.isfinite(value).all()


@every_optimizer
def test_undonated_step_leaves_the_old_state(name):
    """XLA copies first: the results are those of the donated step."""
    step, batch = make_step(name), make_batch()
    state, undonated = make_state(name), jax.jit(step)
    kept = jax.tree.map(lambda x: np.array(x), state)
    new, _ = undonated(state, batch, 0.1)
    assert table_copies(undonated.lower(state, batch, 0.1).compile())
    chex.assert_trees_all_equal(state, kept)
    assert not set(pointers(state)) & set(pointers(new))
    donated, _ = jax.jit(step, donate_argnums=0)(state, batch, 0.1)
    chex.assert_trees_all_equal(donated, new)
    assert (new[0][0] != kept[0][0]).any()


def test_scan_equals_steps():
    step, batch = make_step("adam"), make_batch()
    scanned, _ = jax.jit(over_steps(step, 3))(make_state("adam"), batch, 0.1)
    state, run = make_state("adam"), jax.jit(step)
    for _ in range(3):
        state, _ = run(state, batch, 0.1)
    chex.assert_trees_all_equal(scanned, state)


@every_optimizer
def test_changing_rates_and_batches_do_not_retrace(name):
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(make_step(name), n=1), donate_argnums=0)
    state = make_state(name)
    for i in range(4):
        state, _ = run(state, make_batch(i), jnp.float32(0.1 / (i + 1)))
    with pytest.raises(AssertionError, match="traced > 1"):
        run(state, (make_batch()[0][:1], make_batch()[1]), jnp.float32(0.1))
