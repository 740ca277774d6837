"""The features of each kind of column against those of plain Python."""

import datetime
import math
import statistics
from collections import Counter
from decimal import Decimal
from functools import partial

import numpy as np
import pytest
import table_oracle as oracle
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fsparse.tabular import (
    Report,
    Schema,
    categorical,
    cross,
    multi_label,
    numerical,
    text,
    timestamp,
)

N = 2**18
fast = settings(deadline=None, max_examples=40)
TEXTS = st.lists(st.none() | st.text(max_size=8), min_size=1, max_size=6)


def features_of(kind, values, name="c", **others):
    """What an only column makes of its values: a dict of ids to weights for each."""
    m = len(values)
    table = {name: values, **others, "y": ["label"] * m}
    fitted = Schema({name: kind}, target="y", num_features=N).fit(table)
    return to_dicts(fitted.encode(table).features)


def to_dicts(rows):
    assert (rows.ids.dtype, rows.values.dtype) == (np.int32, np.float32)
    found = []
    for r in range(rows.num_rows):
        entries = slice(rows.indptr[r], rows.indptr[r + 1])
        ids = rows.ids[entries].tolist()
        assert ids == sorted(set(ids))
        found.append(dict(zip(ids, rows.values[entries].tolist(), strict=True)))
    return found


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for mine, its in zip(found, wanted, strict=True):
        assert mine == pytest.approx(dict(its), rel=1e-5, abs=1e-6)


@fast
@given(TEXTS)
def test_categories(values):
    wanted = [oracle.categorical("c", v or None, N) for v in values]
    assert_same(features_of(categorical(), values), wanted)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (7, "7"),
        (7.0, "7"),
        (np.float64(7), "7"),
        (-0.5, "-0.5"),
        (True, "True"),
        (2**70, str(2**70)),
        ("18446744073709551617", "18446744073709551617"),
        (1e20, str(10**20)),
        (math.inf, "inf"),
        (b"caf\xc3\xa9", "café"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (Decimal("1.50"), "1.50"),
        ("07", "07"),
        (" a ", " a "),
        ("\ud800", "\ud800"),
        (math.nan, None),
        (None, None),
        ("", None),
    ],
)
def test_values_of_all_types_are_read_as_text(value, written):
    wanted = [oracle.categorical("c", written, N)] * 2
    assert_same(features_of(categorical(), [value, value]), wanted)


@fast
@given(TEXTS, st.data())
def test_crosses(values, data):
    others = data.draw(
        st.lists(st.none() | st.integers(), min_size=len(values), max_size=len(values))
    )
    found = features_of(cross("a", "b"), [0] * len(values), a=values, b=others)
    pairs = zip(values, others, strict=True)
    wanted = [
        oracle.cross("c", [v or None, None if o is None else str(o)], N)
        for v, o in pairs
    ]
    assert_same(found, wanted)


def test_a_cross_is_ordered():
    table = {"a": ["x"], "b": ["y"], "t": [1]}
    one, two = (
        Schema({"c": cross(*names)}, target="t", num_features=N)
        .fit(table)
        .encode(table)
        .features.ids
        for names in ("ab", "ba")
    )
    assert one.tolist() != two.tolist()


def edges_of(values, bins):
    """Values of more than a bin's share, and quantiles of the sorted others."""
    counts = Counter(values)
    heavy = sorted(v for v in counts if counts[v] * bins > len(values))
    heavy = heavy[: max(0, bins - 1)]
    rest = [v for v in values if v not in heavy]
    count = bins - 1 - len(heavy) if rest else 0
    places = [i / (count + 1) * len(rest) for i in range(1, count + 1)]
    return {*heavy, *(rest[max(0, math.ceil(p) - 1)] for p in places)}


NUMBERS = st.sampled_from([0.0, 1.0]) | st.floats(-1e6, 1e6, allow_subnormal=False)


