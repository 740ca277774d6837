"""The shared active set, and the softmax loss over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from fsparse.losses import sampled_softmax_loss
from fsparse.sampling import shared_active_set

N = 50
LABELS = np.array([[7, 2, N], [2, 49, -1], [N, N + 1, 2**31 - 1]], np.int32)
OWN = np.unique([2, 7, 49])


def active_set(seed, labels=LABELS, n=N, negatives=20):
    key = jax.random.key(seed)
    return shared_active_set(key, labels, num_rows=n, num_negatives=negatives)


@pytest.mark.parametrize("negatives", [0, 1, 20, 400])
def test_active_set_holds_all_labels_once(negatives):
    ids, targets = map(np.asarray, active_set(0, negatives=negatives))
    assert ids.shape == (LABELS.size + negatives,)
    assert ids.dtype == targets.dtype == np.int32
    active = ids[ids < N]
    assert (np.diff(active) > 0).all()
    np.testing.assert_array_equal(ids[active.size :], N)
    assert set(OWN) <= set(active)
    is_label = (LABELS >= 0) & (LABELS < N)
    np.testing.assert_array_equal(ids[targets[is_label]], LABELS[is_label])
    np.testing.assert_array_equal(targets[~is_label], ids.size)


def test_active_set_of_nothing():
    ids, targets = active_set(0, np.zeros((0, 3), np.int32), negatives=0)
    assert (ids.shape, targets.shape) == ((0,), (0, 3))


def test_active_set_depends_on_the_key_alone():
    same = np.testing.assert_array_equal
    same(active_set(3).ids, active_set(3).ids)
    assert not np.array_equal(active_set(3).ids, active_set(4).ids)


def test_negatives_are_uniform():
    """Chi-square of the rows that 2,000 draws chose; a false alarm in 10,000 keys."""
    none = np.full((1, 1), N, np.int32)
    keys = jax.random.split(jax.random.key(11), 2000)
    draw = lambda key: shared_active_set(key, none, num_rows=N, num_negatives=1)  # noqa: E731
    counts = np.bincount(np.asarray(jax.vmap(draw)(keys).ids[:, 0]), minlength=N)
    assert counts.size == N
    assert stats.chisquare(counts).pvalue > 1e-4


# ---- loss ---------------------------------------------------------------------------


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


def test_loss_over_all_rows_is_the_dense_loss(rng):
    """Through an active set that holds every row: 400 draws miss none of 20."""
    n, labels = 20, rng.integers(0, 20, (8, 1)).astype(np.int32)
    ids, targets = active_set(0, labels, n, 400)
    np.testing.assert_array_equal(ids[:n], np.arange(n))
    dense = jnp.asarray(rng.standard_normal((8, n)), jnp.float32)
    logits = jnp.take(dense, ids, axis=1, mode="fill", fill_value=7.0)
    got = sampled_softmax_loss(logits, targets, ids < n)
    want = -jnp.take_along_axis(jax.nn.log_softmax(dense), labels, axis=1)[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-6)


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
