"""The softmax loss without logits: oracles in float64, padding, what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_jit

import fsparse
from fsparse import Table

# b, m, d, n, labels: edges of a panel of 32; past a tile of 256 examples by 640 ids, in
# chunks of examples too; past 256 columns, where two products give the gradients; and
# nothing at all.
SIZES = [
    (1, 1, 1, 1, 1),
    (3, 33, 31, 9, 2),
    (33, 32, 33, 40, 1),
    (40, 1300, 64, 900, 3),
    (530, 700, 20, 90, 2),
    (5, 70, 257, 30, 4),
]
EMPTY = [(0, 5, 3, 4, 2), (4, 0, 3, 4, 2), (4, 5, 3, 4, 0), (4, 5, 3, 0, 2)]


def make(rng, b, m, d, n, num_labels):
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((b, d), (n, d)))
    ids = rng.integers(-2, n + 2, m).astype(np.int32)
    targets = rng.integers(-2, m + 2, (b, num_labels)).astype(np.int32)
    is_active, offsets = rng.random(m) < 0.9, rng.standard_normal(m)
    return x, w, ids, targets, is_active, offsets.astype(np.float32)


def oracle(ct, x, w, ids, targets, is_active, offsets):
    """The losses in float64, and the gradients of ``ct . losses`` but of padding."""
    is_row = (ids >= 0) & (ids < len(w))
    rows = np.zeros((len(ids), x.shape[1]))
    rows[is_row] = w[ids[is_row]].astype(float)
    y = x.astype(float) @ rows.T + offsets
    p = np.where(is_active, np.exp(y - y.max(axis=1, initial=0, keepdims=True)), 0)
    total = p.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_z = np.log(total[:, 0]) + y.max(axis=1, initial=0)
    shares, losses = np.zeros(y.shape), np.zeros(len(x))
    for i, own in enumerate(targets):
        labels = own[(own >= 0) & (own < len(ids))]
        for t in labels:
            shares[i, t] += 1 / len(labels)
            losses[i] += (log_z[i] - y[i, t]) / len(labels)
    has_labels = shares.sum(axis=1, keepdims=True) > 0
    p = np.divide(p, total, out=np.zeros(p.shape), where=total > 0)
    v = ct[:, None] * (has_labels * p - shares)
    return losses, (v @ rows, np.where(is_row[:, None], v.T @ x, 0), v.sum(axis=0))


def value_and_grads(ct, x, w, ids, targets, is_active, offsets):
    """The losses and the gradients in ``x``, rows and offsets."""

    def total(x, table, offsets):
        args = (x, table, ids, targets, is_active, offsets)
        losses = fsparse.fused_softmax_loss(*args)
        return ct @ losses, losses

    both = quick_jit(fsparse.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
    (_, losses), (z, rows, columns) = both(x, Table(jnp.asarray(w)), offsets)
    return losses, (z, rows.x, columns)


def assert_close(got, want, tolerance=3e-6):
    """Up to a share of the largest."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        most = np.max(np.abs(np.where(np.isfinite(b), b, 0)), initial=1)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=tolerance * most)


@pytest.mark.parametrize("size", [*SIZES, *EMPTY])
def test_matches_float64(rng, size):
    operands = make(rng, *size)
    ct = rng.standard_normal(size[0]).astype(np.float32)
    assert_close(value_and_grads(ct, *operands), oracle(ct, *operands))


@pytest.mark.parametrize("size", SIZES)
def test_bf16_has_the_bits_of_f32(rng, size):
    x, w, *rest = make(rng, *size)
    ct = rng.standard_normal(size[0]).astype(np.float32)
    half = jnp.asarray(w, jnp.bfloat16)
    got = value_and_grads(ct, x, half, *rest)
    want = value_and_grads(ct, x, half.astype(jnp.float32), *rest)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_logits_of_all_magnitudes(rng):
    """Losses as large as the logits; no exp overflows, and none is lost to a shift."""
    x, w, *rest, _ = make(rng, 9, 1500, 8, 700, 2)
    offsets = rng.choice([-3e4, -200, 0, 200], 1500).astype(np.float32)
    ct = np.ones(9, np.float32)
    got = value_and_grads(ct, x, w, *rest, offsets)
    assert_close(got, oracle(ct, x, w, *rest, offsets), 3e-5)  # 200 has an ulp of 2e-5


def held_loss(x, w, ids, targets, is_active, offsets):
    logits = fsparse.sampled_matmul(x, w, ids) + offsets
    return fsparse.sampled_softmax_loss(logits, targets, is_active)


