"""Sketches: sums over codes, whatever the order, the parts and the program."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from sketch_oracle import Kept, by_codes

from fsparse import lsh
from fsparse import sketch as sk
from fsparse.sketch import NWSketch, nw_decay, nw_init, nw_merge, nw_num_bytes, nw_psum

# Compiled once for all tests; one says that eager calls are no different.
nw_update = jax.jit(sk.nw_update)
nw_query = jax.jit(
    sk.nw_query, static_argnames=("prior", "num_groups", "rehash_correction")
)
exact_nw = jax.jit(sk.exact_nw, static_argnames="prior")
nw_rotate = jax.jit(sk.nw_rotate)

D, N, R = 6, 40, 12
KEY = jax.random.key(0)
FAMILY = lsh.simhash(KEY, D, num_tables=R, num_bits=3)
X = jax.random.normal(jax.random.key(1), (N, D))
Y = jax.random.normal(jax.random.key(2), (N,)) - 0.5
YS = jnp.stack([Y, Y**2, -3 * Y], axis=1)
LABELS = jax.random.randint(jax.random.key(3), (N,), 0, 7)
WEIGHTS = jax.random.uniform(jax.random.key(4), (N,)).at[3].set(0.0)
Q, Q_LABELS = X[:9] + 0.1, LABELS[:9].at[0].set(-1)


def update(sketch, part=slice(None), **kwargs):
    """Adds some of the examples, by the one program that all tests share."""
    y = Y if sketch.num_outputs is None else YS
    labels = None if sketch.num_slices == 1 else LABELS[part]
    weights = {k: v[part] for k, v in kwargs.items()}
    return nw_update(sketch, X[part], y[part], labels, **weights)


def query(sketch, **kwargs):
    labels = None if sketch.num_slices == 1 else Q_LABELS
    return nw_query(sketch, Q, labels, **kwargs)


def assert_close(got, want, tol=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


def assert_equal(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- what it says -------------------------------------------------------------------

FAMILIES = {
    "simhash": FAMILY,
    "l2": lsh.l2(KEY, D, num_tables=R, num_hashes=2, width=3.0, num_bits=4),
    "minhash": lsh.minhash(KEY, D, num_tables=R, num_hashes=1, num_bits=3),
    "dwta": lsh.dwta(KEY, D, num_tables=R, num_hashes=2, bin_size=2),
}
OPTIONS = [{}, {"prior": 0.0}, {"prior": 2.5, "num_groups": 4}]


@pytest.mark.parametrize(
    ("name", "num_outputs"), [("simhash", 3), *[(name, None) for name in FAMILIES]]
)
def test_query_is_the_definition_over_codes(name, num_outputs):
    family, num_slices = FAMILIES[name], 3
    sketch = nw_init(family, num_outputs=num_outputs, num_slices=num_slices)
    sketch = update(sketch, weights=WEIGHTS)
    rows = Q, X
    codes, kept_codes = (np.asarray(lsh.codes(family, x)) for x in rows)
    y = np.asarray(Y)[:, None] if num_outputs is None else np.asarray(YS)
    kept = Kept(kept_codes, np.asarray(LABELS) % num_slices, y, np.asarray(WEIGHTS))
    slices = np.where(np.asarray(Q_LABELS) < 0, -1, np.asarray(Q_LABELS) % num_slices)
    for options in OPTIONS if name == "simhash" else OPTIONS[-1:]:
        got = query(sketch, **options)
        prior, groups = options.get("prior", 1.0), options.get("num_groups", 1)
        mean, count, density = by_codes(kept, codes, slices, prior=prior, groups=groups)
        want = mean[:, 0] if num_outputs is None else mean
        assert_close((got.mean, got.count, got.density), (want, count, density))
        assert got.mean.shape == got.stderr.shape


@pytest.mark.parametrize("name", ["l2", "minhash"])
def test_rehash_correction_is_its_formula(name):
    family = FAMILIES[name]
    sketch = update(nw_init(family), weights=WEIGHTS)
    codes, kept_codes = (np.asarray(lsh.codes(family, x)) for x in (Q, X))
    y, none = np.asarray(Y)[:, None], np.zeros(N, int)
    kept = Kept(kept_codes, none, y, np.asarray(WEIGHTS))
    got = query(sketch, rehash_correction=True)
    mean, count, density = by_codes(
        kept, codes, none[: len(Q)], num_buckets=family.num_buckets
    )
    assert_close((got.mean, got.count, got.density), (mean[:, 0], count, density))


def test_stderr_is_the_spread_of_the_linearised_rows():
    sketch = update(nw_init(FAMILY))
    codes, kept = lsh.codes(FAMILY, Q), lsh.codes(FAMILY, X)
    meets = np.asarray(codes[:, None] == kept[None], np.float64)  # [q, n, R]
    c, s = meets.sum(1), np.einsum("qnr,n->qr", meets, np.asarray(Y, np.float64))
    got = query(sketch, prior=2.0)
    parts = s - np.asarray(got.mean, np.float64)[:, None] * c
    want = parts.std(1, ddof=1) / np.sqrt(R) / (c.mean(1) + 2)
    np.testing.assert_allclose(got.stderr, want, rtol=1e-4, atol=1e-6)


def test_codes_may_be_given():
    sketch = nw_init(FAMILY)
    codes, asked = lsh.codes(FAMILY, X), lsh.codes(FAMILY, Q)
    assert_equal(nw_update(sketch, codes, Y), nw_update(sketch, X, Y))
    sketch = nw_update(sketch, codes, Y)
    assert_equal(nw_query(sketch, asked), nw_query(sketch, Q))


def test_sparse_rows_are_rows():
    family = FAMILIES["minhash"]
    x = jnp.where(X > 0, X, 0)
    ids = jnp.broadcast_to(jnp.arange(D, dtype=jnp.int32), X.shape)
    sparse = lsh.SparseRows(jnp.where(X > 0, ids, -1), X)
    got, want = (nw_update(nw_init(family), rows, Y) for rows in (sparse, x))
    assert_equal(got, want)
    assert_equal(nw_query(got, sparse), nw_query(want, x))
    assert_equal(exact_nw(family, sparse, Y, sparse), exact_nw(family, x, Y, x))


def test_bf16_rows_are_rows():
    half = X.astype(jnp.bfloat16)
    got, want = (
        nw_update(nw_init(FAMILY), x, Y) for x in (half, half.astype(jnp.float32))
    )
    assert_equal(got, want)


def test_exact_is_a_plain_sum():
    """By numpy in float64, with slices, weights and what is not fit."""
    y = Y.at[5].set(jnp.nan)
    got = exact_nw(FAMILY, X, y, Q, LABELS, Q_LABELS, prior=0.7, weights=WEIGHTS)
    kernel = np.asarray(lsh.collision_probability(FAMILY, Q, X), np.float64)
    w, values = np.asarray(WEIGHTS, np.float64), np.asarray(Y, np.float64)
    w[5] = 0
    of_all = w @ values / w.sum()
    for i, label in enumerate(np.asarray(Q_LABELS)):
        own = w * (np.asarray(LABELS) == label)
        mean = (own @ values + 0.7 * of_all) / (own.sum() + 0.7)
        k = kernel[i] * own
        want = (k @ values + 0.7 * mean) / (k.sum() + 0.7) if label >= 0 else of_all
        np.testing.assert_allclose(got[i], want, rtol=2e-5)


def test_exact_goes_by_blocks(monkeypatch):
    from fsparse.sketch import _exact

    want = sk.exact_nw(FAMILY, X, YS, Q)
    monkeypatch.setattr(_exact, "_BLOCK_FLOATS", 4 * N)
    assert_close(sk.exact_nw(FAMILY, X, YS, Q), want, 1e-6)


# ---- algebra ------------------------------------------------------------------------


def test_order_does_not_matter():
    sketch = nw_init(FAMILY, num_slices=3)
    back = update(update(sketch, slice(20, None)), slice(20))
    assert_close(back, update(sketch))
    turned = nw_update(sketch, X[::-1], Y[::-1], LABELS[::-1])
    assert_close(turned, back)


@pytest.mark.parametrize("options", OPTIONS)
def test_shift_and_scale_of_values_are_those_of_estimates(options):
    """A shift goes through exactly; so there is no such error in stderr either."""
    sketch = nw_init(FAMILY, num_slices=2)
    plain = nw_update(sketch, X, Y, LABELS)
    moved = nw_update(sketch, X, 1000 - 8 * Y, LABELS)
    a, b = (query(s, **options) for s in (plain, moved))
    known = np.asarray(a.count > 0) | (options.get("prior") != 0)
    np.testing.assert_allclose(b.mean[known], (1000 - 8 * a.mean)[known], rtol=1e-6)
    np.testing.assert_allclose(b.stderr, 8 * a.stderr, rtol=2e-3, atol=1e-4)
    assert_equal((a.count, a.density), (b.count, b.density))


def test_merge_is_the_sketch_of_both():
    empty = nw_init(FAMILY, num_slices=3)
    a, b = update(empty, slice(20)), update(empty, slice(20, None))
    assert_close(nw_merge(a, b), update(empty))
    assert_equal(nw_merge(a, b), nw_merge(b, a))
    assert_equal(nw_merge(a, empty), a)


def test_merge_brings_counts_to_one_unit():
    """Of sketches that have forgotten at different paces."""
    empty = nw_init(FAMILY)
    a = nw_decay(update(empty, slice(20)), 0.25)
    b = nw_decay(update(empty, slice(20, None)), 0.5)
    age = jnp.where(jnp.arange(N) < 20, 0.25, 0.5)
    want = query(update(empty, weights=age))
    assert_close(query(nw_merge(a, b)), want)
    assert_close(query(nw_merge(b, a)), want)


def test_decay_is_the_sketch_of_weights():
    """Steps of decay between batches, and back from a large unit on the way."""
    lazy, gamma, batches = nw_init(FAMILY, num_slices=3), 0.3, 20
    codes = lsh.codes(FAMILY, X)
    for i in range(batches):
        lazy = nw_update(nw_decay(lazy, gamma), codes[2 * i : 2 * i + 2], *pair(i))
    ages = batches - 1 - np.arange(N) // 2
    weights = jnp.asarray(gamma**ages, jnp.float32)
    plain = update(nw_init(FAMILY, num_slices=3), weights=weights)
    assert_close(query(lazy), query(plain), 1e-4)
    assert float(lazy.unit) <= 2**21 < gamma**-batches
    assert int(lazy.num_rescaled) == 0


def pair(i):
    return Y[2 * i : 2 * i + 2], LABELS[2 * i : 2 * i + 2]


def test_decay_forgets_in_the_end():
    """Also where it is done thousands of times before anything new is added."""
    sketch = update(nw_init(FAMILY))
    for gamma in (2.0**-90, 2.0**-90, 1e-30):
        sketch = nw_decay(sketch, gamma)
    assert float(jnp.max(query(sketch).count)) < 1e-25
    fresh = update(nw_init(FAMILY), slice(20))
    assert_close(query(update(sketch, slice(20))), query(fresh))


def test_a_ring_remembers_its_blocks():
    ring, codes = nw_init(FAMILY, num_slices=2, num_blocks=3), lsh.codes(FAMILY, X)
    for i in range(8):
        ring = nw_rotate(ring) if i else ring
        part = slice(5 * i, 5 * i + 5)
        ring = nw_update(ring, codes[part], Y[part], LABELS[part])
    window = slice(25, 40)
    want = nw_update(
        nw_init(FAMILY, num_slices=2), codes[window], Y[window], LABELS[window]
    )
    assert_close(query(ring), query(want))
    assert_close(ring.totals.sum(1), want.totals[:, 0])
    one = nw_rotate(update(nw_init(FAMILY)))
    assert_equal(one, nw_init(FAMILY))  # a ring of one forgets all


def test_merge_lines_up_blocks_by_age():
    """A ring that has turned less often is behind by a block."""
    empty = nw_init(FAMILY, num_blocks=3)
    a = update(nw_rotate(update(empty, slice(20))), slice(20, None))
    b = update(nw_rotate(nw_rotate(empty)), slice(20, None))
    b = nw_merge(nw_rotate(a), nw_rotate(b))
    both = nw_merge(a, a)
    later = nw_rotate(nw_rotate(nw_rotate(both)))
    assert float(later.totals[..., 0].sum()) == 0
    assert b.totals[0, :, 0].tolist() == [20.0, 40.0, 0.0]


# ---- bad input ----------------------------------------------------------------------

BAD = [jnp.nan, jnp.inf, -jnp.inf, 2.0**61]


def test_what_is_not_fit_is_ignored_and_counted():
    """Values, weights, labels and codes; a weight of 0 hides all the rest."""
    codes = lsh.codes(FAMILY, X)
    y = Y.at[:4].set(jnp.array(BAD))
    weights = jnp.ones(N).at[4:8].set(jnp.array([jnp.nan, jnp.inf, -1, 2.0**25]))
    labels = LABELS.at[8].set(-1)
    codes = codes.at[9, 2].set(8).at[10, 0].set(-1)
    got = nw_update(nw_init(FAMILY, num_slices=3), codes, y, labels, weights=weights)
    want = nw_update(nw_init(FAMILY, num_slices=3), codes[11:], Y[11:], LABELS[11:])
    assert int(got.num_ignored) == 11
    assert_equal((got.table, got.totals), (want.table, want.totals))
    masked = nw_update(got, codes, y, labels, weights=jnp.zeros(N))
    assert_equal(masked, got)


def test_one_bad_output_is_a_bad_example():
    sketch = nw_init(FAMILY, num_outputs=3)
    got = nw_update(sketch, X, YS.at[0, 2].set(jnp.nan))
    assert int(got.num_ignored) == 1
    assert_close(got.totals, nw_update(sketch, X[1:], YS[1:]).totals)


def test_rows_with_nan_are_hashed_as_rows_of_zeros():
    bad = X.at[0, 1].set(jnp.nan)
    got = nw_update(nw_init(FAMILY), bad, Y)
    assert_equal(got, nw_update(nw_init(FAMILY), X.at[0].set(0), Y))
    assert np.isfinite(nw_query(got, bad).mean).all()


@pytest.mark.parametrize("num_groups", [1, 4])
@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_an_empty_sketch_says_0(prior, num_groups):
    empty = nw_init(FAMILY, num_outputs=2, num_slices=3)
    for x in jax.tree.leaves(query(empty, prior=prior, num_groups=num_groups)):
        np.testing.assert_array_equal(x, 0)


def test_where_nothing_is_known_the_slice_speaks_then_all():
    sketch = nw_init(FAMILY, num_slices=4)
    labels = jnp.where(jnp.arange(N) < 20, 0, 1)
    sketch = nw_update(sketch, jnp.abs(X), jnp.where(labels == 0, 1.0, 3.0), labels)
    far = -jnp.ones((3, D)) * jnp.array([[1.0], [2.0], [3.0]])
    codes = jnp.full((3, R), 8)  # of no bucket
    for x, prior in [(codes, 0.0), (codes, 1.0)]:
        mean = nw_query(sketch, x, jnp.array([0, 1, 2]), prior=prior).mean
        own = [(20 + 2 * prior) / (20 + prior), (60 + 2 * prior) / (20 + prior), 2]
        np.testing.assert_allclose(mean, own, rtol=1e-6)
    everywhere = nw_query(sketch, far, jnp.array([-1, -5, 2]))
    np.testing.assert_allclose(everywhere.mean, 2, rtol=1e-6)
    np.testing.assert_array_equal(everywhere.count, 0)


def test_constant_inputs_give_the_mean():
    """All in one cell; and a constant value comes back."""
    x = jnp.ones((N, D))
    same = nw_update(nw_init(FAMILY), x, Y)
    np.testing.assert_allclose(nw_query(same, x[:3]).mean, Y.mean(), rtol=1e-5)
    np.testing.assert_allclose(nw_query(same, x[:3]).density, 1)
    constant = nw_update(nw_init(FAMILY), X, jnp.full(N, -2.5))
    estimate = nw_query(constant, Q)
    np.testing.assert_allclose(estimate.mean, -2.5, rtol=1e-6)
    np.testing.assert_allclose(estimate.stderr, 0, atol=1e-6)


def test_one_row_knows_no_error():
    one = lsh.simhash(KEY, D, num_tables=1, num_bits=3)
    estimate = nw_query(nw_update(nw_init(one), X, Y), Q)
    assert np.isinf(estimate.stderr).all()
    assert np.isfinite(estimate.mean).all()


def test_sums_stay_finite():
    """With the largest values and weights that are fit, and a large unit."""
    sketch = nw_decay(nw_init(FAMILY), 2.0**-20)
    y, weights = jnp.full(N, 2.0**60), jnp.full(N, 2.0**24)
    for _ in range(4):
        sketch = nw_update(sketch, X, y, weights=weights)
    assert int(sketch.num_ignored) == 0
    assert np.isfinite(sketch.table).all()
    estimate = query(sketch)
    np.testing.assert_allclose(estimate.mean, 2.0**60, rtol=1e-5)
    assert not any(np.isnan(x).any() for x in estimate)


# ---- counters beyond 2**24 ----------------------------------------------------------


def filled(count):
    """One cell of each row holds as many examples of value 1."""
    x, weight = jnp.ones((1, D)), jnp.array([float(count)])
    return nw_update(nw_init(FAMILY), x, jnp.ones(1), weights=weight)


def test_a_count_never_stands_still():
    """float32 adds 1 to 2**24 in vain; the past is halved before that."""
    sketch, one = filled(2**24 - 8), (jnp.ones((4, D)), jnp.ones(4))
    counts, rescaled = [], []
    for _ in range(4):
        sketch = nw_update(sketch, *one)
        counts.append(int(sketch.totals[0, 0, 0]))
        rescaled.append(int(sketch.num_rescaled))
    assert counts == [2**24 - 4, 2**24, 2**23 + 4, 2**23 + 8]
    assert rescaled == [0, 0, 1, 1]
    assert float(sketch.table[..., 0].max()) == counts[-1]
    np.testing.assert_allclose(nw_query(sketch, one[0]).mean, 1, rtol=1e-6)


def test_halving_looks_at_the_batch_too_and_at_the_unit():
    """A batch that would not fit is preceded by it; so is one in a larger unit."""
    sketch = filled(2**24 - 8)
    many = nw_update(sketch, jnp.ones((16, D)), jnp.ones(16))
    assert int(many.totals[0, 0, 0]) == 2**23 - 4 + 16
    later = nw_decay(sketch, 0.5)
    later = nw_update(later, jnp.ones((16, D)), jnp.ones(16))
    assert int(later.num_rescaled) == 0
    assert float(later.totals[0, 0, 0]) == 2**24 - 8 + 32
    assert float(nw_query(later, X[:1]).count[0]) < 2**23 + 16


# ---- programs -----------------------------------------------------------------------


def test_jit_is_eager():
    sketch = nw_init(FAMILY, num_slices=3)
    a, b = sk.nw_update(sketch, X, Y, LABELS), update(sketch)
    assert_close(a, b, 1e-6)
    assert_close(sk.nw_query(a, Q, Q_LABELS), query(a), 1e-6)
    turned = sk.nw_rotate(a), nw_rotate(a)
    assert_equal(*turned)


def test_scan_is_a_loop():
    codes = lsh.codes(FAMILY, X)
    batches = [x.reshape(4, 10, *x.shape[1:]) for x in (codes, Y, LABELS)]

    def step(sketch, batch):
        sketch = nw_rotate(nw_update(nw_decay(sketch, 0.9), *batch))
        return sketch, nw_query(sketch, batch[0], batch[2])

    sketch = nw_init(FAMILY, num_slices=3, num_blocks=2)
    got, _ = jax.lax.scan(step, sketch, batches)
    for i in range(4):
        sketch, _ = jax.jit(step)(sketch, [x[i] for x in batches])
    assert_equal(got, sketch)


def test_vmap_is_a_loop():
    """Sketches of their own families, and many that ask one."""
    keys = jax.random.split(KEY, 3)
    ys = jnp.stack([Y, 2 * Y, -Y])

    def run(key, y):
        family = lsh.simhash(key, D, num_tables=4, num_bits=3)
        sketch = nw_update(nw_init(family, num_slices=2), X, y, LABELS)
        return sketch, nw_query(sketch, Q, Q_LABELS, num_groups=2)

    got = jax.jit(jax.vmap(run))(keys, ys)
    run = jax.jit(run)
    for i in range(3):
        assert_close(jax.tree.map(lambda x, i=i: x[i], got), run(keys[i], ys[i]))
    sketch = update(nw_init(FAMILY))
    asked = jax.vmap(lambda q: nw_query(sketch, q))(jnp.stack([Q, -Q]))
    assert_close(jax.tree.map(lambda x: x[1], asked), nw_query(sketch, -Q))
    single = jax.vmap(lambda q: nw_query(sketch, q[None]).mean[0])(Q)
    assert_close(single, nw_query(sketch, Q).mean)


def test_no_gradients():
    def loss(y, x):
        sketch = nw_update(nw_init(FAMILY), x, y)
        return nw_query(sketch, x).mean.sum() + (y**2).sum()

    dy, dx = jax.jit(jax.grad(loss, (0, 1)))(Y, X)
    np.testing.assert_allclose(dy, 2 * Y, rtol=1e-6)
    np.testing.assert_array_equal(dx, 0)


def test_strict_promotion_and_x64():
    def run(x, y, labels):
        sketch = nw_decay(nw_init(FAMILY, num_slices=2, num_blocks=2), 0.5)
        sketch = nw_rotate(nw_update(sketch, x, y, labels))
        sketch = nw_merge(sketch, sketch)
        exact = exact_nw(FAMILY, x, y, x, labels, labels)
        return sketch, nw_query(sketch, x, labels, num_groups=2), exact

    want = jax.eval_shape(run, X, Y, LABELS)
    promotion = jax.numpy_dtype_promotion("strict")
    with promotion, jax.numpy_rank_promotion("raise"), jax.enable_x64(True):
        got = jax.eval_shape(run, X, Y, LABELS)
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, want)


def test_a_carry_keeps_its_types():
    """Weak types would make ``scan`` refuse it, or compile twice."""
    sketch = nw_init(FAMILY)
    same = jax.eval_shape(
        lambda s: nw_rotate(nw_decay(nw_update(s, X, Y), 0.9)), sketch
    )
    for a, b in zip(*map(jax.tree.leaves, (sketch, same)), strict=True):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)


def test_checkpoint_round_trip(tmp_path):
    from fsparse import checkpoint

    sketch = update(nw_decay(nw_init(FAMILY, num_slices=3, num_blocks=2), 0.9))
    checkpoint.save(tmp_path / "sketch", sketch, {})
    again, _ = checkpoint.load(tmp_path / "sketch", sketch)
    assert isinstance(again, NWSketch)
    assert_equal(again, sketch)
    assert_equal(update(again), update(sketch))


MESH = Mesh(np.array(jax.devices()[:2]), ("data",))
SPLIT, WHOLE = PartitionSpec("data"), PartitionSpec()


def on_devices(f, out_specs=WHOLE):
    specs = (WHOLE, SPLIT, SPLIT, SPLIT)
    return jax.jit(jax.shard_map(f, mesh=MESH, in_specs=specs, out_specs=out_specs))


def test_shard_map_gathers_to_the_bits_of_one_sketch():
    sketch = nw_decay(nw_init(FAMILY, num_slices=3), 0.7)
    y = Y.at[30].set(jnp.nan)
    got = on_devices(partial(sk.nw_update, axis_name="data"))(sketch, X, y, LABELS)
    want = nw_update(sketch, X, y, LABELS)
    assert_equal(got, want)
    assert int(got.num_ignored) == 1


def test_psum_is_the_sketch_of_all():
    def run(sketch, x, y, labels):
        return nw_psum(nw_update(sketch, x, y, labels), "data")

    sketch = nw_init(FAMILY, num_slices=3, num_blocks=2)
    got = on_devices(run)(sketch, X, Y, LABELS)
    assert_close(got, update(sketch))


def test_psum_of_different_units_and_blocks():
    def run(x, y, gamma, turns):
        sketch = nw_decay(nw_update(nw_init(FAMILY, num_blocks=3), x, y), gamma)
        turned = nw_rotate(sketch)
        sketch = jax.tree.map(lambda a, b: jnp.where(turns > 0, b, a), sketch, turned)
        return nw_psum(sketch, "i")

    xs, ys = X.reshape(2, 20, D), Y.reshape(2, 20)
    gammas, turns = jnp.array([0.5, 0.25]), jnp.array([0, 1])
    got = jax.vmap(run, axis_name="i")(xs, ys, gammas, turns)
    got = jax.tree.map(lambda x: x[0], got)
    assert float(got.unit) == 2
    assert got.totals[0, :, 0].tolist() == [10.0, 20.0, 0.0]


def test_a_query_is_the_same_on_every_device():
    sketch = update(nw_init(FAMILY, num_slices=3))
    run = on_devices(lambda s, x, y, labels: nw_query(s, x, labels), SPLIT)
    assert_equal(run(sketch, X, Y, LABELS), nw_query(sketch, X, LABELS))


# ---- the rest -----------------------------------------------------------------------


def test_num_bytes():
    sketch = nw_init(FAMILY, num_outputs=3, num_slices=2, num_blocks=5)
    cells = R * 8 * 2 * 5 * 4 * 4
    family = 4 * D * R * 3
    assert nw_num_bytes(sketch) == cells + family + 4 * 2 * 5 * 4 + 4 * 4
    shape = jax.eval_shape(lambda: sketch)
    assert nw_num_bytes(shape) == nw_num_bytes(sketch)


def test_standardizer():
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((50, 4)).astype(np.float32) * [1, 1e-3, 1e6, 0] + 0.1
    sample = jnp.asarray(sample, jnp.float32)
    apply = jax.jit(sk.standardizer)(sample)
    got = apply(sample)
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(got.std(0), [1, 1, 1, 0], atol=1e-4)
    bad = jnp.concatenate(
        [sample, jnp.full((1, 4), jnp.nan), jnp.full((1, 4), jnp.inf)]
    )
    assert_close(jax.jit(sk.standardizer)(bad), apply, 1e-5)
    np.testing.assert_array_equal(sk.standardizer(bad[50:])(sample), 0)
    np.testing.assert_allclose(apply(sample[0]), got[0], atol=1e-6)
    assert apply(sample.astype(jnp.bfloat16)).dtype == jnp.float32
    huge = jnp.array([[1e37, 1.0], [-1e37, 2.0]])
    np.testing.assert_allclose(
        sk.standardizer(huge)(huge), [[1, -1], [-1, 1]], rtol=1e-5
    )
