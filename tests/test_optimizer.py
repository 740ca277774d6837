"""Optimizers of whole trees: joined, skipped, accumulated, clipped, and in place."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fsparse
from fsparse import RowGrad, Table, row_grad, rows

N, D, B, K = 9, 4, 6, 3
ALL_ROWS = {
    "sgd": rows.sgd(0.1),
    "momentum": rows.sgd(0.1, momentum=0.9),
    "nesterov": rows.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adagrad": rows.adagrad(0.1, initial=0.1),
    "rowwise_adagrad": rows.rowwise_adagrad(0.1),
    "adam": rows.adam(0.1, weight_decay=0.1),
    "adam_bf16": rows.adam(0.1, moment_dtype=jnp.bfloat16),
    "exact_adam": rows.exact_adam(0.1),
}
every_row_optimizer = pytest.mark.parametrize("name", ALL_ROWS)


def make_params(n=N, d=D, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "in": Table(jax.random.normal(keys[0], (n, d)).astype(dtype)),
        "layers": [jax.random.normal(keys[1], (d, d)), jnp.zeros(d)],
        "out": Table(jax.random.normal(keys[2], (n, d)).astype(dtype)),
    }


def make_batch(seed=0, n=N, b=B, k=K):
    a, c = jax.random.split(jax.random.key(seed))
    ids = jax.random.randint(a, (b, k), 0, n + 1, jnp.int32)
    return ids, jax.random.randint(c, (b, 2 * k), 0, n + 1, jnp.int32)


def loss(params, batch):
    ids, active = batch
    w, bias = params["layers"]
    h = jnp.tanh(fsparse.embedding_bag(params["in"], ids) @ w + bias)
    return jnp.mean(jnp.sin(fsparse.sampled_matmul(h, params["out"], active)))


def joined(optimizer, dense=None):
    return fsparse.multi_transform(
        {"tables": optimizer, "dense": dense or optax.adam(0.1)}
    )


def make_step(optimizer):
    def step(params, state, batch):
        value, grads = fsparse.value_and_grad(loss)(params, batch)
        return *optimizer.step(params, state, grads), value

    return step


# ---- joined -------------------------------------------------------------------------


@every_row_optimizer
def test_each_parameter_is_moved_by_its_own_transformation(name):
    params, batch = make_params(), make_batch()
    optimizer = joined(ALL_ROWS[name])
    _, grads = fsparse.value_and_grad(loss)(params, batch)
    state = optimizer.init(params)
    new, _ = optimizer.step(params, state, grads)
    dense = optax.adam(0.1)
    updates, _ = dense.update(grads["layers"], dense.init(params["layers"]))
    want = jax.tree.map(jnp.add, params["layers"], updates)
    chex.assert_trees_all_close(new["layers"], want, rtol=1e-6)
    for table in ("in", "out"):
        alone, value = ALL_ROWS[name], params[table].value
        moved, _ = alone.update(value, alone.init(value), grads[table])
        np.testing.assert_array_equal(new[table].value, moved)
        assert (moved != value).any()


def test_labels_choose_as_in_optax():
    """A tree of labels, a prefix of it, a function; a mask of optax sees the tree."""
    params, batch = make_params(), make_batch()
    _, grads = fsparse.value_and_grad(loss)(params, batch)
    mask = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)  # noqa: E731
    transforms = {
        "slow": rows.sgd(0.1),
        "fast": rows.sgd(1.0),
        "dense": optax.chain(optax.sgd(0.1), optax.add_decayed_weights(0.5, mask)),
    }
    full = {"in": "slow", "layers": ["dense", "dense"], "out": "fast"}
    prefix = {"in": "slow", "layers": "dense", "out": "fast"}
    results = []
    for labels in (full, prefix, lambda params: full):
        optimizer = fsparse.multi_transform(transforms, labels)
        results.append(optimizer.step(params, optimizer.init(params), grads)[0])
    chex.assert_trees_all_equal(*results)
    moves = [
        (params[table].value - results[0][table].value) / grads[table].to_dense()
        for table in ("in", "out")
    ]
    np.testing.assert_allclose(np.nanmax(moves[0]), 0.1, rtol=1e-2)
    np.testing.assert_allclose(np.nanmax(moves[1]), 1.0, rtol=1e-2)
    w, g = params["layers"][0], grads["layers"][0]
    np.testing.assert_allclose(
        results[0]["layers"][0], w - 0.1 * g + 0.5 * w, rtol=1e-5
    )


def test_schedules_follow_the_number_of_updates():
    schedule = optax.piecewise_constant_schedule(1.0, {2: 0.0})
    optimizer = joined(rows.sgd(schedule), optax.sgd(schedule))
    params, step = make_params(), jax.jit(make_step(optimizer))
    state = optimizer.init(params)
    for _ in range(2):
        old, (params, state, _) = params, step(params, state, make_batch())
        assert not np.array_equal(old["in"].value, params["in"].value)
    chex.assert_trees_all_equal(step(params, state, make_batch())[0], params)


def test_exact_adam_in_a_tree_is_dense_adam():
    """Rows catch up before they are read: every loss is that of dense Adam."""
    optimizer = joined(rows.exact_adam(0.05), optax.adam(0.05))
    params = make_params()
    dense = {k: getattr(v, "value", v) for k, v in params.items()}
    dense_optimizer = optax.adam(0.05)
    state, dense_state = optimizer.init(params), dense_optimizer.init(dense)

    @jax.jit
    def step(params, state, batch):
        ids = {"in": batch[0].ravel(), "layers": [None, None], "out": batch[1].ravel()}
        params, state = optimizer.catch_up(params, state, ids)
        return make_step(optimizer)(params, state, batch)

    @jax.jit
    def dense_step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = dense_optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    for i in range(40):
        batch = make_batch(i, b=1, k=1)
        params, state, value = step(params, state, batch)
        dense, dense_state, want = dense_step(dense, dense_state, batch)
        np.testing.assert_allclose(value, want, atol=2e-4)
    behind = params["in"].value
    params, _ = optimizer.catch_up(params, state)
    np.testing.assert_allclose(params["in"].value, dense["in"], atol=5e-4)
    assert np.abs(behind - dense["in"]).max() > 1e-3  # there was something to catch up


# ---- in place -----------------------------------------------------------------------


@every_row_optimizer
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("skipping", [False, True], ids=["", "skip_nonfinite"])
def test_a_step_copies_no_table(name, dtype, skipping):
    """Though both layers read tables that the step overwrites."""
    n, d = 20_000, 32
    optimizer = joined(ALL_ROWS[name])
    optimizer = fsparse.skip_nonfinite(optimizer) if skipping else optimizer
    params = make_params(n, d, dtype)
    state, batch = optimizer.init(params), make_batch(n=n)
    step = jax.jit(make_step(optimizer), donate_argnums=(0, 1))
    compiled = step.lower(params, state, batch).compile()
    sizes = [f"f32[{n},{d}]", f"bf16[{n},{d}]"]
    lines = compiled.as_text().splitlines()
    copies = [x for x in lines if " copy(" in x and any(s in x for s in sizes)]
    assert not copies
    table_bytes = params["in"].value.nbytes
    assert compiled.memory_analysis().temp_size_in_bytes < table_bytes / 4
    before = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state))]
    large = [x.ndim == 2 and x.shape[0] == n for x in jax.tree.leaves((params, state))]
    for _ in range(2):
        params, state, _ = step(params, state, batch)
    after = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state))]
    assert sum(large) >= 2
    assert [p for p, is_table in zip(before, large, strict=True) if is_table] == [
        p for p, is_table in zip(after, large, strict=True) if is_table
    ]


def test_metrics_of_the_old_tables_in_aux_cause_no_copy():
    n, optimizer = 20_000, joined(rows.sgd(0.1))

    def with_metric(params, batch):
        scores, _ = fsparse.dense_top_k(jnp.ones((2, D)), params["in"], 3)
        return loss(params, batch), jax.lax.stop_gradient(scores)

    def step(params, state, batch):
        differentiate = fsparse.value_and_grad(with_metric, has_aux=True)
        (_, scores), grads = differentiate(params, batch)
        return *optimizer.step(params, state, grads), scores

    params, batch = make_params(n), make_batch(n=n)
    want, _ = fsparse.dense_top_k(jnp.ones((2, D)), params["in"], 3)
    step = jax.jit(step, donate_argnums=(0, 1))
    text = step.lower(params, optimizer.init(params), batch).compile().as_text()
    assert not [x for x in text.splitlines() if " copy(" in x and f"[{n},{D}]" in x]
    np.testing.assert_array_equal(step(params, optimizer.init(params), batch)[2], want)


# ---- skipping -----------------------------------------------------------------------


def spoilt(grads, what, value):
    if what == "dense":
        return grads | {
            "layers": [grads["layers"][0].at[1, 2].set(value), *grads["layers"][1:]]
        }
    g = grads["in"]
    return grads | {"in": RowGrad(g.ids, g.scale, g.source, g.x.at[0].set(value), N)}


@every_row_optimizer
@pytest.mark.parametrize("what", ["dense", "rows"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_skips_the_step_and_is_counted(name, what, value):
    optimizer = fsparse.skip_nonfinite(joined(ALL_ROWS[name]))
    params = make_params()
    _, grads = fsparse.value_and_grad(loss)(
        params, (jnp.zeros((B, K), jnp.int32), make_batch()[1])
    )
    step = jax.jit(optimizer.step)
    params, state = step(params, optimizer.init(params), grads)
    after_bad = step(params, state, spoilt(grads, what, value))
    chex.assert_trees_all_equal(after_bad[0], params)
    chex.assert_trees_all_equal(after_bad[1].inner, state.inner)
    assert int(after_bad[1].skipped) == 1
    new, new_state = step(*after_bad, grads)
    chex.assert_trees_all_equal(new, step(params, state, grads)[0])
    assert int(new_state.skipped) == 1


def test_padding_is_not_looked_at():
    optimizer = fsparse.skip_nonfinite(
        fsparse.multi_transform({"tables": rows.sgd(1.0)})
    )
    table = Table(jnp.zeros((N, D)))
    x = jnp.ones((2, D)).at[1].set(jnp.nan)
    grad = row_grad(jnp.array([3, N], jnp.int32), x, num_rows=N)
    new, state = optimizer.step(table, optimizer.init(table), grad)
    assert int(state.skipped) == 0
    np.testing.assert_array_equal(new.value[3], -1)


# ---- accumulation and clipping ------------------------------------------------------


@pytest.mark.parametrize("num_parts", [1, 2, 3, 6])
def test_accumulated_gradients_are_those_of_the_batch(num_parts):
    params, batch = make_params(), make_batch()
    value, grads = fsparse.value_and_grad(loss)(params, batch)
    accumulated = fsparse.accumulate(fsparse.value_and_grad(loss), num_parts)
    got, got_grads = jax.jit(accumulated)(params, batch)
    np.testing.assert_allclose(got, value, rtol=1e-5)
    chex.assert_trees_all_close(
        got_grads["layers"], grads["layers"], rtol=1e-4, atol=1e-6
    )
    for table in ("in", "out"):
        a, b = got_grads[table].to_dense(), grads[table].to_dense()
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 7.0])
def test_clipping_is_that_of_optax_on_dense_gradients(factor):
    _, grads = fsparse.value_and_grad(loss)(make_params(), make_batch())
    is_rows = lambda x: isinstance(x, RowGrad)  # noqa: E731
    to_dense = partial(
        jax.tree.map, lambda g: g.to_dense() if is_rows(g) else g, is_leaf=is_rows
    )
    dense = to_dense(grads)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(dense)))
    np.testing.assert_allclose(fsparse.global_norm(grads), norm, rtol=1e-6)
    got = to_dense(fsparse.clip_by_global_norm(grads, factor * norm))
    clip = optax.clip_by_global_norm(factor * norm)
    want, _ = clip.update(dense, clip.init(dense))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-7)


def test_clipping_of_nothing_and_of_nan():
    zeros = {"t": row_grad(jnp.zeros(2, jnp.int32), jnp.zeros((2, D)), num_rows=N)}
    got = fsparse.clip_by_global_norm(zeros, 1.0)
    np.testing.assert_array_equal(got["t"].to_dense(), 0)
    bad = fsparse.clip_by_global_norm({"w": jnp.array([1.0, jnp.nan])}, 1.0)
    assert np.isnan(bad["w"]).all()


# ---- mistakes -----------------------------------------------------------------------

PARAMS = make_params()
GRADS = fsparse.grad(loss)(PARAMS, make_batch())


def step_with(transforms, grads=GRADS, labels=None, params=PARAMS, state=None):
    more = () if labels is None else (labels,)
    optimizer = fsparse.multi_transform(transforms, *more)
    state = optimizer.init(params) if state is None else state
    return optimizer.step(params, state, grads)


BOTH = {"tables": rows.sgd(0.1), "dense": optax.sgd(0.1)}
OTHER = row_grad(jnp.zeros(1, jnp.int32), jnp.ones((1, D)), num_rows=N + 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: step_with({"tables": rows.sgd(0.1)}),
            ValueError,
            r"\['layers'\]\[0\] has the label 'dense', and there are \['tables'\]",
        ),
        (
            lambda: step_with({"tables": optax.sgd(0.1), "dense": optax.sgd(0.1)}),
            TypeError,
            r"\['in'\] is a Table with the label 'tables', a GradientTransformation",
        ),
        (
            lambda: step_with({"tables": rows.sgd(0.1), "dense": rows.sgd(0.1)}),
            TypeError,
            r"\['layers'\]\[0\] is a .* label 'dense', a RowOptimizer.*Mark wide",
        ),
        (
            lambda: step_with(BOTH, GRADS | {"in": GRADS["in"].to_dense()}),
            TypeError,
            r"gradient of the table \['in'\] must be a RowGrad.*value_and_grad",
        ),
        (
            lambda: step_with(BOTH, GRADS | {"in": OTHER}),
            ValueError,
            "is it the gradient of another table",
        ),
        (
            lambda: step_with(
                {"tables": rows.adam(0.1), "dense": optax.sgd(0.1)},
                state=joined(rows.adam(0.1), optax.sgd(0.1)).init(make_params(n=N + 2)),
            ),
            ValueError,
            "mu must have the shape of table; was it made for another table",
        ),
        (
            lambda: step_with(
                {"tables": rows.adam(0.1), "dense": optax.sgd(0.1)},
                state=joined(rows.sgd(0.1), optax.sgd(0.1)).init(PARAMS),
            ),
            TypeError,
            "state must be of type AdamState; got SgdState",
        ),
        (
            lambda: step_with(
                BOTH,
                jax.tree.map(lambda x: 0.5 * x, GRADS),  # scales ids, too
            ),
            TypeError,
            "ids must be int32; got ids: f32",
        ),
        (
            lambda: fsparse.accumulate(fsparse.value_and_grad(loss), 4)(
                PARAMS, make_batch()
            ),
            ValueError,
            r"accumulate: num_parts=4 must divide .*; got i32\[6,3\]",
        ),
        (
            lambda: fsparse.accumulate(loss, 0),
            ValueError,
            "accumulate: num_parts must be at least 1; got 0",
        ),
        (
            lambda: fsparse.accumulate(loss, 1.5),
            TypeError,
            "accumulate: num_parts must be a static integer; got float",
        ),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
