"""Sparse inference: one call, default sizes, and the choice of an index."""

import math
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fsparse
from fsparse import Table, lsh
from fsparse.lsh import _tune

KEY = jax.random.key(0)
B, N, D, K = 6, 300, 8, 3


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def layer():
    x, table = jnp.asarray(normal(1, B, D)), jnp.asarray(normal(2, N, D))
    family = lsh.simhash(KEY, D, num_tables=6, num_bits=3)
    return lsh.build(family, table), x, table


def best_of(candidates, x, table):
    """The ``K`` best rows of each example among its candidates, by sorting."""
    scores = np.asarray(x, np.float64) @ np.asarray(table, np.float64).T
    ids = [
        sorted(set(c), key=lambda r, s=s: -s[r])
        for c, s in zip(candidates, scores, strict=True)
    ]
    return np.array([row[:K] for row in ids])


# ---- top_k --------------------------------------------------------------------------


def test_untruncated_it_finds_the_best_rows_that_share_a_bucket(layer):
    index, x, table = layer
    of_rows, of_x = lsh.codes(index.family, table), lsh.codes(index.family, x)
    met = [np.flatnonzero((of_rows == c).any(1)) for c in np.asarray(of_x)]
    scores, ids = lsh.top_k(index, x, table, K, size=N)
    np.testing.assert_array_equal(ids, best_of(met, x, table))
    products = np.take_along_axis(x @ table.T, np.asarray(ids), axis=1)
    np.testing.assert_allclose(scores, products, rtol=1e-5)


def test_truncated_it_scores_those_with_most_votes(layer):
    index, x, table = layer
    found = lsh.query(index, x, 12, num_probes=2).ids
    _, ids = lsh.top_k(index, x, table, K, size=12, num_probes=2)
    np.testing.assert_array_equal(ids, best_of(np.asarray(found), x, table))


def test_all_buckets_probed_is_the_exact_search(layer):
    index, x, table = layer
    scores, ids = lsh.top_k(index, x, table, K, size=N, num_probes=8)
    dense_scores, dense_ids = fsparse.dense_top_k(x, table, K)
    np.testing.assert_array_equal(ids, dense_ids)
    np.testing.assert_allclose(scores, dense_scores, rtol=1e-6)


def test_a_size_beyond_all_rows_is_all_rows(layer):
    index, x, table = layer
    for a, b in zip(
        lsh.top_k(index, x, table, K, size=N),
        lsh.top_k(index, x, table, K, size=10 * N),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_one_example_is_a_row_of_the_batch(layer):
    index, x, table = layer
    search = partial(lsh.top_k, index, table=table, k=K, size=40)
    scores, ids = search(x)
    for i in range(B):
        one_score, one_ids = search(x[i])
        assert one_ids.shape == one_score.shape == (K,)
        np.testing.assert_array_equal(one_ids, ids[i])
        np.testing.assert_array_equal(one_score, scores[i])


def test_no_examples_have_no_rows(layer):
    index, x, table = layer
    scores, ids = lsh.top_k(index, x[:0], table, K, size=9)
    assert scores.shape == ids.shape == (0, K)


def test_fewer_rows_than_k_are_padded(layer):
    index, _, table = layer
    alone = lsh.remove(index, jnp.arange(1, N, dtype=jnp.int32))
    scores, ids = lsh.top_k(alone, table[:1], table, K, size=5)
    np.testing.assert_array_equal(ids, [[0, N, N]])
    np.testing.assert_array_equal(scores[0, 1:], [-np.inf, -np.inf])


def test_marked_and_half_precision_tables(layer):
    index, x, table = layer
    plain = lsh.top_k(index, x, table, K, size=N)
    marked = lsh.top_k(index, x, Table(table), K, size=N)
    np.testing.assert_array_equal(plain[1], marked[1])
    half = table.astype(jnp.bfloat16)
    scores, _ = lsh.top_k(index, x, half, K, size=N)
    same, _ = lsh.top_k(index, x, half.astype(jnp.float32), K, size=N)
    np.testing.assert_array_equal(scores, same)


def test_under_transformations(layer):
    index, x, table = layer
    search = partial(lsh.top_k, k=K, size=20)
    scores, ids = search(index, x, table)
    for transformed in (jax.jit(search), jax.vmap(search, in_axes=(None, 0, None))):
        other = transformed(index, x, table)
        np.testing.assert_array_equal(other[1], ids)
        np.testing.assert_allclose(other[0], scores, rtol=1e-6)
    slope = jax.grad(lambda x: search(index, x, table)[0].sum())(x)
    np.testing.assert_allclose(slope, table[ids].sum(1), rtol=1e-5)


TOP_K_MISTAKES = [
    ({"index": 3}, TypeError, "index must be of type Index; got int"),
    (
        {"x": jnp.ones((B, D), jnp.bfloat16)},
        TypeError,
        "x must be float32; got x: bf16",
    ),
    (
        {"x": jnp.ones((1, B, D))},
        ValueError,
        "x must have 1 or 2 axes",
    ),
    ({"x": jnp.ones((B, 3))}, ValueError, r"x.shape\[-1\] must equal table.shape\[1\]"),
    (
        {"table": jnp.ones((4, D))},
        ValueError,
        r"table must have the 300 rows .* f32\[4,",
    ),
    ({"table": jnp.ones((N, D), int)}, TypeError, "table must be float32 or bfloat16"),
    ({"k": 0}, ValueError, "k must be at least 1; got 0"),
    ({"size": 2}, ValueError, "size must be at least k, .*; got size 2 and k 3"),
    ({"size": 9.0}, TypeError, "size must be a static integer; got float"),
    ({"num_probes": 0}, ValueError, "num_probes must be at least 1; got 0"),
]


@pytest.mark.parametrize(("changes", "error", "message"), TOP_K_MISTAKES)
def test_mistakes_of_top_k(layer, changes, error, message):
    index, x, table = layer
    arguments = {"index": index, "x": x, "table": table, "k": K, "size": 9}
    with pytest.raises(error, match=f"^lsh.top_k: {message}"):
        lsh.top_k(**{**arguments, **changes})


# ---- default_family -----------------------------------------------------------------


def index_bytes(num_rows, dim):
    def build(key, table):
        return lsh.build(lsh.default_family(key, num_rows, dim), table)

    rows = jax.ShapeDtypeStruct((num_rows, dim), jnp.float32)
    index = jax.eval_shape(build, KEY, rows)
    return index.family.num_tables, lsh.num_bytes(index)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3_000_000), st.integers(1, 1_000))
