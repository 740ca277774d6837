"""Adam whose rows catch up, against dense Adam in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_rows import B1, B2, BF16, EPS, F32, bits, dense, make_grad, rows_grad

from fsparse import _row_ops, reference, rows
from fsparse.rows._exact_adam import _max_terms

CATCH_UP = {"kernel": _row_ops.adam_catch_up, "twin": reference.adam_catch_up}


def dense_adam(w, mu, nu, g, t, lr, b1=B1, b2=B2):
    mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
    step = lr * (mu / (1 - b1**t)) / (np.sqrt(nu / (1 - b2**t)) + EPS)
    return w - step, mu, nu


def schedule(t):
    """A warm-up, then decay: the rates that a row missed all differ."""
    return 0.05 * min(t / 20, 1.0) / (1 + t / 50)


@pytest.mark.parametrize("num_rates", [1024, 16])
@pytest.mark.parametrize("b1", [0.9, 0.5])
def test_equals_dense_adam_over_random_visits(rng, num_rates, b1):
    """Gradients depend on the rows, which are therefore brought up to date first."""
    n, d, m, steps = 40, 7, 3, 200
    start = rng.standard_normal((n, d)).astype(np.float32)
    goal = rng.standard_normal((n, d)).astype(np.float32)
    table, goals = jnp.asarray(start), jnp.asarray(goal)
    state = rows.exact_adam_init(table, b1=b1, _num_rates=num_rates)

    @jax.jit
    def step(table, state, ids, push, lr):
        table, state = rows.exact_adam_catch_up(table, state, ids)
        read = table[ids]
        grad = rows_grad(ids, read - goals[ids] + push, n)
        table, state = rows.exact_adam_update(table, state, grad, learning_rate=lr)
        return table, state, read

    w, mu, nu = start.astype(float), np.zeros((n, d)), np.zeros((n, d))
    for t in range(1, steps + 1):
        # A few rows are visited often, the others hardly ever.
        ids = (n * rng.random(m) ** 3).astype(np.int32)
        push = rng.standard_normal((m, d)).astype(np.float32)
        lr = np.float32(schedule(t))
        table, state, read = step(table, state, ids, push, lr)
        np.testing.assert_allclose(read, w[ids], atol=2e-5)
        g = np.zeros((n, d))
        np.add.at(g, ids, w[ids] - goal[ids] + push)
        w, mu, nu = dense_adam(w, mu, nu, g, t, float(lr), float(np.float32(b1)))
    assert int(state.count) == steps
    assert int(jnp.min(state.last)) < steps
    table, state = rows.exact_adam_flush(table, state)
    assert (state.last == steps).all()
    np.testing.assert_allclose(table, w, atol=1e-5)
    np.testing.assert_allclose(state.mu, mu, atol=1e-5)
    np.testing.assert_allclose(state.nu, nu, rtol=1e-4, atol=1e-6)


def test_rounded_tables_follow_dense_adam(rng):
    """In bfloat16 an element wanders by the rounding of the updates that touch it."""
    n, d, steps = 200, 16, 100
    table = jnp.asarray(rng.standard_normal((n, d)), F32).astype(BF16)
    w, mu, nu = np.asarray(table, float), 0, 0
    state = rows.exact_adam_init(table, moment_dtype=BF16, _num_rates=16)
    update = jax.jit(rows.exact_adam_update)
    for t in range(1, steps + 1):
        grad, lr = make_grad(rng, 40, 9, d, n), schedule(t)
        table, state = update(table, state, grad, learning_rate=lr)
        w, mu, nu = dense_adam(w, mu, nu, dense(grad)[0], t, lr)
    table, _ = rows.exact_adam_flush(table, state)
    error = np.asarray(table, float) - w
    assert np.abs(error).mean() < 0.03
    assert abs(error.mean()) < 5 * 0.03 / np.sqrt(error.size)


def catch_up_oracle(w, mu, nu, history, step, last, max_terms):
    """One row in float64, an update at a time."""
    slots = len(history)
    if not 0 <= last <= step:
        return w, mu, nu
    for tau in range(last + 1, step + 1):
        mu, nu = B1 * mu, B2 * nu
        j = tau - max(last, step - slots)
        if 1 <= j <= max_terms:
            alpha, corr = history[tau % slots]
            w = w - alpha * mu / (np.sqrt(nu) * corr + EPS)
    return w, mu, nu


@pytest.mark.parametrize("way", CATCH_UP)
@pytest.mark.parametrize("max_terms", [0, 1, 4, 7, 100])
def test_catching_up_by_formula(rng, way, max_terms):
    """Of rows that missed nothing, little, more than the ring holds, or nonsense."""
    step, slots, d = 30, 7, 67
    last = np.array([30, 29, 25, 24, 23, 22, 10, 0, -1, 31, 2**31 - 1, -(2**31)])
    n = len(last)
    history = np.abs(rng.standard_normal((slots, 2))).astype(np.float32)
    w, mu = rng.standard_normal((2, n, d)).astype(np.float32)
    nu = np.abs(rng.standard_normal((n, d))).astype(np.float32)
    ids = np.array([*range(n), 3, -1, n, 5], np.int32)
    hyper = np.array([B1, B2, EPS, max_terms], np.float32)
    last, steps = last.astype(np.int32), np.array([step], np.int32)
    seed = np.zeros(2, np.uint32)
    got = CATCH_UP[way](
        *map(jnp.asarray, (ids, hyper, history, steps, seed, w, mu, nu, last))
    )
    for r in range(n):
        row = (x[r].astype(float) for x in (w, mu, nu))
        want = catch_up_oracle(*row, history.astype(float), step, last[r], max_terms)
        for a, b in zip(got, want, strict=False):
            np.testing.assert_allclose(a[r], b, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(got[3], step)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=["f32", "bf16"])
def test_rows_that_are_up_to_date_keep_their_bits(rng, dtype):
    n, d = 30, 9
    table = jnp.asarray(rng.standard_normal((n, d)), F32).astype(dtype)
    state = rows.exact_adam_init(table, moment_dtype=dtype)
    for _ in range(3):
        grad = make_grad(rng, 20, 9, d, n)
        table, state = rows.exact_adam_update(table, state, grad, learning_rate=0.1)
    table, state = rows.exact_adam_flush(table, state)
    again = rows.exact_adam_flush(table, state)
    for a, b in zip(
        jax.tree.leaves((table, state)), jax.tree.leaves(again), strict=True
    ):
        assert a.tobytes() == b.tobytes()


def test_catching_up_in_parts_is_catching_up_at_once(rng):
    """Which rows catch up when does not show in the result."""
    n, d = 30, 9
    table = jnp.asarray(rng.standard_normal((n, d)), F32)
    state = rows.exact_adam_init(table)
    for _ in range(3):
        grad = make_grad(rng, 20, 9, d, n)
        table, state = rows.exact_adam_update(table, state, grad, learning_rate=0.1)
    want, _ = rows.exact_adam_flush(table, state)
    ids = jnp.array([*range(0, n, 2), 4, 4, -1, n], jnp.int32)
    table, state = rows.exact_adam_catch_up(table, state, ids)
    np.testing.assert_array_equal(state.last[::2], 3)
    got, _ = rows.exact_adam_flush(table, state)
    assert got.tobytes() == want.tobytes()


def test_no_rate_is_forgotten_before_all_rows_used_it(rng):
    """A row named once and never again lags by H updates at most."""
    n, slots = 3, 8
    table = jnp.ones((n, 2))
    state = rows.exact_adam_init(table, _num_rates=slots)
    only = lambda r: rows_grad([r], jnp.ones((1, 2)), n)  # noqa: E731
    for t in range(5 * slots):
        table, state = rows.exact_adam_update(
            table, state, only(0 if t < 2 else 1), learning_rate=0.1
        )
        assert int(jnp.max(state.count - state.last)) <= slots


@pytest.mark.parametrize(
    ("b1", "b2"), [(0.9, 0.999), (0.5, 0.9), (0.0, 0.9), (0.95, 0.9), (0.99, 0.999)]
)
def test_moves_are_left_out_when_they_are_negligible(b1, b2):
    state = rows.exact_adam_init(jnp.ones((1, 1)), b1=b1, b2=b2)
    ratio, terms = b1 / np.sqrt(b2), 0
    while terms < 1024 and ratio**terms >= 1e-9:
        terms += 1
    assert int(_max_terms(state)) == terms


def test_zero_moments_move_nothing():
    """Not even where eps is 0, and dense Adam would divide 0 by 0."""
    table = jnp.ones((4, 100))
    state = rows.exact_adam_init(table, eps=0.0)
    grad = rows_grad([1], jnp.ones((1, 100)), 4)
    for _ in range(3):
        table, state = rows.exact_adam_update(table, state, grad, learning_rate=0.1)
    table, _ = rows.exact_adam_flush(table, state)
    np.testing.assert_array_equal(table[np.array([0, 2, 3])], 1)


def test_the_seed_of_catching_up_is_its_own(rng):
    """The update that follows rounds the same rows, and takes other bits."""
    n, d = 50, 60
    table = jnp.ones((n, d), BF16)
    state = rows.exact_adam_init(table)
    grad = rows_grad(np.arange(n), jnp.asarray(rng.standard_normal((n, d)), F32), n)
    table, state = rows.exact_adam_update(table, state, grad, learning_rate=1e-3)
    table, state = rows.exact_adam_update(
        table, state, rows_grad([n], jnp.ones((1, d)), n), learning_rate=1e-3
    )
    caught_up, _ = rows.exact_adam_flush(table, state)
    assert (bits(caught_up) != bits(table)).any()
