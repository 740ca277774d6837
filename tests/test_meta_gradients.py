"""Derivatives of row updates, against finite differences and across roundings."""

import jax
import jax.numpy as jnp
import numpy as np
from quick import quick_jit
from test_rows import (
    BF16,
    F32,
    OPTIMIZERS,
    every_optimizer,
    make,
    make_grad,
    random_table,
)

from fsparse import RowGrad, rows


@every_optimizer
def test_traced_learning_rate_compiles_once(rng, name):
    table, grad = random_table(rng, 8, 3), make_grad(rng, 8, 4, 3, 8)
    state, update = make(name, table)
    step = jax.jit(lambda lr: update(table, state, grad, learning_rate=lr)[0])
    for lr in (0.1, 0.01):
        want, _ = update(table, state, grad, learning_rate=lr)
        np.testing.assert_allclose(step(jnp.float32(lr)), want, rtol=1e-6)
    assert step._cache_size() == 1


def after_update(name, table, grad):
    """The loss after two updates, of everything the updates depend on."""
    kwargs = {"_num_rates": 4} if name == "exact_adam" else {}
    init, update, _ = OPTIMIZERS[name]

    def loss(lr, table, scale, x):
        g = RowGrad(grad.ids, scale, grad.source, x, grad.num_rows)
        table, state = update(table, init(table, **kwargs), g, learning_rate=lr)
        table, state = update(table, state, g, learning_rate=lr)
        if name == "exact_adam":
            other = RowGrad(grad.ids[:1], scale[:1], grad.source[:1], x, grad.num_rows)
            table, state = update(table, state, other, learning_rate=lr)
            table, _ = rows.exact_adam_flush(table, state)
        return jnp.sum(jnp.sin(table))

    return jax.jit(loss), (jnp.float32(0.3), table, grad.scale, grad.x)


@every_optimizer
def test_meta_gradients_match_finite_differences(rng, name):
    table, grad = random_table(rng, 8, 3), make_grad(rng, 8, 4, 3, 8)
    loss, args = after_update(name, table, grad)
    gradients = quick_jit(jax.grad(loss, (0, 1, 2, 3)))(*args)
    h = 1e-2  # float32: errors of h**2 and of eps / h, both about 1e-4
    for i, gradient in enumerate(gradients):
        direction = jnp.asarray(rng.choice([-1, 1], args[i].shape), F32)
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
    table, grad = random_table(rng, 8, 3), make_grad(rng, 8, 4, 3, 8)
    loss, (lr, *rest) = after_update(name, table, grad)
    first = quick_jit(jax.grad(loss))
    slope = (first(lr + 1e-2, *rest) - first(lr - 1e-2, *rest)) / 2e-2
    second = quick_jit(jax.grad(jax.grad(loss)))(lr, *rest)
    np.testing.assert_allclose(second, slope, rtol=2e-2, atol=2e-2)


@every_optimizer
def test_meta_gradients_are_finite_for_padding_and_zeros(name):
    """Weights of padding are usually 0, and so are gradients behind a dead relu."""
    grad = RowGrad(
        ids=jnp.array([0, 4, 1, -1, 2], jnp.int32),
        scale=jnp.array([1.0, 0.0, 2.0, jnp.nan, jnp.nan]),
        source=jnp.array([0, 0, 1, 1, 2], jnp.int32),
        x=jnp.zeros((2, 3)),
        num_rows=4,
    )
    loss, args = after_update(name, jnp.ones((4, 3)), grad)
    for gradient in jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*args):
        assert np.isfinite(gradient).all()


def test_gradient_of_the_norm(rng):
    grad = make_grad(rng, 35, 7, 9, 20)

    def norm(scale, x, to_dense):
        g = RowGrad(grad.ids, scale, grad.source, x, grad.num_rows)
        return jnp.linalg.norm(g.to_dense()) if to_dense else rows.global_norm([g])

    got, want = (jax.grad(norm, (0, 1))(grad.scale, grad.x, way) for way in (0, 1))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@every_optimizer
def test_derivative_of_rounding_is_that_of_the_identity(rng, name):
    table, grad = random_table(rng, 8, 3), make_grad(rng, 8, 4, 3, 8)

    def loss(lr, dtype):
        low = table.astype(dtype)
        state, update = make(name, low)
        new, _ = update(low, state, grad, learning_rate=lr)
        return jnp.sum(new.astype(F32))

    got, want = (jax.grad(loss)(0.3, dtype) for dtype in (BF16, F32))
    np.testing.assert_allclose(got, want, rtol=2e-2, atol=2e-2)
