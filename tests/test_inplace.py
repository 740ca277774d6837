"""A donated step writes into its tables: no copy, no temporary of their size."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import embedding_bag, row_grad, rows, take_rows

N, D, B, K, M = 20_000, 64, 8, 4, 32
NUM_RATES = 4


class Optimizer(NamedTuple):
    init: Callable[..., Any]
    update: Callable[..., Any]
    dtype: Any = jnp.float32  # of the tables


LOW = {"moment_dtype": jnp.bfloat16}
OPTIMIZERS = {
    "sgd": Optimizer(rows.sgd_init, rows.sgd_update),
    "momentum": Optimizer(rows.momentum_init, rows.momentum_update),
    "adagrad": Optimizer(rows.adagrad_init, rows.adagrad_update),
    "rowwise_adagrad": Optimizer(
        rows.rowwise_adagrad_init, rows.rowwise_adagrad_update
    ),
    "adam": Optimizer(rows.adam_init, rows.adam_update),
    "exact_adam": Optimizer(
        partial(rows.exact_adam_init, _num_rates=NUM_RATES), rows.exact_adam_update
    ),
    "sgd-bf16": Optimizer(rows.sgd_init, rows.sgd_update, jnp.bfloat16),
    "adam-bf16": Optimizer(
        partial(rows.adam_init, **LOW), rows.adam_update, jnp.bfloat16
    ),
    "exact_adam-bf16": Optimizer(
        partial(rows.exact_adam_init, _num_rates=NUM_RATES, **LOW),
        rows.exact_adam_update,
        jnp.bfloat16,
    ),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def make_state(name):
    """An input table and an output table, each with its optimizer's state."""
    init, _, dtype = OPTIMIZERS[name]
    tables = [jnp.full((N, D), value, dtype) for value in (0.01, 0.02)]
    return jax.block_until_ready([(table, init(table)) for table in tables])


def make_batch(seed=0):
    ids, active = jax.random.split(jax.random.key(seed))
    draw = lambda key, shape: jax.random.randint(key, shape, 0, N + 1)  # noqa: E731
    return draw(ids, (B, K)), draw(active, (M,))


def make_step(name):
    """One training step of an embedding bag and a layer of active neurons."""
    update = OPTIMIZERS[name].update

    def loss(h, active_rows):
        return jnp.mean(jnp.tanh(h @ active_rows.T))

    def step(state, batch, lr):
        tables, (ids, active) = up_to_date(name, state, batch), batch
        (table, _), (out, _) = tables
        h, active_rows = embedding_bag(table, ids), take_rows(out, active)
        value, (dh, drows) = jax.value_and_grad(loss, (0, 1))(h, active_rows)
        grads = row_grad(ids, dh, num_rows=N), row_grad(active, drows, num_rows=N)
        new = [
            update(*of_table, grad, learning_rate=lr)
            for of_table, grad in zip(tables, grads, strict=True)
        ]
        return new, value

    return step


def up_to_date(name, state, batch):
    """Rows that the step is about to read."""
    if "exact_adam" not in name:
        return state
    return [
        rows.exact_adam_catch_up(*of_table, ids.ravel())
        for of_table, ids in zip(state, batch, strict=True)
    ]


def over_steps(step, length=4):
    """The same step in a scan, with the state as its carry."""

    def run(state, batch, lr):
        return jax.lax.scan(
            lambda state, _: step(state, batch, lr), state, length=length
        )

    return run


def tables_of(state):
    """Tables and moments, one value a row included."""
    return [x for x in jax.tree.leaves(state) if x.ndim and x.shape[0] == N]


def pointers(state):
    return [x.unsafe_buffer_pointer() for x in tables_of(state)]


def table_copies(compiled):
    types = [
        f"{dtype}[{shape}]"
        for dtype in ("f32", "bf16", "s32")
        for shape in (f"{N},{D}", f"{N}")
    ]
    lines = compiled.as_text().splitlines()
    copies = [line for line in lines if " copy(" in line]
    return [line for line in copies if any(kind in line for kind in types)]


FORMS = {"jit": lambda step: step, "scan": over_steps}
every_form = pytest.mark.parametrize("form", FORMS)


@every_optimizer
@every_form
def test_donated_step_is_in_place(name, form):
    run = jax.jit(FORMS[form](make_step(name)), donate_argnums=0)
    state, batch = make_state(name), make_batch()
    compiled = run.lower(state, batch, jnp.float32(0.1)).compile()
    memory = compiled.memory_analysis()
    tables = tables_of(state)
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in tables)
    assert memory.temp_size_in_bytes < tables[0].nbytes / 10
    assert not table_copies(compiled)
    before = pointers(state)
    for _ in range(NUM_RATES + 2):  # exact Adam flushes once among them
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
