"""Histories of sales beside a count by hand; and that no week sees its own."""

import numpy as np
import pytest

from fsparse.data import sales

NAMES = (
    "product_id",
    "store_id",
    "manufacturer_id",
    "product_type",
    "product_category",
)


def draw(rng, m):
    """Few products and stores, so that most rows have a history."""
    columns = {name: rng.integers(-1, 4, m) for name in NAMES}
    return columns | {"week": rng.integers(0, 54, m)}


@pytest.fixture
def tables(rng):
    return draw(rng, 300), draw(rng, 500), draw(rng, 400)


def seen(row, events, names):
    """The weeks of events that agree with the row, before its own."""
    agree = [all(e[n] == row[n] for n in names) for e in events]
    weeks = [e["week"] for e, good in zip(events, agree, strict=True) if good]
    return [week for week in weeks if week < row["week"]]


def by_hand(field, row, events):
    weeks = seen(row, events, field.names)
    if field.last is None:
        return row["week"] - max(weeks) if weeks else 0
    return sum(week >= row["week"] - field.last for week in weeks)


def records(columns):
    return [
        dict(zip(columns, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]


def test_fields_are_what_counting_gives(tables):
    rows, sold, promoted = tables
    found = sales.history(*tables)
    assert found.keys() == sales.HISTORY_FIELDS.keys()
    for name, field in sales.HISTORY_FIELDS.items():
        events = records(promoted if field.of_promotions else sold)
        wanted = [by_hand(field, row, events) for row in records(rows)]
        assert found[name].tolist() == wanted, name
        assert len(set(wanted)) > 2, name


def test_a_row_does_not_see_its_own_week_or_later(tables, rng):
    rows, sold, promoted = tables
    before = sales.history(rows, sold, promoted)
    week = 30

    def changed(table):
        """Other events from that week on, and more of them."""
        past = {name: column[table["week"] < week] for name, column in table.items()}
        new = draw(rng, 600) | {"week": rng.integers(week, 54, 600)}
        return {name: np.concatenate([past[name], new[name]]) for name in table}

    after = sales.history(rows, changed(sold), changed(promoted))
    is_early = rows["week"] <= week
    for name, column in before.items():
        np.testing.assert_array_equal(column[is_early], after[name][is_early])
        assert (column != after[name])[~is_early].any(), name


def test_the_order_of_events_does_not_matter(tables, rng):
    rows, sold, promoted = tables
    order = rng.permutation(len(sold["week"]))
    shuffled = {name: column[order] for name, column in sold.items()}
    one, other = (sales.history(rows, s, promoted) for s in (sold, shuffled))
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name])


def test_without_events_all_is_zero(tables):
    rows = tables[0]
    none = {name: column[:0] for name, column in rows.items()}
    found = sales.history(rows, none, none)
    assert all(not column.any() for column in found.values())


def test_bins_grow():
    assert sales.bins(np.array([0, 1, 2, 3, 7, 15])).tolist() == [0, 3, 5, 6, 9, 12]