def test_an_index_is_no_larger_than_the_rows(num_rows, dim):
    num_tables, num_bytes = index_bytes(num_rows, dim)
    weights = 4 * num_rows * dim
    assert num_bytes <= weights or num_tables == 1
    one_more = num_bytes * (num_tables + 1) / num_tables
    assert num_tables == 64 or one_more > weights * (1 - 1e-3) - 1_000


@pytest.mark.parametrize(
    ("num_rows", "num_bits"),
    [(1, 4), (200 * 2**4, 4), (200 * 2**5, 5), (218_590, 10), (2**30, 15)],
)
def test_buckets_have_about_200_rows(num_rows, num_bits):
    family = lsh.default_family(KEY, num_rows, 16)
    assert family.num_buckets == 2**num_bits


def test_default_family_takes_its_directions_from_the_key():
    first, again = (lsh.default_family(KEY, 999, 64).directions for _ in range(2))
    other = lsh.default_family(jax.random.key(1), 999, 64).directions
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


@pytest.mark.parametrize("name", ["num_rows", "dim"])
def test_sizes_of_the_default_family_are_checked(name):
    sizes = {"num_rows": 9, "dim": 9, name: 0}
    with pytest.raises(ValueError, match=f"^lsh.default_family: {name} must be"):
        lsh.default_family(KEY, **sizes)


# ---- tune ---------------------------------------------------------------------------


def near_rows(seed, num_rows, num_examples, noise=0.05):
    """Examples beside some rows: an index finds them."""
    table = normal(seed, num_rows, 32)
    labels = np.arange(num_examples, dtype=np.int32)[:, None] * 3
    x = table[labels[:, 0]] + noise * normal(seed + 1, num_examples, 32)
    return jnp.asarray(x), jnp.asarray(table), jnp.asarray(labels)


class Clock:
    """Seconds by the operands of a search: of the exact one there is no index."""

    def __init__(self, dense, sparse):
        self.dense, self.sparse = dense, sparse

    def __call__(self, run, x, *operands):
        del x
        return self.sparse(*operands[1:], run) if len(operands) > 1 else self.dense


def by_probes(index, run):
    return index.family.num_tables * run.keywords["num_probes"] / 1000


@pytest.fixture(scope="module")
def easy():
    return near_rows(0, 800, 16, noise=0.7)


def tune_by(sparse, task, dense=1.0, num_families=1, **options):
    """With times that are formulas, and fewer steps of the ladder."""
    ladder = _tune._ladder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tune, "median_seconds", Clock(dense, sparse))
        patch.setattr(_tune, "_ladder", lambda *a: islice(ladder(*a), num_families))
        return lsh.tune(KEY, *task, **options)