@pytest.mark.parametrize("which", [(0,), (1,), (5,), (0, 1, 5)])
def test_derivatives_of_jax_are_those_of_the_two_functions(rng, which):
    """First ones, of forward mode too, and second ones; of a dense table."""
    operands = [jnp.asarray(a) for a in make(rng, 6, 40, 5, 30, 2)]
    moving = tuple(operands[i] for i in which)
    direction = tuple(jnp.asarray(rng.standard_normal(a.shape), "f") for a in moving)

    def derivatives(loss):
        def total(*xs):
            args = list(operands)
            for i, x in zip(which, xs, strict=True):
                args[i] = x
            return jnp.sum(jnp.sin(loss(*args)))

        grads = jax.grad(total, range(len(which)))
        slopes = lambda *xs: jax.jvp(total, xs, direction)  # noqa: E731
        second = jax.jvp(grads, moving, direction)[1]
        of_slope = jax.grad(lambda *xs: slopes(*xs)[1], range(len(which)))
        return grads(*moving), slopes(*moving), second, of_slope(*moving)

    got = quick_jit(lambda: derivatives(fsparse.fused_softmax_loss))()
    assert_close(got, quick_jit(lambda: derivatives(held_loss))(), 1e-5)


@pytest.mark.parametrize("size", EMPTY)
def test_nothing_is_fine_for_the_two_functions_too(rng, size):
    """Also where the twin runs, which is made of them."""
    operands = [jnp.asarray(a) for a in make(rng, *size)]
    total = lambda x, w: fsparse.fused_softmax_loss(x, w, *operands[2:]).sum()  # noqa: E731
    x, w = operands[:2]
    of_x, of_w = jax.grad(total, (0, 1))(x, w)
    assert (of_x.shape, of_w.shape) == (x.shape, w.shape)
    assert not np.any(of_w)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_with_its_example(rng, bad):
    """Of losses and of gradients in x; the bits of others are as they were."""
    x, w, *rest = make(rng, 300, 700, 20, 90, 2)
    ct = np.ones(300, np.float32)
    losses, (z, _, _) = value_and_grads(ct, x, w, *rest)
    x[7, 3] = bad
    got, (new_z, _, _) = value_and_grads(ct, x, w, *rest)
    held = held_loss(x, w, *rest)
    np.testing.assert_array_equal(np.isnan(got[7]), np.isnan(held[7]))
    assert np.isnan(new_z[7]).all()
    for old, new in ((losses, got), (z, new_z)):
        np.testing.assert_array_equal(np.delete(old, 7, 0), np.delete(new, 7, 0))


def test_padding_hides_nan(rng):
    """No id names row 0, and none is in the place of padding."""
    x, w, ids, *rest = make(rng, 9, 40, 5, 15, 2)
    ids[ids == 0] = 15
    ct = np.ones(9, np.float32)
    want = value_and_grads(ct, x, w, ids, *rest)
    w[0] = np.nan
    got = value_and_grads(ct, x, w, ids, *rest)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert not np.any(got[1][1][(ids < 0) | (ids >= 15)])


def test_without_offsets_they_are_zero(rng):
    *operands, offsets = make(rng, 9, 40, 5, 15, 2)
    np.testing.assert_array_equal(
        fsparse.fused_softmax_loss(*operands),
        fsparse.fused_softmax_loss(*operands, 0 * offsets),
    )


def test_holds_no_logits(rng):
    """Neither by a Table nor of a fixed one; mapped examples are more examples."""
    x, w, *rest = make(rng, 20, 300, 4, 20, 1)
    ids, targets, *others = rest

    def total(x, w):
        return fsparse.fused_softmax_loss(x, w, *rest).sum()

    def mapped(x, w):
        each = lambda x, t: fsparse.fused_softmax_loss(x, w, ids, t, *others)  # noqa: E731
        shapes = x.reshape(5, 4, -1), targets.reshape(5, 4, -1)
        return jax.vmap(each)(*shapes).sum()

    table = Table(jnp.asarray(w))
    for loss in (total, mapped):
        of_table = fsparse.value_and_grad(loss, argnums=(0, 1))
        for made in (
            jax.make_jaxpr(of_table)(x, table),
            jax.make_jaxpr(jax.grad(loss))(x, w),
        ):
            text = str(made)
            assert "fsparse_fused_softmax_grads" in text
            for shape in ("f32[20,300]", "f32[1,20,300]", "f32[5,4,300]", "[5,300"):
                assert shape not in text
    _, (of_x, of_w) = fsparse.value_and_grad(mapped, argnums=(0, 1))(x, table)
    _, wanted = fsparse.value_and_grad(total, argnums=(0, 1))(x, table)
    assert_close((of_x, of_w.to_dense()), (wanted[0], wanted[1].to_dense()))


def test_a_second_derivative_in_a_table_is_refused(rng):
    x, w, *rest = make(rng, 4, 9, 3, 5, 1)

    def slope(table):
        total = lambda x: fsparse.fused_softmax_loss(x, table, *rest).sum()  # noqa: E731
        return jnp.sum(jax.grad(total)(x) ** 2)

    with pytest.raises(TypeError, match=r"For its second derivatives use"):
        fsparse.grad(slope)(Table(jnp.asarray(w)))
