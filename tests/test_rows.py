"""Row optimizers against dense float64 oracles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import RowGrad, embedding_bag, reference, row_grad, take_rows
from fsparse.rows import (
    AdagradState,
    AdamState,
    adagrad_init,
    adagrad_update,
    adam_init,
    adam_update,
    sgd_update,
)

B1, B2, EPS = np.float32(0.9), np.float32(0.999), 1e-8


def sgd(table, state, grad, lr):
    return sgd_update(table, grad, learning_rate=lr), state


def adagrad(table, state, grad, lr):
    state = adagrad_init(table) if state is None else state
    return adagrad_update(table, state, grad, learning_rate=lr)


def adam(table, state, grad, lr):
    state = adam_init(table) if state is None else state
    return adam_update(table, state, grad, learning_rate=lr)


def sgd_oracle(w, state, g, named, lr):
    return w - lr * g, state


def adagrad_oracle(w, state, g, named, lr):
    acc = (0 if state is None else state) + g**2
    return w - lr * g / (np.sqrt(acc) + EPS), acc


def adam_oracle(w, state, g, named, lr):
    mu, nu, t = state or (0 * w, 0 * w, 0)
    b1, b2, t = float(B1), float(B2), t + 1
    mu = np.where(named, b1 * mu + (1 - b1) * g, mu)
    nu = np.where(named, b2 * nu + (1 - b2) * g**2, nu)
    step = lr * (mu / (1 - b1**t)) / (np.sqrt(nu / (1 - b2**t)) + EPS)
    return np.where(named, w - step, w), (mu, nu, t)


OPTIMIZERS = {
    "sgd": (sgd, sgd_oracle),
    "adagrad": (adagrad, adagrad_oracle),
    "adam": (adam, adam_oracle),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def make_grad(rng, b, k, d, n):
    """Ids that repeat within and across examples, and padding of every kind."""
    ids = rng.integers(0, max(n // 2, 1), (b, k))
    padding = rng.choice([n, n + 3, -1, -(2**31), 2**31 - 1], (b, k))
    ids = np.where(rng.random((b, k)) < 0.2, padding, ids)
    scale, x = rng.standard_normal((b, k)), rng.standard_normal((b, d))
    arrays = ids.astype(np.int32), scale.astype(np.float32), x.astype(np.float32)
    return RowGrad(*map(jnp.asarray, arrays))


def dense(grad, n):
    """The gradient as f64[n, d], and which rows it names: bool[n, 1]."""
    ids, scale, x = map(np.asarray, grad)
    valid = (ids >= 0) & (ids < n)
    g, named = np.zeros((n, x.shape[1])), np.zeros((n, 1), bool)
    outer = scale[..., None].astype(float) * x[:, None]
    np.add.at(g, ids[valid], outer[valid])
    named[ids[valid]] = True
    return g, named


def random_table(rng, n, d):
    return jnp.asarray(rng.standard_normal((n, d)), jnp.float32)


@every_optimizer
@pytest.mark.parametrize(
    "size", [(0, 2, 3, 4), (1, 1, 1, 1), (7, 5, 9, 20), (33, 8, 65, 40)], ids=str
)
def test_matches_dense_float64_over_steps(rng, name, size):
    b, k, d, n = size
    update, oracle = OPTIMIZERS[name]
    table, state, steps = random_table(rng, n, d), None, 5
    want, want_state = np.asarray(table, float), None
    for t in range(steps):
        grad, lr = make_grad(rng, b, k, d, n), 0.1 / (t + 1)
        table, state = update(table, state, grad, lr)
        want, want_state = oracle(want, want_state, *dense(grad, n), lr)
    # A step is at most about lr * 4; 1 - b2**t loses three digits of its seven.
    atol = steps * 0.4 * 2e-4 if name == "adam" else 1e-5
    np.testing.assert_allclose(table, want, rtol=1e-5, atol=atol)
    if name == "adagrad":
        np.testing.assert_allclose(state.acc, want_state, rtol=1e-5, atol=1e-5)
    if name == "adam":
        np.testing.assert_allclose(state.mu, want_state[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.nu, want_state[1], rtol=1e-4, atol=1e-8)
        assert int(state.count) == steps


TWINS = {  # hyper-parameters, moments and state
    "sgd": ([0.1], 0, lambda: None),
    "adagrad": ([0.1, EPS], 1, AdagradState),
    "adam": ([0.1, B1, B2, EPS, 1 - B1, 1 - B2], 2, partial(AdamState, count=0)),
}


@every_optimizer
def test_matches_its_twin(rng, name):
    hyper, num_moments, make_state = TWINS[name]
    table, grad = random_table(rng, 20, 9), make_grad(rng, 6, 4, 9, 20)
    moments = [jnp.abs(random_table(rng, 20, 9)) for _ in range(num_moments)]
    twin = getattr(reference, f"{name}_rows")
    want = twin(*grad, jnp.array(hyper), table, *moments)
    state = jax.tree.map(jnp.asarray, make_state(*moments))
    got, state = OPTIMIZERS[name][0](table, state, grad, 0.1)
    got = [got, *jax.tree.leaves(state)][: len(want)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@every_optimizer
def test_rows_not_named_keep_their_bits(rng, name):
    update, _ = OPTIMIZERS[name]
    n = 12
    table = random_table(rng, n, 5).at[10].set(jnp.nan).at[11].set(-0.0)
    table, state = update(table, None, make_grad(rng, 6, 3, 5, n), 0.1)
    grad = make_grad(rng, 6, 3, 5, n)
    _, named = dense(grad, n)
    assert 0 < named.sum() < n
    others = ~named[:, 0]
    pairs = zip(
        jax.tree.leaves((table, state)),
        jax.tree.leaves(update(table, state, grad, 1)),
        strict=True,
    )
    for old, new in [(old, new) for old, new in pairs if old.ndim == 2]:
        assert old[others].tobytes() == new[others].tobytes()
        assert (old[~others] != new[~others]).all()


@every_optimizer
def test_only_padding_changes_nothing(rng, name):
    update, _ = OPTIMIZERS[name]
    table = random_table(rng, 6, 5)
    ids = jnp.array([[6, -1], [7, -(2**31)]], jnp.int32)
    grad = RowGrad(ids, jnp.full((2, 2), jnp.nan), jnp.full((2, 5), jnp.nan))
    new, _ = update(table, None, grad, 0.1)
    np.testing.assert_array_equal(new, table)


@every_optimizer
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_spoils_its_own_row_only(rng, name, bad):
    update, _ = OPTIMIZERS[name]
    table = random_table(rng, 8, 3)
    rows = jnp.ones((4, 3)).at[2].set(bad)
    grad = row_grad(jnp.array([1, 3, 5, 7], jnp.int32), rows)
    new, state = update(table, None, grad, 0.1)
    finite = np.isfinite(np.concatenate([new, *jax.tree.leaves(state)[:2]], axis=1))
    np.testing.assert_array_equal(np.flatnonzero(~finite.all(axis=1)), [5])
    assert not np.isfinite(new[5]).any()


def test_a_row_named_twice_is_updated_once_with_the_sum(rng):
    table, rows = random_table(rng, 3, 4), jnp.array([[1.0] * 4, [2.0] * 4])
    twice = row_grad(jnp.array([1, 1], jnp.int32), rows)
    once = row_grad(jnp.array([1], jnp.int32), jnp.full((1, 4), 3.0))
    for update in (adagrad, adam):
        got, want = (
            jax.tree.leaves(update(table, None, g, 0.1)) for g in (twice, once)
        )
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- gradients into and through updates ---------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_row_grad_equals_jax_grad_of_embedding_bag(rng, weighted):
    n, d = 15, 6
    table, ct = random_table(rng, n, d), random_table(rng, 7, d)
    ids, weights, _ = make_grad(rng, 7, 4, d, n)
    weights = weights if weighted else jnp.ones_like(weights)
    want = jax.grad(lambda t: jnp.vdot(embedding_bag(t, ids, weights), ct))(table)
    np.testing.assert_array_equal(RowGrad(ids, weights, ct).to_dense(n), want)


def test_row_grad_equals_jax_grad_of_take_rows(rng):
    table, ids = random_table(rng, 9, 4), jnp.array([3, 3, 9, 0, -1], jnp.int32)
    loss = lambda rows: jnp.sum(jnp.sin(rows))  # noqa: E731
    rows = jax.grad(loss)(take_rows(table, ids))
    want = jax.grad(lambda t: loss(take_rows(t, ids)))(table)
    np.testing.assert_allclose(row_grad(ids, rows).to_dense(9), want, rtol=1e-6)


@every_optimizer
def test_traced_learning_rate_compiles_once(rng, name):
    update, _ = OPTIMIZERS[name]
    table, grad = random_table(rng, 8, 3), make_grad(rng, 4, 2, 3, 8)
    step = jax.jit(lambda lr: update(table, None, grad, lr)[0])
    for lr in (0.1, 0.01):
        want, _ = update(table, None, grad, lr)
        np.testing.assert_allclose(step(jnp.float32(lr)), want, rtol=1e-6)
    assert step._cache_size() == 1


def after_update(name, table, grad):
    """The loss after two updates, of everything the updates depend on."""
    update, _ = OPTIMIZERS[name]

    def loss(lr, table, scale, x):
        g = grad._replace(scale=scale, x=x)
        table, state = update(table, None, g, lr)
        table, _ = update(table, state, g, lr)
        return jnp.sum(jnp.sin(table))

    return loss, (jnp.float32(0.3), table, grad.scale, grad.x)


@every_optimizer
def test_meta_gradients_match_finite_differences(rng, name):
    table, grad = random_table(rng, 8, 3), make_grad(rng, 4, 2, 3, 8)
    loss, args = after_update(name, table, grad)
    gradients = jax.grad(loss, (0, 1, 2, 3))(*args)
    h = 1e-2  # float32: errors of h**2 and of eps / h, both about 1e-4
    for i, gradient in enumerate(gradients):
        direction = jnp.asarray(rng.choice([-1, 1], args[i].shape), jnp.float32)
        moved = [
            loss(*args[:i], args[i] + s * h * direction, *args[i + 1 :])
            for s in (1, -1)
        ]
        slope = (moved[0] - moved[1]) / (2 * h)
        np.testing.assert_allclose(
            jnp.vdot(gradient, direction), slope, rtol=2e-2, atol=2e-2
        )


@every_optimizer
def test_second_meta_gradient_matches_finite_differences(rng, name):
    table, grad = random_table(rng, 8, 3), make_grad(rng, 4, 2, 3, 8)
    loss, (lr, *rest) = after_update(name, table, grad)
    first = jax.grad(loss)
    slope = (first(lr + 1e-2, *rest) - first(lr - 1e-2, *rest)) / 2e-2
    second = jax.grad(first)(lr, *rest)
    np.testing.assert_allclose(second, slope, rtol=2e-2, atol=2e-2)


@every_optimizer
def test_meta_gradients_are_finite_for_padding_and_zeros(name):
    """Weights of padding are usually 0, and so are gradients behind a dead relu."""
    ids = jnp.array([[0, 4], [1, -1]], jnp.int32)
    grad = RowGrad(ids, jnp.array([[1.0, 0.0], [2.0, jnp.nan]]), jnp.zeros((2, 3)))
    loss, args = after_update(name, jnp.ones((4, 3)), grad)
    for gradient in jax.grad(loss, (0, 1, 2, 3))(*args):
        assert np.isfinite(gradient).all()
