"""Row optimizers against dense float64 oracles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import RowGrad, _row_ops, reference, rows

B1, B2, EPS = float(np.float32(0.9)), float(np.float32(0.999)), 1e-8
F32, BF16 = jnp.float32, jnp.bfloat16


# ---- oracles: (w, state, g, named, learning_rate) -> (w, state), all f64[n, d] ------


def sgd_oracle(w, state, g, named, lr, wd=0):
    return np.where(named, (1 - lr * wd) * w - lr * g, w), state


def momentum_oracle(w, trace, g, named, lr, wd=0, nesterov=False):
    trace = 0 * w if trace is None else trace
    trace = np.where(named, 0.9 * trace + g, trace)
    u = g + 0.9 * trace if nesterov else trace
    return np.where(named, (1 - lr * wd) * w - lr * u, w), trace


def adagrad_oracle(w, acc, g, named, lr, wd=0):
    acc = (0 if acc is None else acc) + g**2
    moved = (1 - lr * wd) * w - lr * g / (np.sqrt(acc) + EPS)
    return np.where(named, moved, w), acc


def rowwise_adagrad_oracle(w, acc, g, named, lr, wd=0):
    acc = (0 if acc is None else acc) + np.mean(g**2, axis=1)
    moved = (1 - lr * wd) * w - lr * g / (np.sqrt(acc)[:, None] + EPS)
    return np.where(named, moved, w), acc


def adam_oracle(w, state, g, named, lr, wd=0):
    mu, nu, t = state or (0 * w, 0 * w, 0)
    t = t + 1
    mu = np.where(named, B1 * mu + (1 - B1) * g, mu)
    nu = np.where(named, B2 * nu + (1 - B2) * g**2, nu)
    u = (mu / (1 - B1**t)) / (np.sqrt(nu / (1 - B2**t)) + EPS)
    return np.where(named, (1 - lr * wd) * w - lr * u, w), (mu, nu, t)


def dense_adam_oracle(w, state, g, named, lr):
    return adam_oracle(w, state, g, True, lr)


OPTIMIZERS = {  # init, update, oracle
    "sgd": (rows.sgd_init, rows.sgd_update, sgd_oracle),
    "momentum": (rows.momentum_init, rows.momentum_update, momentum_oracle),
    "nesterov": (
        rows.momentum_init,
        partial(rows.momentum_update, nesterov=True),
        partial(momentum_oracle, nesterov=True),
    ),
    "adagrad": (rows.adagrad_init, rows.adagrad_update, adagrad_oracle),
    "rowwise_adagrad": (
        rows.rowwise_adagrad_init,
        rows.rowwise_adagrad_update,
        rowwise_adagrad_oracle,
    ),
    "adam": (rows.adam_init, rows.adam_update, adam_oracle),
    "exact_adam": (rows.exact_adam_init, rows.exact_adam_update, dense_adam_oracle),
}
MOMENTS = {
    "sgd": [],
    "momentum": ["trace"],
    "nesterov": ["trace"],
    "adagrad": ["acc"],
    "rowwise_adagrad": ["acc"],
    "adam": ["mu", "nu"],
    "exact_adam": ["mu", "nu"],
}
HAVE_WEIGHT_DECAY = [name for name in OPTIMIZERS if name != "exact_adam"]
HAVE_MOMENT_DTYPE = [
    name for name in OPTIMIZERS if name not in ("sgd", "rowwise_adagrad")
]
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
every_dtype = pytest.mark.parametrize("dtype", [F32, BF16], ids=["f32", "bf16"])


def make(name, table, dtype=F32):
    """A state whose moments are of a dtype, and the update."""
    init, update, _ = OPTIMIZERS[name]
    kwargs = {"moment_dtype": dtype} if name in HAVE_MOMENT_DTYPE else {}
    return init(table, **kwargs), update


def make_grad(rng, t, s, d, n):
    """Ids and sources that repeat, and padding of every kind."""

    def draw(size, most):
        padding = rng.choice([size, size + 3, -1, -(2**31), 2**31 - 1], t)
        values = rng.integers(0, max(most, 1), t)
        return jnp.asarray(np.where(rng.random(t) < 0.1, padding, values), jnp.int32)

    scale, x = rng.standard_normal(t), rng.standard_normal((s, d))
    return RowGrad(
        ids=draw(n, n // 2),
        scale=jnp.asarray(scale, F32),
        source=draw(s, s),
        x=jnp.asarray(x, F32),
        num_rows=n,
    )


def rows_grad(ids, x, n):
    """One gradient for each id."""
    t = len(ids)
    source = jnp.arange(t, dtype=jnp.int32)
    return RowGrad(jnp.asarray(ids, jnp.int32), jnp.ones(t), source, x, n)


def dense(grad):
    """The gradient as f64[n, d], and which rows it names: bool[n, 1]."""
    n = grad.num_rows
    ids, scale, source, x = map(np.asarray, jax.tree.leaves(grad))
    valid = (ids >= 0) & (ids < n) & (source >= 0) & (source < len(x))
    g, named = np.zeros((n, x.shape[1])), np.zeros((n, 1), bool)
    np.add.at(g, ids[valid], scale[valid, None].astype(float) * x[source[valid]])
    named[ids[valid]] = True
    return g, named


def random_table(rng, n, d, dtype=F32):
    return jnp.asarray(rng.standard_normal((n, d)), F32).astype(dtype)


def bits(x):
    return np.asarray(x).view(np.uint16).astype(int)


def assert_close(got, trail, size, **tol):
    """Close to the last of what an oracle went through, or so close as bf16 can be.

    There each step rounds to a neighbour, at most 2**-7 away, relatively. ``size`` is
    that of what else the steps add to the error.
    """
    if got.dtype == BF16:
        largest = max(np.max(np.abs(x), initial=0) for x in trail)
        tol = {"rtol": 0, "atol": len(trail) * 2**-7 * (largest + size)}
    np.testing.assert_allclose(np.asarray(got, float), trail[-1], **tol)


SIZES = [(0, 2, 3, 4), (1, 1, 1, 1), (35, 7, 9, 20), (264, 33, 65, 40)]


@every_optimizer
@every_dtype
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_dense_float64_over_steps(rng, name, dtype, size):
    t, s, d, n = size
    oracle, trail = OPTIMIZERS[name][2], []
    table = random_table(rng, n, d, dtype)
    state, update = make(name, table, dtype)
    want, want_state = np.asarray(table, float), None
    for i in range(5):
        grad, lr = make_grad(rng, t, s, d, n), 0.1 / (i + 1)
        table, state = update(table, state, grad, learning_rate=lr)
        want, want_state = oracle(want, want_state, *dense(grad), lr)
        trail.append([want, *(want_state if "adam" in name else [want_state])])
    if name == "exact_adam":
        table, state = rows.exact_adam_flush(table, state)
    wanted = list(zip(*trail, strict=True))
    # Steps from rounded moments: of about lr where g is divided by its own size.
    size = 1 if "ada" in name else 8
    assert_close(table, wanted[0], size, rtol=1e-5, atol=2e-5)
    for moment, of_moment in zip(MOMENTS[name], wanted[1:], strict=False):
        assert_close(getattr(state, moment), of_moment, 0, rtol=1e-5, atol=1e-5)
    assert int(state.count) == len(trail)


@pytest.mark.parametrize("name", HAVE_WEIGHT_DECAY)
def test_weight_decay_is_decoupled(rng, name):
    oracle = OPTIMIZERS[name][2]
    table, grad = random_table(rng, 20, 9), make_grad(rng, 30, 7, 9, 20)
    state, update = make(name, table)
    got, _ = update(table, state, grad, learning_rate=0.1, weight_decay=0.5)
    want, _ = oracle(np.asarray(table, float), None, *dense(grad), 0.1, wd=0.5)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# ---- twins --------------------------------------------------------------------------


def make_call(rng, name, dtypes, t=60, s=9, d=70, n=40):
    """Operands of a custom call and of its twin."""
    grad = jax.tree.leaves(make_grad(rng, t, s, d, n))
    tables = [jnp.abs(random_table(rng, n, d)).astype(dtype) for dtype in dtypes]
    per_row = jnp.abs(random_table(rng, n, 1))[:, 0]
    f32, seed = partial(jnp.array, dtype=F32), jnp.array([3, 2**31 + 5], jnp.uint32)
    history = jnp.abs(random_table(rng, 7, 2)) * 0.1
    last = jnp.asarray(rng.integers(-2, 24, n), jnp.int32)
    catching_up = [history, jnp.array([20], jnp.int32), seed, *tables, last]
    return {
        "sgd_rows": [*grad, f32([0.1, 0.5]), seed, tables[0]],
        "momentum_rows": [*grad, f32([0.1, B1, 1, 0.5]), seed, *tables[:2]],
        "adagrad_rows": [*grad, f32([0.1, EPS, 0.5]), seed, *tables[:2]],
        "rowwise_adagrad_rows": [*grad, f32([0.1, EPS, 0]), seed, tables[0], per_row],
        "adam_rows": [*grad, f32([0.1, B1, B2, EPS, 0.1, 1e-3, 0.5]), seed, *tables],
        "exact_adam_rows": [
            *grad,
            f32([0.1, B1, B2, EPS, 0.1, 1e-3, 5]),
            *catching_up,
        ],
        "adam_catch_up": [grad[0], f32([B1, B2, EPS, 5]), *catching_up],
        "sum_squares": [*grad, jnp.array([n], jnp.int32)],
    }[name]


OPS = [
    "sgd_rows",
    "momentum_rows",
    "adagrad_rows",
    "rowwise_adagrad_rows",
    "adam_rows",
    "exact_adam_rows",
    "adam_catch_up",
    "sum_squares",
]
DTYPES = [(F32, F32, F32), (BF16, BF16, BF16), (BF16, F32, BF16), (F32, BF16, F32)]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(
    "dtypes", DTYPES, ids=lambda d: "-".join(x.__name__ for x in d)
)
def test_matches_its_twin(rng, name, dtypes):
    operands = make_call(rng, name, dtypes)
    got = getattr(_row_ops, name)(*operands)
    want = getattr(reference, name)(*operands)
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype == BF16:
            apart = np.abs(bits(a) - bits(b))
            assert apart.max() <= 1
            assert (apart == 0).mean() > 0.99
        else:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(
    "size", [(0, 3, 4, 5), (6, 0, 4, 5), (6, 3, 0, 5), (6, 3, 4, 0)]
)
def test_sizes_of_zero(rng, name, size):
    operands = make_call(rng, name, (BF16, F32, BF16), *size)
    got = getattr(_row_ops, name)(*operands)
    want = getattr(reference, name)(*operands)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- which rows change --------------------------------------------------------------


def leaves_by_row(table, state):
    """The table and the moments: what has an entry for each row."""
    n = table.shape[0]
    return [x for x in jax.tree.leaves((table, state)) if x.ndim and x.shape[0] == n]


@every_optimizer
@every_dtype
def test_rows_not_named_keep_their_bits(rng, name, dtype):
    n = 11
    table = random_table(rng, n, 5, dtype).at[9].set(jnp.nan).at[10].set(-0.0)
    state, update = make(name, table, dtype)
    table, state = update(table, state, make_grad(rng, 18, 6, 5, n), learning_rate=0.1)
    grad = make_grad(rng, 18, 6, 5, n)
    named = dense(grad)[1][:, 0]
    assert 0 < named.sum() < n
    new_table, new_state = update(table, state, grad, learning_rate=1)
    for old, new in zip(
        leaves_by_row(table, state), leaves_by_row(new_table, new_state), strict=True
    ):
        assert old[~named].tobytes() == new[~named].tobytes()
    assert (table[named] != new_table[named]).mean() > 0.9


@every_optimizer
@every_dtype
def test_only_padding_changes_nothing(rng, name, dtype):
    """Not even where scale and x are NaN: ids, or sources, are outside."""
    table = random_table(rng, 6, 5, dtype)
    state, update = make(name, table, dtype)
    grad = RowGrad(
        ids=jnp.array([6, -1, 7, -(2**31), 0, 1, 2], jnp.int32),
        scale=jnp.full(7, jnp.nan),
        source=jnp.array([0, 1, 0, 1, 2, -1, 2**31 - 1], jnp.int32),
        x=jnp.full((2, 5), jnp.nan),
        num_rows=6,
    )
    new, _ = update(table, state, grad, learning_rate=0.1)
    assert new.tobytes() == table.tobytes()
    assert rows.sum_squares(grad) == 0


@every_optimizer
@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_spoils_its_own_row_only(rng, name, dtype, bad):
    table = random_table(rng, 8, 3, dtype)
    state, update = make(name, table, dtype)
    grad = rows_grad([1, 3, 5, 7], jnp.ones((4, 3)).at[2].set(bad), 8)
    for _ in range(2):  # the second update finds moments that are not finite
        table, state = update(table, state, grad, learning_rate=0.1)
    if name == "exact_adam":
        table, state = rows.exact_adam_flush(table, state)
    finite = [
        np.isfinite(np.asarray(x, float)).reshape(8, -1).all(axis=1)
        for x in leaves_by_row(table, state)
    ]
    np.testing.assert_array_equal(np.flatnonzero(~np.all(finite, axis=0)), [5])
    assert not np.isfinite(np.asarray(table[5], float)).any()


@every_optimizer
def test_a_row_named_twice_is_updated_once_with_the_sum(rng, name):
    table = random_table(rng, 3, 4)
    state, update = make(name, table)
    twice = rows_grad([1, 1], jnp.array([[1.0] * 4, [2.0] * 4]), 3)
    once = rows_grad([1], jnp.full((1, 4), 3.0), 3)
    got, want = (
        jax.tree.leaves(update(table, state, g, learning_rate=0.1))
        for g in (twice, once)
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [1, 700, 70_000, 3_000_000])
@pytest.mark.parametrize("order", ["random", "rising", "sets that rise"])
def test_many_occurrences_are_grouped_by_row(rng, n, order):
    """Of whole numbers, whose sums are exact; more than a thread takes at a time."""
    t, s = 70_000, 50
    ids = rng.integers(0, n + n // 5 + 1, t).astype(np.int32) - n // 10
    ids = {"random": ids, "rising": np.sort(ids)}.get(
        order, np.sort(ids.reshape(70, 1000), axis=1).ravel()
    )
    source = rng.integers(-2, s + 2, t).astype(np.int32)
    scale, x = rng.integers(-9, 9, t), rng.integers(-9, 9, (s, 2))
    factors = map(jnp.asarray, (ids, scale.astype(np.float32), source))
    grad = RowGrad(*factors, jnp.asarray(x, F32), n)
    kept = (ids >= 0) & (ids < n) & (source >= 0) & (source < s)
    want = np.zeros((n, 2))
    np.add.at(want, ids[kept], scale[kept, None] * x[source[kept]])
    np.testing.assert_array_equal(grad.to_dense(), want)


def test_add_rows(rng):
    table, grad = random_table(rng, 20, 9), make_grad(rng, 30, 7, 9, 20)
    got = rows.add_rows(table, grad, scale=-0.3)
    want = np.asarray(table, float) - 0.3 * dense(grad)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    low = table.astype(BF16)
    got = rows.add_rows(low, grad, key=jax.random.key(1))
    want = np.asarray(low, float) + dense(grad)[0]
    assert_close(got, [want], 0)
    again = rows.add_rows(low, grad, key=jax.random.key(2))
    assert (bits(got) != bits(again)).any()


# ---- norms --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(0, 2, 3, 4), (35, 7, 9, 20), (4000, 33, 65, 900)])
def test_sum_squares_adds_the_occurrences_of_a_row_first(rng, size):
    grad = make_grad(rng, *size)
    want = np.sum(dense(grad)[0] ** 2)
    np.testing.assert_allclose(rows.sum_squares(grad), want, rtol=1e-5)


def test_global_norm_of_rows_and_arrays(rng):
    grad, bias = make_grad(rng, 35, 7, 9, 20), random_table(rng, 3, 2)
    want = np.sqrt(np.sum(dense(grad)[0] ** 2) + np.sum(np.asarray(bias, float) ** 2))
    got = rows.global_norm({"table": grad, "bias": bias})
    np.testing.assert_allclose(got, want, rtol=1e-6)