@fast
@given(
    st.lists(st.none() | st.just(math.nan) | NUMBERS, min_size=1, max_size=30),
    st.sampled_from([0, 1, 2, 4, 10]),
    st.booleans(),
)
def test_numbers(values, bins, as_text):
    present = sorted(v for v in values if v is not None and v == v)
    mean = statistics.fmean(present) if present else 0.0
    deviation = (statistics.pstdev(present) if present else 0) or 1.0
    edges = edges_of(present, bins)
    given = values
    if as_text:
        given = ["" if v is None else repr(v) for v in values]
    wanted = [
        oracle.numerical(
            "c",
            None if v is None or v != v else v,
            mean,
            deviation,
            edges,
            bins,
            N,
        )
        for v in values
    ]
    # Rounding of the mean is all that differs, where numbers differ by little more.
    assume(deviation == 1 or deviation > 1e-6 * max(map(abs, present)))
    assert_same(features_of(numerical(bins), given), wanted)


def test_numbers_that_are_not_finite():
    """NaN is missing; infinity weighs as much as can be, and tells the fit nothing."""
    values = [1.0, 2.0, 3.0, math.inf, -math.inf, "1e999", math.nan, 10**400]
    found = features_of(numerical(bins=2), values)
    sizes = partial(oracle.numerical, "c", mean=2.0, deviation=(2 / 3) ** 0.5)
    wanted = [
        sizes(x, edges=[2.0], bins=2, num_features=N)
        for x in (1.0, 2.0, 3.0, math.inf, -math.inf, math.inf, None, math.inf)
    ]
    assert_same(found, wanted)


def test_numbers_near_the_largest():
    found = features_of(numerical(bins=0), [1.7e308, -1.7e308])
    assert [list(row.values()) for row in found] == [[1.0], [-1.0]]


def test_a_constant_weighs_nothing():
    weight = oracle.feature(0, oracle.seed("c", "weight"), N)
    assert all(row[weight] == 0 for row in features_of(numerical(), [3, 3, 3]))


@fast
@given(TEXTS, st.booleans())
def test_words(values, normalize):
    kind = text(max_n=3, normalize=normalize)
    ngrams = partial(oracle.words, max_n=3)
    wanted = [oracle.text("c", v or None, ngrams, normalize, N) for v in values]
    assert_same(features_of(kind, values), wanted)


@fast
@given(TEXTS, st.booleans())
def test_characters(values, normalize):
    kind = text("char", min_n=1, max_n=3, normalize=normalize)
    ngrams = partial(oracle.chars, min_n=1, max_n=3)
    wanted = [oracle.text("c", v or None, ngrams, normalize, N) for v in values]
    assert_same(features_of(kind, values), wanted)


def test_a_text_without_words_is_not_missing():
    assert features_of(text(), ["!?", ""])[0] == {}


PARTS = st.lists(st.text(alphabet="abé 1", max_size=3), max_size=4)


@fast
@given(st.lists(PARTS, min_size=1, max_size=5), st.sampled_from([";", "||"]))
def test_bags(bags, delimiter):
    values = [delimiter.join(bag) for bag in bags]
    wanted = [
        oracle.bag("c", [p.strip() for p in bag if p.strip()] if value else None, N)
        for bag, value in zip(bags, values, strict=True)
    ]
    assert_same(features_of(multi_label(delimiter), values), wanted)


def test_bags_of_lists():
    values = [["a", 7], ("a", "a"), [], None, "b;c"]
    bags = [["a", "7"], ["a", "a"], [], None, ["b", "c"]]
    wanted = [oracle.bag("c", bag, N) for bag in bags]
    assert_same(features_of(multi_label(), values), wanted)


ALL_PARTS = ("hour", "weekday", "day", "month", "year")
OFFSETS = st.integers(-14 * 60, 14 * 60).map(
    lambda m: datetime.timezone(datetime.timedelta(minutes=m))
)
TIMES = st.datetimes(
    datetime.datetime(2, 1, 1),
    datetime.datetime(9998, 1, 1),
    timezones=st.none() | OFFSETS,
)


