"""What users met before, against the rule in plain Python, and carried along."""

import json
from collections import Counter

import numpy as np
import pytest
import table_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse import checkpoint
from fsparse.tabular import (
    FittedSchema,
    Report,
    Schema,
    _json,
    categorical,
    history,
)

N = 2**18
fast = settings(deadline=None, max_examples=60)
USERS = st.sampled_from(["u", "v", None])
TIMES = st.none() | st.integers(0, 5)
ITEMS = st.lists(st.sampled_from("abcdefgh"), max_size=3)
ROWS = st.lists(st.tuples(USERS, TIMES, ITEMS), min_size=1, max_size=30)
LAST = st.integers(1, 4)


def table_of(rows):
    return [
        {"user": u, "time": t, "item": ";".join(items), "y": "label"}
        for u, t, items in rows
    ]


def fit(rows, last):
    kind = history("user", "item", "time", last=last, delimiter=";", format="epoch")
    return Schema({"past": kind}, "y", num_features=N).fit(
        table_of(rows), report=Report()
    )


def rows_of(features):
    ends = features.indptr
    return [
        dict(
            zip(
                features.ids[ends[r] : ends[r + 1]].tolist(),
                features.values[ends[r] : ends[r + 1]].tolist(),
                strict=True,
            )
        )
        for r in range(features.num_rows)
    ]


def wanted(views):
    return [
        dict(oracle.bag("past", view or None, N)) if view else {MISSING: 1}
        for view in views
    ]


MISSING = oracle.missing("past", N)


@fast
@given(ROWS, LAST)
def test_rows_see_what_their_users_met_before(rows, last):
    report = Report()
    views, num_late = oracle.seen_items(rows, last)
    found = fit(rows, last).encode(table_of(rows), report=report)
    assert rows_of(found.features) == wanted(views)
    assert report.num_late == num_late


@fast
@given(ROWS, LAST, st.lists(st.integers(1, 10), min_size=1, max_size=5))
def test_parts_of_any_size_see_the_same(rows, last, sizes):
    fitted, table, report = fit(rows, last), table_of(rows), Report()
    state, found = {"past": history_state()}, []
    while table:
        size = sizes[len(found) % len(sizes)]
        state, part = fitted.encode_with(state, table[:size], report=report)
        found.append(part.features)
        table = table[size:]
    views, num_late = oracle.seen_items(rows, last)
    assert [row for part in found for row in rows_of(part)] == wanted(views)
    assert report.num_late == num_late
    assert same_state(state, fitted.state)


def history_state():
    """Nothing, as it is before the first row."""
    return fit([(None, None, [])], 1).state["past"]


def same_state(one, two):
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype
        for a, b in zip(one["past"], two["past"], strict=True)
    )


@fast
@given(ROWS, LAST)
def test_the_state_holds_no_more_than_twice_the_last_items(rows, last):
    state = fit(rows, last).state["past"]
    assert np.all(np.diff(state.indptr) <= 2 * last)
    assert len(state.users) == len({u for u, t, _ in rows if u and t is not None})


@fast
@given(ROWS, LAST)
def test_encoding_leaves_the_state_it_is_given(rows, last):
    fitted = fit(rows, last)
    before = {"past": type(fitted.state["past"])(*map(np.copy, fitted.state["past"]))}
    fitted.encode_with(fitted.state, table_of(rows), report=Report())
    assert same_state(fitted.state, before)


@fast
@given(ROWS, ROWS, LAST)
def test_serving_goes_on_where_the_fit_ended_and_rows_do_not_see_each_other(
    rows, queries, last
):
    fitted = fit(rows, last)
    found = fitted.encode_features(table_of(queries), report=Report())
    views = [oracle.seen_items([*rows, query], last)[0][-1] for query in queries]
    assert rows_of(found) == wanted(views)
    unlabelled = [{"user": u, "time": t} for u, t, _ in queries]
    again = fitted.encode_features(unlabelled, report=Report())
    assert rows_of(again) == rows_of(found)


