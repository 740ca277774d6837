"""Sparse rows on the host against nested lists."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.data import (
    Clipped,
    Dataset,
    SparseRows,
    Splits,
    clip,
    column_counts,
    concatenate,
    from_lists,
    halve,
    inverse_document_frequency,
    join_columns,
    normalize,
    scale_columns,
    take,
    tfidf,
    to_padded,
)
from fsparse.data.rows import check_rows

COLUMNS = 7
ROW = st.lists(
    st.tuples(st.integers(0, COLUMNS - 1), st.floats(-9, 9, width=32)), max_size=5
)
ROWS = st.lists(ROW, max_size=5)
fast = settings(deadline=None, max_examples=50)


def make(pairs, num_columns=COLUMNS):
    ids = [[i for i, _ in row] for row in pairs]
    values = [[v for _, v in row] for row in pairs]
    return from_lists(ids, num_columns, values)


def pairs_of(rows):
    """Rows as lists of (id, value), after a look at every type."""
    assert rows.indptr.dtype == np.int64
    assert rows.ids.dtype == np.int32
    assert rows.values.dtype == np.float32
    assert rows.indptr[0] == 0
    assert rows.indptr[-1] == len(rows.ids) == len(rows.values)
    pairs = list(zip(rows.ids.tolist(), rows.values.tolist(), strict=True))
    ends = rows.indptr.tolist()
    return [pairs[a:b] for a, b in itertools.pairwise(ends)]


@fast
@given(ROWS)
def test_from_lists_holds_the_lists(pairs):
    rows = make(pairs)
    assert pairs_of(rows) == pairs
    assert rows.num_rows == len(pairs)
    assert rows.lengths.tolist() == [len(row) for row in pairs]


def test_values_left_out_are_ones():
    assert pairs_of(from_lists([[3, 1], []], 4)) == [[(3, 1.0), (1, 1.0)], []]


@fast
@given(ROWS, st.data())
def test_take_repeats_and_reorders(pairs, data):
    place = st.integers(0, len(pairs) - 1)
    index = data.draw(st.lists(place, max_size=8)) if pairs else []
    assert pairs_of(take(make(pairs), index)) == [pairs[r] for r in index]


@fast
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_concatenate(parts):
    joined = concatenate([make(pairs) for pairs in parts])
    assert pairs_of(joined) == [row for pairs in parts for row in pairs]


@fast
@given(st.data(), st.integers(0, 5), st.integers(1, 3))
def test_join_columns(data, num_rows, num_parts):
    same = st.lists(ROW, min_size=num_rows, max_size=num_rows)
    parts = data.draw(st.lists(same, min_size=num_parts, max_size=num_parts))
    joined = join_columns([make(pairs) for pairs in parts])
    n = make([]).num_columns
    assert joined.num_columns == num_parts * n
    assert pairs_of(joined) == [
        [(p * n + i, v) for p, pairs in enumerate(parts) for i, v in pairs[r]]
        for r in range(num_rows)
    ]


@fast
@given(ROWS)
def test_halve_takes_the_first(pairs):
    features, labels = halve(make(pairs))
    assert pairs_of(features) == [row[: len(row) // 2] for row in pairs]
    assert pairs_of(labels) == [row[len(row) // 2 :] for row in pairs]


@fast
@given(ROWS, st.integers(0, 3))
def test_halve_at_random_keeps_all(pairs, seed):
    features, labels = map(pairs_of, halve(make(pairs), np.random.default_rng(seed)))
    for row, one, other in zip(pairs, features, labels, strict=True):
        assert len(one) == len(row) // 2
        assert sorted(one + other) == sorted(row)


def test_halve_at_random_is_fair():
    """Each of three is the feature of a third of the rows."""
    rows = from_lists([[0, 1, 2]] * 3000, 3)
    features, _ = halve(rows, np.random.default_rng(0))
    assert np.abs(column_counts(features) - 1000).max() < 130  # 5 deviations


@fast
@given(ROWS, st.integers(0, 4))
def test_clip_keeps_the_largest_in_order(pairs, capacity):
    def largest(row):
        kept = sorted(range(len(row)), key=lambda e: -abs(row[e][1]))[:capacity]
        return [row[e] for e in sorted(kept)]

    shorter, clipped = clip(make(pairs), capacity)
    assert pairs_of(shorter) == [largest(row) for row in pairs]
    lost = [len(row) - capacity for row in pairs if len(row) > capacity]
    assert clipped == Clipped(len(lost), sum(lost))


@fast
@given(ROWS, st.integers(5, 6))
def test_to_padded_fills_up(pairs, capacity):
    index = np.arange(len(pairs))[::-1]
    ids, values = to_padded(make(pairs), index, capacity)
    assert ids.dtype == np.int32
    assert values.dtype == np.float32
    assert ids.shape == values.shape == (len(pairs), capacity)
    for r, row in enumerate(pairs[::-1]):
        padded = row + [(COLUMNS, 0.0)] * (capacity - len(row))
        assert list(zip(ids[r].tolist(), values[r].tolist(), strict=True)) == padded


@fast
@given(ROWS)
def test_normalize_gives_length_one(pairs):
    rows = normalize(make(pairs))
    assert rows.values.dtype == np.float32
    for row, old in zip(pairs_of(rows), pairs, strict=True):
        length = np.sqrt(sum(v**2 for _, v in old))
        want = [v / length if length else v for _, v in old]
        got = [v for _, v in row]
        np.testing.assert_allclose(got, want, rtol=2**-23, atol=2**-149)


def test_normalize_survives_far_values():
    rows = normalize(from_lists([[0, 1], [0]], 2, [[1.8e38, 2.4e38], [1e-44]]))
    np.testing.assert_allclose(rows.values, [0.6, 0.8, 1.0], rtol=1e-6)


def test_scale_columns_and_counts():
    rows = from_lists([[0, 2], [2]], 4, [[1.0, 2.0], [3.0]])
    scaled = scale_columns(rows, [10, 20, 30, 40])
    assert scaled.values.tolist() == [10.0, 60.0, 90.0]
    assert scaled.values.dtype == np.float32
    assert column_counts(rows).tolist() == [1, 0, 2, 0]


def test_inverse_document_frequency():
    rows = from_lists([[0, 2], [2], [2]], 4)
    want = np.log([4 / 2, 4 / 1, 4 / 4, 4 / 1]) + 1
    weights = inverse_document_frequency(rows)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, want, rtol=1e-6)


def test_tfidf_learns_from_training_alone():
    train = from_lists([[0, 1], [1]], 3)
    test = from_lists([[0, 1, 2]], 3)
    labels = from_lists([[0], [0]], 1)
    splits = tfidf(Splits(Dataset(train, labels), Dataset(test, labels), "x"))
    weights = np.log([3 / 2, 3 / 3, 3 / 1]) + 1
    want = weights / np.linalg.norm(weights)
    np.testing.assert_allclose(splits.test.features.values, want, rtol=1e-6)
    np.testing.assert_array_equal(splits.test.labels.ids, labels.ids)
    assert splits.name == "x"


def unchecked(indptr, ids, values, num_columns=3):
    return SparseRows(
        np.array(indptr, np.int64),
        np.array(ids, np.int32),
        np.array(values, np.float32),
        num_columns,
    )


TWO = from_lists([[0, 1], [2]], 3)
ERRORS = {
    "id too large": (
        lambda: from_lists([[0], [3]], 3),
        r"from_lists: ids must be in \[0, num_columns=3\); got 3 as entry 1",
    ),
    "id negative": (lambda: from_lists([[-1]], 3), r"got -1 as entry 0"),
    "id beyond int32": (lambda: from_lists([[2**32]], 3), r"got 4294967296"),
    "no room for padding": (
        lambda: from_lists([[0]], 2**31 - 1),
        r"num_columns must be in \[0, 2\*\*31 - 1\).*got 2147483647",
    ),
    "ragged values": (
        lambda: from_lists([[0, 1]], 3, [[1.0]]),
        r"as many entries as ids in every row; got 2 ids and 1 values",
    ),
    "nan": (
        lambda: from_lists([[0], [1]], 3, [[1.0], [float("nan")]]),
        r"values must be finite; got nan for id 1 in row 1\.",
    ),
    "inf": (
        lambda: from_lists([[0, 1]], 3, [[1.0, -float("inf")]]),
        r"got -inf for id 1 in row 0",
    ),
    "falling indptr": (
        lambda: check_rows("f", unchecked([0, 2, 1], [0], [1])),
        r"f: indptr must rise from 0",
    ),
    "indptr too short": (
        lambda: check_rows("f", unchecked([0, 1], [0, 1], [1, 1])),
        r"got 2 row ends, 2 ids and 2 values",
    ),
    "take too far": (
        lambda: take(TWO, [0, 2]),
        r"take: index must be in \[0, 2\), the rows there are; got 0 to 2",
    ),
    "take negative": (lambda: take(TWO, [-1]), r"got -1 to -1"),
    "concatenate nothing": (lambda: concatenate([]), r"got 0 parts"),
    "concatenate others": (
        lambda: concatenate([TWO, from_lists([], 4)]),
        r"one and the same num_columns; got 2 parts with num_columns \[3, 4\]",
    ),
    "join nothing": (lambda: join_columns([]), r"got 0 parts"),
    "join others": (
        lambda: join_columns([TWO, from_lists([], 3)]),
        r"one and the same num_rows; got 2 parts with num_rows \[0, 2\]",
    ),
    "join too many": (
        lambda: join_columns([from_lists([], 2**30)] * 2),
        r"num_columns must be in \[0, 2\*\*31 - 1\).*got 2147483648",
    ),
    "clip to less than nothing": (lambda: clip(TWO, -1), r"must not be negative"),
    "over capacity": (
        lambda: to_padded(TWO, [1, 0], 1),
        r"at most capacity=1 entries; got 2 in row 0\. .*fsparse\.data\.clip",
    ),
    "scale of another length": (
        lambda: scale_columns(TWO, [1.0]),
        r"scale must have shape \(3,\).*got \(1,\)",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