@fast
@given(st.lists(st.none() | TIMES, min_size=1, max_size=5))
def test_times(values):
    wanted = [oracle.timestamp("c", v, ALL_PARTS, N) for v in values]
    kind = timestamp(parts=ALL_PARTS)
    assert_same(features_of(kind, values), wanted)
    written = ["" if v is None else v.isoformat() for v in values]
    assert_same(features_of(kind, written), wanted)


@fast
@given(st.integers(-60_000_000_000, 200_000_000_000))
def test_seconds_since_1970(seconds):
    when = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    wanted = [oracle.timestamp("c", when, ALL_PARTS, N)] * 3
    kind = timestamp("epoch", parts=ALL_PARTS)
    values = [seconds, float(seconds), f"{seconds}"]
    assert_same(features_of(kind, values), wanted)


def test_formats_of_times():
    when = datetime.datetime(2024, 5, 31)
    wanted = [oracle.timestamp("c", when, ("hour", "weekday", "month"), N)]
    for kind, value in [
        (timestamp("%d/%m/%Y"), "31/05/2024"),
        (timestamp("%Y%m%d"), "20240531"),
        (timestamp(), "2024-05-31"),
        (timestamp(), "2024-05-31T00:00Z"),
        (timestamp(), datetime.date(2024, 5, 31)),
        (timestamp(), np.array(["2024-05-31"], "datetime64[D]")),
    ]:
        values = value if isinstance(value, np.ndarray) else [value]
        assert_same(features_of(kind, values), wanted)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_features_that_collide_are_added(size):
    table = {"a": ["x", "y"], "b": [["p", "p"], ["q"]], "y": [0, 1]}
    columns = {"a": categorical(), "b": multi_label()}
    fitted = Schema(columns, "y", num_features=size).fit(table)
    wanted = [
        oracle.categorical("a", a, size) + oracle.bag("b", b, size)
        for a, b in zip(table["a"], table["b"], strict=True)
    ]
    assert_same(to_dicts(fitted.encode(table).features), wanted)


def test_columns_of_different_names_have_different_features():
    one, two = (features_of(categorical(), ["x"], name=n)[0] for n in ("c", "d"))
    assert one != two


def test_ids_stay_what_they_are():
    """A saved model depends on these numbers."""
    table = {"c": ["red"], "n": [1], "t": ["a b"], "when": [0], "y": [1]}
    columns = {
        "c": categorical(),
        "n": numerical(),
        "t": text(),
        "when": timestamp(),
        "x": cross("c", "t"),
    }
    fitted = Schema(columns, "y", num_features=1000).fit(table)
    assert fitted.encode(table).features.ids.tolist() == IDS


IDS = [33, 108, 197, 310, 331, 509, 549, 640, 676, 976]


def test_marks_of_missing_values_are_those_of_the_schema():
    table = {"c": ["NA", "", "x"], "n": ["NA", "1", "2"], "y": [1, 2, 3]}
    columns = {"c": categorical(), "n": numerical(bins=0)}
    fitted = Schema(columns, "y", num_features=N, missing=("NA",)).fit(table)
    rows = to_dicts(fitted.encode(table, report=Report()).features)
    assert oracle.missing("n", N) in rows[0]
    for row, text_ in zip(rows, [None, "", "x"], strict=True):
        assert set(oracle.categorical("c", text_, N)) <= set(row)


ERRORS = {
    "bins": (lambda: numerical(bins=-1), r"numerical: bins must not be negative; got"),
    "ngrams": (lambda: text("words"), r"text: ngrams must be 'word' or 'char'; got 'w"),
    "min_n": (lambda: text("char", min_n=3, max_n=2), r"min_n <= max_n is required"),
    "min_n of words": (lambda: text(min_n=2), r"min_n must be 1 for words; got 2"),
    "delimiter": (lambda: multi_label(""), r"delimiter must not be empty; got ''"),
    "parts": (lambda: timestamp(parts=("week",)), r"parts must be among .*\('week',\)"),
    "one column": (lambda: cross("a"), r"two or more distinct columns are required"),
    "one column twice": (lambda: cross("a", "a"), r"cross: .* got \('a', 'a'\)"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
