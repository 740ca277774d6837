"""Figures of an index against sets in plain Python, and who is warned of what."""

import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse import EfficiencyWarning, Table, lsh

N, D, B, L, BITS, MAX_INSERTED = 40, 6, 5, 3, 3, 7
R = 2**BITS
REMOVED = [3, 11, 38]
diagnose = jax.jit(lsh.diagnose, static_argnames=("size", "k", "num_probes"))
FAMILY = lsh.simhash(jax.random.key(0), D, num_tables=L, num_bits=BITS)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


TABLE, X = normal(1, N, D), normal(2, B, D)
NOW = TABLE + 0.5 * normal(3, N, D)
LABELS = jnp.array([[7, 2], [N, -1], [1, 1], [3, N], [30, 39]])
INSERTED = jnp.array([[7, 30, 21], [8, N, 9], [1, 2, 3], [4, 5, 6], [0, 7, 8]])


@pytest.fixture(scope="module")
def index():
    built = lsh.build(FAMILY, TABLE, max_inserted=MAX_INSERTED)
    return lsh.remove(lsh.insert(built, X, INSERTED), jnp.array(REMOVED))


def buckets(index):
    """The rows of each bucket, from the arrays of the index."""
    starts, sizes, entries = (np.asarray(y) for y in index.buckets[:3])
    return [
        [entries[t, starts[t, j] :][: sizes[t, j]].tolist() for j in range(R)]
        for t in range(L)
    ]


def found_by(index, x, num_probes=1):
    """For each example the rows that it finds, best first."""
    held, removed = buckets(index), set(REMOVED)
    probes = lsh.probes(FAMILY, x, num_probes) if num_probes > 1 else None
    probes = lsh.codes(FAMILY, x)[:, :, None] if probes is None else probes
    for of_example in np.asarray(probes):
        votes = np.zeros(N, int)
        for t, codes in enumerate(of_example):
            for row in (row for code in codes for row in held[t][code]):
                votes[row] += row not in removed
        yield [row for row in np.argsort(-votes, kind="stable") if votes[row]]


def share_of(wanted, candidates):
    hits = [row in ids for row, ids in zip(wanted, candidates, strict=True)]
    return np.mean(hits)


# ---- figures ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "k", "num_probes"), [(9, 4, 1), (3, 5, 2), (60, 50, 3)]
)
def test_figures_of_a_sample_against_sets(index, size, k, num_probes):
    d = diagnose(index, X, NOW, LABELS, size=size, k=k, num_probes=num_probes)
    found = list(found_by(index, X, num_probes))
    room, candidates = min(size, N), [rows[:size] for rows in found]
    np.testing.assert_allclose(d.num_found, np.mean([len(rows) for rows in found]))
    fill = np.mean([len(rows) / room for rows in candidates])
    np.testing.assert_allclose(d.fill, fill, rtol=1e-6)
    np.testing.assert_allclose(d.padding, 1 - fill, rtol=1e-5, atol=1e-6)
    best = np.argsort(-np.asarray(X @ NOW.T, np.float64), axis=1)[:, :k]
    pairs = [
        (row, ids) for rows, ids in zip(best, candidates, strict=True) for row in rows
    ]
    np.testing.assert_allclose(d.recall, share_of(*zip(*pairs, strict=True)), rtol=1e-6)
    pairs = [
        (row, ids)
        for rows, ids in zip(LABELS.tolist(), candidates, strict=True)
        for row in rows
        if 0 <= row < N
    ]
    hit_rate = share_of(*zip(*pairs, strict=True))
    np.testing.assert_allclose(d.label_hit_rate, hit_rate, rtol=1e-6)
    never = 1 - len(set().union(*found)) / N
    np.testing.assert_allclose(d.never_found, never, rtol=1e-5)
    assert (d.num_rows, d.num_examples, d.size) == (N, B, size)


def test_loads_against_the_buckets(index):
    d = diagnose(index, X, TABLE, size=4)
    loads = [len(rows) for table in buckets(index) for rows in table]
    histogram = np.zeros(7, int)  # up to 64 > N + MAX_INSERTED
    for load in loads:
        histogram[load.bit_length()] += 1
    np.testing.assert_array_equal(d.load_histogram, histogram)
    assert d.load_histogram.sum() == L * R
    assert d.max_load == max(loads)
    np.testing.assert_allclose(d.mean_load, np.mean(loads), rtol=1e-6)
    np.testing.assert_allclose(d.empty, np.mean(np.equal(loads, 0)), rtol=1e-6)


