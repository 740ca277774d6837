"""Products of shared sets by ``jax.default_matmul_precision``: oracles in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ffi_contract import OF_PARTS
from test_fused_softmax import make as make_loss
from test_fused_softmax import oracle as loss_oracle
from test_fused_softmax import value_and_grads
from test_matmul import make

import fsparse
from fsparse import Table, _ffi, reference
from fsparse._shared_grads import grads_op

bfloat16 = lambda: jax.default_matmul_precision("bfloat16")  # noqa: E731
ROUNDS = _ffi.cpu_level == "amx"  # other levels multiply f32
# b, m, d, n: edges of a panel of 32, past a chunk of 256, and past what is fused.
SIZES = [(2, 1, 1, 1), (33, 65, 31, 40), (300, 700, 129, 90), (5, 70, 300, 30)]


def rounded(a):
    """What a product is of, in float64."""
    a = jnp.asarray(a, jnp.bfloat16 if ROUNDS else jnp.float32)
    return np.asarray(a.astype(jnp.float32), np.float64)


def oracles(v, x, w, ids):
    """Of rounded operands: logits, the gradients of x, those of rows."""
    is_row = (ids >= 0) & (ids < len(w))
    rows = np.zeros((len(ids), w.shape[1]))
    rows[is_row] = rounded(w)[ids[is_row]]
    v, x = rounded(v), rounded(x)
    return x @ rows.T, v @ rows, np.where(is_row[:, None], v.T @ x, 0)


def check(got, want, terms):
    most = np.max(np.abs(want), initial=1e-30)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7 * terms * most)


@pytest.mark.parametrize("size", SIZES)
def test_operands_are_rounded_and_sums_are_not(rng, size):
    x, w, v, ids = make(rng, *size, shared=True)
    y, z, rows = oracles(v, x, w, ids)
    dense = np.zeros(w.shape)
    is_row = (ids >= 0) & (ids < len(w))
    np.add.at(dense, ids[is_row], rows[is_row])
    with bfloat16():
        check(fsparse.sampled_matmul(x, w, ids), y, 30)
        check(fsparse.gather_matmul(v, w, ids), z, 30)
        check(fsparse.scatter_outer(v, x, ids, num_rows=len(w)), dense, 30)
    parts = {"num_parts": 1}
    got = grads_op(v[None], x[None], jnp.asarray(w), ids[None], **parts)
    check(got[0][0], z, 30)
    check(got[1][0], rows, 30)


def test_twins_know_the_precision(rng):
    """They leave its bits to the platform, which may take more."""
    x, w, v, ids = make(rng, 33, 65, 31, 40, shared=True)
    y, z, _ = oracles(v, x, w, ids)
    twins = (
        reference.sampled_matmul(x[None], w, ids[None], num_parts=1),
        reference.gather_matmul(v[None], w, ids[None], num_parts=1),
        reference.sum_examples(v[None], x[None], num_parts=1),
    )
    for (got,), want in zip(twins, (y, z, rounded(v).T @ rounded(x)), strict=True):
        np.testing.assert_allclose(got[0], want, atol=2**-6 * np.abs(want).max())


@pytest.mark.parametrize("size", SIZES)
def test_bf16_tables_have_the_bits_of_f32_tables(rng, size):
    x, w, v, ids = make(rng, *size, shared=True)
    half = jnp.asarray(w, jnp.bfloat16)
    with bfloat16():
        for op, a in ((fsparse.sampled_matmul, x), (fsparse.gather_matmul, v)):
            got, want = op(a, half, ids), op(a, half.astype(jnp.float32), ids)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("d", [20, 300])
def test_the_fused_loss_is_that_of_rounded_logits(rng, d):
    """Its gradients also round what comes out of the softmax."""
    x, w, *rest = make_loss(rng, 300, 700, d, 90, 2)
    x, w = x / d**0.5, w / d**0.5
    ct = np.ones(300, np.float32)
    _, exact = value_and_grads(ct, x, w, *rest)
    with bfloat16():
        losses, grads = value_and_grads(ct, x, w, *rest)
    want, wanted = loss_oracle(ct, *map(rounded, (x, w)), *rest)
    np.testing.assert_allclose(losses, want, rtol=1e-5, atol=1e-5)
    for a, b, c in zip(grads, wanted, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=2**-8 * np.abs(b).max())
        assert np.any(a != c) == ROUNDS


def test_the_context_decides_at_each_call(rng):
    """Eagerly, and by another program where it was compiled before."""
    x, w, _, ids = make(rng, 33, 65, 31, 40, shared=True)
    for call in (fsparse.sampled_matmul, jax.jit(fsparse.sampled_matmul)):
        exact = call(x, w, ids)
        with bfloat16():
            coarse = call(x, w, ids)
        np.testing.assert_array_equal(call(x, w, ids), exact)
        assert np.any(coarse != exact) == ROUNDS
        for name in ("highest", "high", "default", "float32", "tensorfloat32"):
            with jax.default_matmul_precision(name):
                np.testing.assert_array_equal(call(x, w, ids), exact)


def test_sets_of_each_example_and_rows_as_they_are_stay_exact(rng):
    x, w, v, ids = make(rng, 9, 20, 31, 40, shared=False)
    family = fsparse.lsh.l2(jax.random.key(0), 31)
    calls = {
        "sampled": lambda: fsparse.sampled_matmul(x, w, ids),
        "gather": lambda: fsparse.gather_matmul(v, w, ids),
        "bag": lambda: fsparse.embedding_bag(w, ids),
        "rows": lambda: fsparse.take_rows(w, ids[0]),
        "top_k": lambda: fsparse.dense_top_k(x, w, 5),
        "codes": lambda: fsparse.lsh.codes(family, x),
    }
    for call in calls.values():
        want = call()
        with bfloat16():
            jax.tree.map(np.testing.assert_array_equal, call(), want)


def loss(x, table, ids, targets):
    is_active = jnp.ones(len(ids), bool)
    logits = fsparse.sampled_matmul(x, table, ids)
    held = fsparse.sampled_softmax_loss(logits, targets, is_active)
    fused = fsparse.fused_softmax_loss(x, table, ids, targets, is_active)
    sums = fsparse.gather_matmul(x @ jnp.ones((x.shape[1], len(ids))), table, ids)
    return jnp.sum(held) + jnp.sum(jnp.sin(fused)) + jnp.sum(sums**2)


def slope(x, table, ids, targets):
    """Of a loss whose logits are held."""

    def held(x):
        logits = fsparse.sampled_matmul(x, table, ids)
        is_active = jnp.ones(len(ids), bool)
        return fsparse.sampled_softmax_loss(logits, targets, is_active).sum()

    return jnp.sum(jax.grad(held)(x) ** 2)


DERIVATIVES = {
    "dense": lambda f: jax.grad(f, (0, 1)),
    "x alone": jax.grad,
    "forward": lambda f: (
        lambda x, w, *rest: jax.jvp(lambda *a: f(*a, *rest), (x, w), (x, w))
    ),
    "second": lambda f: jax.grad(lambda *a: jnp.sum(jax.grad(f)(*a) ** 2), (0, 1)),
    "mapped": lambda f: jax.vmap(jax.grad(f, (0, 1)), (0, None, 0, 0)),
    "rows": lambda f: (
        lambda x, w, *rest: fsparse.value_and_grad(f, (0, 1))(x, Table(w), *rest)
    ),
    "second in rows": lambda _: (
        lambda x, w, *rest: fsparse.value_and_grad(slope, (0, 1))(x, Table(w), *rest)
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_are_as_precise_as_the_call(rng, name):
    x, w, _, ids = map(jnp.asarray, make(rng, 4, 9, 5, 7, shared=True))
    args = [x, w, ids, jnp.zeros((4, 1), jnp.int32)]
    if name == "mapped":
        args = [jnp.stack([a] * 2) if a is not w else a for a in args]
    with bfloat16():
        text = str(jax.make_jaxpr(DERIVATIVES[name](loss))(*args))
    assert "num_parts=3" not in text
    ops = re.findall(r" (fsparse_\w+)(\[?)", text)
    products = [options for op, options in ops if op in OF_PARTS]
    assert len(products) == text.count("num_parts=1") > 0


@pytest.mark.parametrize("bad", [np.inf, np.nan, 2.0**127])
def test_what_is_not_finite_stays_with_its_example(rng, bad):
    x, w, _, _ = make(rng, 40, 300, 70, 300, shared=True)
    ids = np.arange(300, dtype=np.int32)
    with bfloat16():
        want = fsparse.sampled_matmul(x, w, ids)
        x[33, 2] = bad
        got = fsparse.sampled_matmul(x, w, ids)
    np.testing.assert_array_equal(np.delete(got, 33, 0), np.delete(want, 33, 0))
    assert (np.asarray(got[33]) != want[33]).all()