@pytest.fixture(scope="module")
def tuned(easy):
    options = {"recall": 0.95, "max_fraction": 0.08, "max_inserted": 5}
    return tune_by(by_probes, easy, num_families=3, **options)


def share_found(index, x, table, size, num_probes):
    """How often the row of the largest product is among the candidates."""
    best = (np.asarray(x, np.float64) @ np.asarray(table, np.float64).T).argmax(1)
    found = np.asarray(lsh.query(index, x, size, num_probes=num_probes).ids)
    return np.mean([b in row for b, row in zip(best, found, strict=True)])


def test_the_fastest_that_reaches_the_recall_is_chosen(tuned):
    enough = [trial for trial in tuned.trials if trial.recall >= 0.95]
    assert 0 < len(enough) < len(tuned.trials) == 6
    for trial in tuned.trials:
        seconds = trial.num_tables * trial.num_probes / 1000
        assert trial.seconds == (seconds if trial in enough else math.inf)
    best = min(enough, key=lambda trial: trial.seconds)
    family = tuned.index.family
    chosen = family.num_tables, family.num_bits, tuned.num_probes, tuned.size
    assert chosen == best[:4]
    assert not tuned.use_dense
    assert tuned.why.startswith(
        f"Use the index, {best.num_tables} tables of {best.num_bits} bits, "
    )
    assert f"recall {best.recall:.3f} in {1e3 * best.seconds:.3g} ms" in tuned.why


def test_recall_and_size_are_those_of_the_index(tuned, easy):
    x, table, _ = easy
    (best,) = [t for t in tuned.trials if t.seconds == fastest_seconds(tuned)]
    share = partial(share_found, tuned.index, x, table, num_probes=tuned.num_probes)
    assert best.recall == pytest.approx(share(tuned.size))
    smaller = [size for size in (8, 16, 32, 64) if size < tuned.size]
    assert all(share(size) < 0.95 for size in smaller)
    assert tuned.size in (8, 16, 32, 64)


def fastest_seconds(tuned):
    return min(trial.seconds for trial in tuned.trials)