def test_one_full_bucket_is_in_the_last_bin():
    rows = jnp.ones((32, D))
    index = lsh.build(FAMILY, rows)
    d = diagnose(index, rows[:1], rows, size=1)
    np.testing.assert_array_equal(d.load_histogram, [L * (R - 1), 0, 0, 0, 0, 0, L])
    assert (d.max_load, d.mean_load) == (32, 32 / R)


def test_stale_codes_against_codes(index):
    then, now = lsh.codes(FAMILY, TABLE), lsh.codes(FAMILY, NOW)
    kept = np.setdiff1d(np.arange(N), REMOVED)
    wanted = np.mean(np.asarray(then != now)[kept])
    assert 0.1 < wanted < 0.9
    d = diagnose(index, X, NOW, size=4)
    np.testing.assert_allclose(d.stale, wanted, rtol=1e-6)
    fresh = lsh.refresh(index, NOW, jnp.asarray(kept, jnp.int32))
    assert diagnose(fresh, X, NOW, size=4).stale == 0
    none = lsh.remove(index, jnp.arange(N, dtype=jnp.int32))
    assert np.isnan(diagnose(none, X, NOW, size=4).stale)


def test_rows_for_stale_are_spread_evenly():
    """Of 9,000 rows 4,096 are hashed: those that move are the first, then the last."""
    n = 9000
    family = lsh.simhash(jax.random.key(0), 2, num_tables=1, num_bits=1)
    rows = normal(4, n, 2)
    index = lsh.build(family, rows)
    for moved in (slice(n // 3), slice(n - n // 3, n)):
        d = diagnose(index, rows[:1], rows.at[moved].multiply(-1), size=1)
        np.testing.assert_allclose(d.stale, 1 / 3, atol=2 / 4096)


def test_never_visited_are_the_rows_without_visits(index):
    ids = jnp.array([0, 5, 5, N, N + 3])
    visits = jnp.zeros(N, jnp.int32).at[ids].add(1, mode="drop")
    d = diagnose(index, X, TABLE, size=4, visits=visits)
    np.testing.assert_allclose(d.never_visited, (N - 2) / N, rtol=1e-6)


def test_bytes_and_lost_insertions(index):
    d = diagnose(index, X, TABLE, size=4)
    np.testing.assert_allclose(d.bytes_per_row, lsh.num_bytes(index) / N, rtol=1e-6)
    assert d.weight_bytes_per_row == 4 * D
    half = diagnose(index, X, TABLE.astype(jnp.bfloat16), size=4)
    assert half.weight_bytes_per_row == 2 * D
    assert d.num_lost == np.sum(index.buckets.num_lost)
    assert d.num_lost > 0


def test_a_share_of_nothing_is_nan(index):
    d = diagnose(index, X, TABLE, size=4)
    assert np.isnan([d.label_hit_rate, d.never_visited]).all()
    padding = jnp.full((B, 2), N)
    assert np.isnan(diagnose(index, X, TABLE, padding, size=4).label_hit_rate)
    wild = diagnose(index, X, jnp.full((N, D), jnp.nan), size=4)
    assert np.isnan(wild.recall)


def test_mips_prepares_rows_and_queries():
    """Rows that share a direction are told apart, and none is stale."""
    rows = TABLE + 100.0
    mips = lsh.mips(rows)
    plain, centred = lsh.build(FAMILY, rows), lsh.build(FAMILY, rows, mips=mips)
    loads = [diagnose(i, X, rows, size=4) for i in (plain, centred)]
    assert loads[0].max_load == N
    assert loads[1].max_load < N
    assert [d.stale for d in loads] == [0, 0]


def test_jit_and_tables_change_nothing(index):
    visits = jnp.arange(N, dtype=jnp.int32) % 3
    options = {"size": 9, "k": 4, "visits": visits}
    eager = lsh.diagnose(index, X, NOW, LABELS, **options)
    jitted = diagnose(index, X, Table(NOW), LABELS, **options)
    for name, a, b in zip(eager._fields, eager, jitted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=name)
    types = {y.dtype.name for y in eager}
    assert types == {"int32", "float32"}


def test_a_step_can_measure_in_a_scan(index):
    """The figures are a pytree of arrays: they can be stacked."""

    def step(table, _):
        return 0.5 * table + normal(5, N, D), lsh.diagnose(index, X, table, size=4)

    _, d = jax.lax.scan(step, TABLE, length=3)
    assert d.stale.shape == (3,)
    assert d.stale[0] == 0
    assert d.stale[1] > 0


# ---- warnings -----------------------------------------------------------------------

SOUND = lsh.Diagnostics(
    num_rows=1000,
    num_examples=100,
    size=100,
    num_found=80.0,
    fill=0.8,
    padding=0.2,
    label_hit_rate=0.6,
    recall=0.5,
    never_found=0.1,
    never_visited=0.1,
    stale=0.1,
    load_histogram=np.array([1, 2, 3]),
    mean_load=4.0,
    max_load=20,
    empty=0.1,
    num_lost=0,
    bytes_per_row=100.0,
    weight_bytes_per_row=512.0,
)


def warned(diagnostics):
    """The names of the figures in the warnings, in order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        messages = lsh.warn(diagnostics)
    assert [str(w.message) for w in caught] == messages
    assert {w.category for w in caught} <= {EfficiencyWarning}
    assert {w.filename for w in caught} <= {__file__}
    return [message.split()[1] for message in messages]


@pytest.mark.parametrize(
    ("figure", "good", "bad", "others"),
    [
        ("padding", 0.5, 0.51, {}),
        ("max_load", 128, 129, {}),  # 32 times the mean
        ("max_load", 62, 63, {"mean_load": 1.0}),  # of 1,000 rows
        ("bytes_per_row", 512.0, 513.0, {}),
        ("stale", 0.3, 0.31, {}),
        ("recall", 0.2, 0.19, {}),
        ("recall", 0.75, 0.74, {"size": 500, "label_hit_rate": np.nan}),
        ("recall", 1.0, 0.99, {"size": 1500, "label_hit_rate": np.nan}),
        ("label_hit_rate", 0.2, 0.19, {}),
        ("num_lost", 0, 1, {}),
        ("never_found", 0.49, 0.51, {}),
        ("never_found", 0.95, 0.96, {"num_examples": 1, "num_found": 100.0}),
        ("never_found", 0.89, 0.91, {"num_examples": 2, "num_found": 105.6}),
        ("never_visited", 0.5, 0.51, {}),
    ],
)
def test_a_figure_is_warned_of_beyond_its_limit_only(figure, good, bad, others):
    sound = SOUND._replace(**others)
    assert warned(sound._replace(**{figure: good})) == []
    assert warned(sound._replace(**{figure: bad})) == [figure]


def test_a_warning_has_name_value_limit_and_remedy():
    with pytest.warns(EfficiencyWarning) as caught:
        lsh.warn(SOUND._replace(padding=0.8314, max_load=12345))
    first, second = (str(w.message) for w in caught)
    assert first.startswith("lsh: padding should be at most 0.5; got 0.831. ")
    assert "fewer bits" in first
    assert second.startswith("lsh: max_load should be at most 128; got 12,345. ")
    assert "lsh.mips" in second


def test_figures_that_are_nan_are_not_warned_of():
    nan = dict.fromkeys(("label_hit_rate", "recall", "never_visited", "stale"), np.nan)
    assert warned(SOUND._replace(**nan)) == []


def test_a_sound_index_has_no_warnings_and_a_bad_one_has_many():
    rows = normal(6, 512, 64)
    x = rows[:64] + 0.5 * normal(7, 64, 64)
    labels = jnp.arange(64, dtype=jnp.int32)[:, None]
    family = lsh.simhash(jax.random.key(0), 64, num_tables=8, num_bits=3)
    sound = diagnose(lsh.build(family, rows), x, rows, labels, size=64, k=1)
    assert warned(sound) == []
    alike = rows + 1000.0
    family = lsh.simhash(jax.random.key(0), 64, num_tables=64, num_bits=6)
    index = lsh.build(family, alike)
    bad = diagnose(index, -alike[:64], rows, labels, size=64, k=1)
    assert warned(bad) == [
        *("padding", "max_load", "bytes_per_row", "stale"),
        *("recall", "label_hit_rate"),
    ]


def test_warnings_can_be_errors():
    assert issubclass(EfficiencyWarning, UserWarning)
    with pytest.raises(EfficiencyWarning, match="stale"):
        lsh.warn(SOUND._replace(stale=1.0))


# ---- plot ---------------------------------------------------------------------------


def test_plot_writes_a_png_and_leaves_pyplot_alone(index, tmp_path):
    pytest.importorskip("matplotlib")
    before = "matplotlib.pyplot" in sys.modules
    figures = diagnose(index, X, NOW, LABELS, size=4)
    for d in (figures, SOUND, SOUND._replace(load_histogram=np.zeros(31, int))):
        path = tmp_path / "index.figure"
        lsh.plot_diagnostics(d, path)
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_plot_shows_loads_and_colours_of_shares(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    seen = []
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *_, **__: seen.append(self)
    )
    lsh.plot_diagnostics(SOUND._replace(stale=0.4), tmp_path / "index.png")
    left, right = seen[0].axes
    assert [bar.get_height() for bar in left.patches] == [1, 2, 3]
    assert [t.get_text() for t in left.get_xticklabels()] == ["0", "1", "2-3"]
    names = [t.get_text() for t in right.get_yticklabels()]
    bars = dict(zip(names, right.patches, strict=True))
    widths = {name: bar.get_width() for name, bar in bars.items()}
    wanted = SOUND._replace(stale=0.4)._asdict()
    assert widths == {name: wanted[name] for name in names}
    reds = [n for n, bar in bars.items() if bar.get_facecolor()[0] > 0.7]
    assert reds == ["stale"]


def test_plot_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"lsh\.plot_diagnostics: .*fsparse\[examples"
    ):
        lsh.plot_diagnostics(SOUND, tmp_path / "index.png")
    assert not list(tmp_path.iterdir())


# ---- mistakes -----------------------------------------------------------------------

MISTAKES = [
    ({"index": None}, TypeError, "index must be of type Index; got NoneType"),
    (
        {"x": X.astype(jnp.bfloat16)},
        TypeError,
        r"x must be float32; got x: bf16\[5,6\]",
    ),
    ({"x": X[0]}, ValueError, r"x must have 2 axes; got x: f32\[6\]"),
    ({"x": X[:0]}, ValueError, r"x must have examples; got x: f32\[0,6\]"),
    ({"x": X[:, :3]}, ValueError, r"table.shape\[1\] must equal x.shape\[1\]; got"),
    ({"table": TABLE[:9]}, ValueError, "table must have the 40 rows of the index; got"),
    (
        {"table": TABLE[:, :4]},
        ValueError,
        r"table.shape\[1\] must equal x.shape\[1\]",
    ),
    (
        {"table": TABLE.astype(jnp.int32)},
        TypeError,
        "table must be float32 or bfloat16",
    ),
    ({"labels": LABELS.astype(jnp.float32)}, TypeError, "labels must be int32"),
    ({"labels": LABELS[:, 0]}, ValueError, "labels must have 2 axes"),
    ({"labels": LABELS[:2]}, ValueError, "labels must have a row for each of the 5"),
    ({"size": 0}, ValueError, "size must be at least 1; got 0"),
    ({"k": 0}, ValueError, "k must be at least 1; got 0"),
    ({"num_probes": 0}, ValueError, "num_probes must be at least 1; got 0"),
    ({"size": 2.5}, TypeError, "size must be a static integer"),
    ({"visits": jnp.zeros(N)}, TypeError, "visits must be int32"),
    ({"visits": jnp.zeros(9, jnp.int32)}, ValueError, "visits must have a count for"),
]


@pytest.mark.parametrize(("changed", "error", "message"), MISTAKES)
def test_mistakes_of_diagnose(index, changed, error, message):
    good = {"index": index, "x": X, "table": TABLE, "labels": LABELS, "size": 4}
    with pytest.raises(error, match=f"^lsh.diagnose: {message}"):
        lsh.diagnose(**{**good, **changed})


@pytest.mark.parametrize("fn", [lsh.warn, partial(lsh.plot_diagnostics, path="unused")])
def test_mistakes_of_those_who_read_figures(index, fn):
    with pytest.raises(TypeError, match="diagnostics must be of type Diagnostics; got"):
        fn({"recall": 0.5})
    with pytest.raises(
        TypeError, match=r"got a traced num_rows\. Return them from jit"
    ):
        jax.jit(lambda x: fn(lsh.diagnose(index, x, TABLE, size=4)))(X)
    stacked = SOUND._replace(recall=np.zeros(3))
    with pytest.raises(ValueError, match="recall must have 0 axes"):
        fn(stacked)
