"""The softmax loss over an active set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fsparse.losses import sampled_sigmoid_loss, sampled_softmax_loss


def oracle(logits, targets, is_active):
    """Minus the mean log-softmax at the targets, in float64."""
    masked = np.where(is_active, np.asarray(logits, float), -np.inf)
    log_p = special.log_softmax(masked, axis=1)
    m = logits.shape[1]
    own = [[t for t in row if 0 <= t < m] for row in np.asarray(targets).tolist()]
    return [-log_p[i, ts].mean() if ts else 0.0 for i, ts in enumerate(own)]


def make(rng, b, m, l, scale=1.0):  # noqa: E741
    """Logits, targets with a fifth of padding that point at active columns."""
    logits = (scale * rng.standard_normal((b, m))).astype(np.float32)
    is_active = np.arange(m) < max(m - 3, 1)
    targets = rng.integers(0, max(m - 3, 1), (b, l))
    padding = rng.choice([m, m + 1, -1], (b, l))
    targets = np.where(rng.random((b, l)) < 0.2, padding, targets)
    return logits, targets.astype(np.int32), is_active


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("size", [(1, 1, 1), (6, 9, 1), (40, 70, 4)], ids=str)
def test_loss_matches_scipy(rng, size, scale):
    logits, targets, is_active = make(rng, *size, scale)
    got = sampled_softmax_loss(logits, targets, is_active)
    want = oracle(logits, targets, is_active)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale)
    assert got.dtype == jnp.float32


def test_each_example_may_have_columns_of_its_own(rng):
    """As if it were alone."""
    logits, targets, _ = make(rng, 7, 9, 2)
    is_active = rng.random((7, 9)) < 0.7
    got = sampled_softmax_loss(logits, targets, is_active)
    for i in range(7):
        row = slice(i, i + 1)
        alone = sampled_softmax_loss(logits[row], targets[row], is_active[i])
        np.testing.assert_array_equal(got[row], alone)


def test_several_labels_share_the_mass(rng):
    """The loss is the cross-entropy to the uniform distribution over the labels."""
    logits = rng.standard_normal((1, 6)).astype(np.float32)
    targets = np.array([[1, 4, 6]], np.int32)
    uniform = np.array([0, 0.5, 0, 0, 0.5, 0])
    want = -(uniform * special.log_softmax(logits[0])).sum()
    got = sampled_softmax_loss(logits, targets, np.ones(6, bool))
    np.testing.assert_allclose(got, [want], rtol=1e-6)


@pytest.mark.parametrize("m", [0, 1, 5])
def test_no_label_gives_zero_loss_and_gradient(m):
    """Also without active columns, and with logits of padding that are NaN."""
    logits = jnp.full((2, m), jnp.nan)
    targets = jnp.array([[m, -1], [m + 1, m]], jnp.int32)
    loss = lambda z: sampled_softmax_loss(z, targets, jnp.zeros(m, bool))  # noqa: E731
    np.testing.assert_array_equal(loss(logits), 0)
    np.testing.assert_array_equal(jax.grad(lambda z: loss(z).sum())(logits), 0)


def test_a_target_at_an_inactive_column_counts_with_its_logit():
    """As documented: it is not in the sum, so the loss is no cross-entropy."""
    logits = jnp.array([[0.0, 1.0, 5.0], [0.0, 1.0, 5.0]])
    targets, is_active = jnp.array([[2], [1]]), jnp.array([True, True, False])
    loss = lambda z: sampled_softmax_loss(z, targets, is_active)  # noqa: E731
    log_z = np.log(1 + np.e)
    np.testing.assert_allclose(loss(logits), [log_z - 5, log_z - 1], rtol=1e-6)
    p = 1 / (1 + np.e)
    want = [[p, 1 - p, -1], [p, -p, 0]]
    gradient = jax.grad(lambda z: loss(z).sum())(logits)
    np.testing.assert_allclose(gradient, want, rtol=1e-6)


def test_gradient_matches_numeric(rng):
    """And is 0 for padding, whatever its logits."""
    logits, targets, is_active = make(rng, 5, 8, 3)
    logits[:, ~is_active] = np.nan
    total = lambda z: sampled_softmax_loss(z, targets, is_active).sum()  # noqa: E731
    gradient = np.asarray(jax.grad(total)(logits))
    h, numeric = 1e-6, np.zeros(logits.shape)
    for at in np.ndindex(logits.shape):
        step = np.zeros(logits.shape)
        step[at] = h
        up, down = (oracle(logits + s * step, targets, is_active) for s in (1, -1))
        numeric[at] = (np.sum(up) - np.sum(down)) / (2 * h)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)
    assert not gradient[:, ~is_active].any()


# ---- independent labels -------------------------------------------------------------


def sigmoid_oracle(logits, targets, is_active):
    """Column by column, in float64."""
    b, m = logits.shape
    is_active = np.broadcast_to(is_active, (b, m))
    losses = np.zeros(b)
    for i in range(b):
        own = {t for t in targets[i].tolist() if 0 <= t < m}
        for j in np.flatnonzero(is_active[i]) if own else ():
            x = float(logits[i, j])
            losses[i] += np.logaddexp(0, -x if j in own else x)
    return losses


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("size", [(1, 1, 1), (6, 9, 1), (40, 70, 4)], ids=str)
def test_sigmoid_loss_matches_its_sum(rng, size, scale):
    logits, targets, is_active = make(rng, *size, scale)
    got = sampled_sigmoid_loss(logits, targets, is_active)
    want = sigmoid_oracle(logits, targets, is_active)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale)
    mask = rng.random(logits.shape) < 0.7
    got = sampled_sigmoid_loss(logits, targets, mask)
    want = sigmoid_oracle(logits, targets, mask)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale)


def test_sigmoid_loss_of_padding_is_zero_and_so_are_its_gradients():
    logits = jnp.array([[jnp.nan, 1.0, jnp.inf], [2.0, jnp.nan, -jnp.inf]])
    targets = jnp.array([[3, -1], [0, 3]], jnp.int32)
    is_active = jnp.array([True, False, False])
    loss = lambda z: sampled_sigmoid_loss(z, targets, is_active)  # noqa: E731
    np.testing.assert_allclose(loss(logits), [0, np.log1p(np.exp(-2))], rtol=1e-6)
    for derivative in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        sum_of = lambda x: loss(logits.at[1, 0].set(x)).sum()  # noqa: E731
        assert np.isfinite(derivative(sum_of)(2.0))
    grads = jax.grad(lambda z: loss(z).sum())(logits)
    np.testing.assert_allclose(grads, [[0, 0, 0], [-1 / (1 + np.exp(2)), 0, 0]])


def test_sigmoid_loss_counts_a_repeated_label_once():
    logits = jnp.array([[1.0, 2.0, 3.0]])
    once, twice = jnp.array([[1, 3]]), jnp.array([[1, 1]])
    active = jnp.ones(3, bool)
    np.testing.assert_array_equal(
        sampled_sigmoid_loss(logits, once, active),
        sampled_sigmoid_loss(logits, twice, active),
    )


def test_sigmoid_loss_names_itself_in_errors():
    with pytest.raises(TypeError, match="sampled_sigmoid_loss: targets must be int32"):
        sampled_sigmoid_loss(jnp.ones((1, 2)), jnp.ones((1, 1)), jnp.ones(2, bool))