def test_the_ladder_rises_in_what_a_query_reads():
    families = list(_tune._ladder(KEY, 800, 32))
    sizes = [(family.num_tables, family.num_bits) for family in families]
    assert {bits for _, bits in sizes} == {2, 4, 6}
    most = {bits: max(t for t, b in sizes if b == bits) for bits in (2, 4, 6)}
    assert most[4] == lsh.default_family(KEY, 800, 32).num_tables
    assert set(sizes) == {(-(-most[b] // h), b) for b in most for h in (1, 2)}
    loads = [tables / 2**bits for tables, bits in sizes]
    assert loads == sorted(loads)
    assert len({float(family.directions[0, 0]) for family in families}) == 6


def test_figures_of_an_index(tuned, easy):
    x, table, labels = easy
    assert tuned.index.max_inserted == 5
    size = lsh.num_bytes(tuned.index)
    assert size in [trial.num_bytes for trial in tuned.trials]
    _, ids = lsh.search(tuned, x, table, 1)
    (best,) = [t for t in tuned.trials if t.seconds == fastest_seconds(tuned)]
    assert best.precision == pytest.approx((ids == labels).mean())


def test_search_is_that_of_the_index(tuned, easy):
    x, table, _ = easy
    options = {"size": tuned.size, "num_probes": tuned.num_probes}
    scores, ids = lsh.top_k(tuned.index, x, table, K, **options)
    found = jax.jit(lsh.search, static_argnames="k")(tuned, x, table, k=K)
    np.testing.assert_array_equal(found[1], ids)
    np.testing.assert_allclose(found[0], scores, rtol=1e-6)
    _, one = lsh.search(tuned, x[0], table, K)
    np.testing.assert_array_equal(one, ids[0])


def test_rows_are_centred_unless_prepared_otherwise(tuned, easy):
    x, table, _ = easy
    np.testing.assert_allclose(tuned.index.mips.center, table.mean(0), atol=1e-6)
    mips = lsh.mips(table, augment=True)
    found = tune_by(by_probes, (x, table), k=2, recall=0.1, mips=mips)
    assert found.index.family.dim == 33
    assert found.index.mips is mips
    (best,) = [t for t in found.trials if t.seconds == fastest_seconds(found)]
    wanted = np.argsort(np.asarray(x @ table.T), axis=1)[:, -2:]
    ids = lsh.query(found.index, x, found.size, num_probes=found.num_probes).ids
    pairs = zip(np.asarray(ids), wanted, strict=True)
    share = np.mean([np.isin(rows, found) for found, rows in pairs])
    assert best.recall == pytest.approx(share)


def test_a_faster_exact_search_wins():
    x, table, _ = near_rows(0, 60, 4)
    options = {"recall": 0.2, "max_fraction": 1.0}
    found = tune_by(lambda *_: 0.5, (x, table), dense=0.5, **options)
    assert found.use_dense
    assert found.index is None
    assert found.dense_seconds == 0.5
    assert "Use dense search: it takes 500 ms a query, and the fastest" in found.why
    assert found.trials[0].precision is None
    for shape in (x, x[0]):
        scores, ids = lsh.search(found, shape, table, K)
        wanted = fsparse.dense_top_k(jnp.atleast_2d(shape), table, K)
        np.testing.assert_array_equal(jnp.atleast_2d(ids), wanted[1])
        np.testing.assert_array_equal(jnp.atleast_2d(scores), wanted[0])


def test_an_index_that_finds_too_little_is_not_timed():
    def never(*_):
        raise AssertionError

    x, table = jnp.asarray(normal(5, 16, 4)), jnp.asarray(normal(6, 200, 4))
    found = tune_by(never, (x, table), recall=1.0, max_fraction=0.01)
    assert found.use_dense
    assert {trial.seconds for trial in found.trials} == {math.inf}
    nearest = max(trial.recall for trial in found.trials)
    assert "no index reaches recall 1 with 2 of 200 rows scored" in found.why
    assert f"The nearest has {nearest:.3f}" in found.why


def test_seconds_are_the_median_of_single_queries():
    calls = []

    def search(x, table):
        calls.append(x.shape)  # traced once
        return fsparse.dense_top_k(x[None], table, 1)

    x, table, _ = near_rows(0, 50, 3)
    assert 0 < _tune.median_seconds(search, x, table) < 60
    assert calls == [(32,)]


@given(st.integers(1, 10**6), st.integers(1, 9), st.floats(1e-6, 1))
def test_sizes_are_parts_of_the_largest(num_rows, k, fraction):
    sizes = _tune._sizes(num_rows, k, fraction)
    assert sizes == sorted(set(sizes))
    assert sizes[0] >= k
    assert sizes[-1] == max(k, math.ceil(fraction * num_rows))
    assert len(sizes) <= 4


TUNE_MISTAKES = [
    ({"x": jnp.ones((4, 8), jnp.bfloat16)}, TypeError, "x must be float32"),
    ({"x": jnp.ones(8)}, ValueError, "x must have 2 axes"),
    ({"x": jnp.ones((0, 8))}, ValueError, "x must have examples"),
    ({"x": jnp.ones((4, 7))}, ValueError, r"x.shape\[1\] must equal table.shape\[1\]"),
    ({"table": jnp.ones((0, 8))}, ValueError, "table must have rows"),
    ({"labels": jnp.ones((4, 1))}, TypeError, "labels must be int32"),
    ({"labels": jnp.ones((3, 1), int)}, ValueError, "a row for each example"),
    ({"k": 0}, ValueError, "k must be at least 1; got 0"),
    ({"max_fraction": 0}, ValueError, r"max_fraction must be in \(0, 1\]; got 0"),
    ({"recall": 1.5}, ValueError, r"recall must be in \(0, 1\]; got 1.5"),
    ({"recall": "all"}, TypeError, "recall must be a static number; got str"),
    ({"max_inserted": -1}, ValueError, "max_inserted must be at least 0; got -1"),
]


@pytest.mark.parametrize(("changes", "error", "message"), TUNE_MISTAKES)
def test_mistakes_of_tune(changes, error, message):
    arguments = {"x": jnp.ones((4, 8)), "table": jnp.ones((9, 8))}
    with pytest.raises(error, match=f"^lsh.tune: .*{message}"):
        lsh.tune(KEY, **{**arguments, **changes})


def test_tune_measures_time_and_so_takes_no_traced_arrays():
    with pytest.raises(TypeError, match=r"^lsh.tune: x must be known, .*outside of"):
        jax.jit(lambda x: lsh.tune(KEY, x, jnp.ones((9, 8))).size)(jnp.ones((4, 8)))


def test_search_takes_what_tune_gives():
    with pytest.raises(TypeError, match=r"^lsh.search: tuned must be of type Tuned"):
        lsh.search(3, jnp.ones((4, 8)), jnp.ones((9, 8)), 1)