def test_rows_of_one_time_do_not_see_each_other():
    rows = [("u", 1, ["a"]), ("u", 1, ["b"]), ("u", 2, ["c"])]
    found = fit(rows, 5).encode(table_of(rows))
    assert rows_of(found.features) == wanted([[], [], ["a", "b"]])


def test_a_tie_does_not_push_older_items_out():
    rows = [("u", 1, ["a"]), *[("u", 2, [x]) for x in "bcd"], ("u", 2, ["e"])]
    fitted = fit(rows[:4], 2)
    _, found = fitted.encode_with(fitted.state, table_of(rows[4:]))
    assert rows_of(found.features) == wanted([["a"]])


def test_a_late_row_sees_nothing_newer_and_is_told_of():
    rows = [("u", 1, ["a"]), ("u", 5, ["b"]), ("u", 3, ["c"]), ("u", 9, ["d"])]
    fitted = fit(rows, 5)
    with pytest.warns(UserWarning, match=r"1 rows are older than their user's newest"):
        found = fitted.encode(table_of(rows))
    assert rows_of(found.features) == wanted([[], ["a"], ["a"], ["a", "b"]])


def test_the_target_may_be_the_item():
    columns = {"past": history("user", "bought", "day", last=2)}
    rows = [
        {"user": "u", "day": f"2024-05-0{d}", "bought": x}
        for d, x in enumerate("abcd", 1)
    ]
    fitted = Schema(columns, "bought", num_features=N).fit(rows)
    views = [[], ["a"], ["a", "b"], ["b", "c"]]
    assert rows_of(fitted.encode(rows).features) == wanted(views)
    query = [{"user": "u", "day": "2024-05-05"}]
    assert rows_of(fitted.encode_features(query)) == wanted([["c", "d"]])


def test_many_users_at_once(rng):
    rows = [
        (str(u), float(t), [str(i)])
        for u, t, i in zip(
            rng.integers(0, 50, 1000),
            np.sort(rng.integers(0, 200, 1000)),
            rng.integers(0, 30, 1000),
            strict=True,
        )
    ]
    views, num_late = oracle.seen_items(rows, 3)
    assert not num_late
    assert rows_of(fit(rows, 3).encode(table_of(rows)).features) == wanted(views)


def test_a_state_goes_through_json_and_checkpoints(tmp_path):
    rows = [("u", 1, ["a"]), ("v", 2, ["b", "c"]), ("u", 3, ["d"])]
    fitted = fit(rows, 2)
    again = FittedSchema.from_json(json.dumps(json.loads(fitted.to_json())))
    assert same_state(again.state, fitted.state)
    checkpoint.save(tmp_path / "state", fitted.state, {})
    loaded, _ = checkpoint.load(tmp_path / "state", fitted.state)
    assert same_state(loaded, fitted.state)
    later = table_of([("u", 4, []), ("v", 4, [])])
    assert rows_of(again.encode_features(later)) == wanted([["a", "d"], ["b", "c"]])


@pytest.mark.parametrize("name", ["users", "newest", "indptr", "times", "items"])
def test_a_state_that_is_not_whole(name):
    fitted = fit([("u", 1, ["a"]), ("v", 2, ["b", "c"])], 2)
    body = json.loads(fitted.to_json())["body"]
    body["state"]["past"][name] = ""
    with pytest.raises(ValueError, match=r"the state must hold sorted users and"):
        FittedSchema.from_json(_json.seal(body))


def test_an_items_feature_is_that_of_no_other_column():
    kind = history("user", "item", "time", format="epoch")
    schema = Schema({"past": kind, "item": categorical()}, "y", num_features=N)
    rows = table_of([("u", 1, ["a"]), ("u", 2, ["a"])])
    found = rows_of(schema.fit(rows).encode(rows).features)
    assert Counter(map(len, found)) == {2: 2}


def test_last_must_be_positive():
    with pytest.raises(ValueError, match=r"history: last must be positive; got 0"):
        history("u", "i", "t", last=0)
