"""What the trainer makes of a data set: weights, hold-outs, rounds and their order."""

import itertools
import zlib

import numpy as np
import pytest
from example_cases import example, make_examples, write_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.data import Dataset, SparseRows, Splits, from_lists, load_xc

extreme_data = example("extreme_data")
Config = extreme_data.Config
NUM_FEATURES, NUM_LABELS = 2000, 9
properties = settings(deadline=None, max_examples=60)


def lists(rows):
    return [row.tolist() for row in np.split(rows.ids, rows.indptr[1:-1])]


# ---- rounds -------------------------------------------------------------------------


def one_label_each(labels, num_labels):
    m = len(labels)
    ids = np.asarray(labels, np.int32)
    rows = SparseRows(np.arange(m + 1), ids, np.ones(m, np.float32), num_labels)
    return Dataset(rows, rows)


def batches_of_epoch(dataset, epoch, batch_size, seed, codes):
    """The examples of each step, as a run that resumes before every step finds them."""
    m = dataset.features.num_rows
    steps = extreme_data.steps_per_epoch(m, batch_size)
    for step in range(epoch * steps, (epoch + 1) * steps):
        number, start, stop = extreme_data.round_of(step, m, batch_size)
        assert start <= step < stop
        order = extreme_data.order_of_round(number, dataset, seed, codes)
        first = (step - start) * batch_size
        yield order[first : first + batch_size]


@properties
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=150),
    st.integers(1, 40),
    st.integers(0, 3),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
def test_an_epoch_visits_every_example_once(labels, batch_size, epoch, seed, coded):
    dataset = one_label_each(labels, 5)
    codes = np.array([7, 7, 3, 1, 3], np.int32) if coded else None
    steps = list(batches_of_epoch(dataset, epoch, batch_size, seed, codes))
    assert all(len(step) for step in steps)
    assert sorted(np.concatenate(steps)) == list(range(len(labels)))


@properties
@given(st.integers(1, 300), st.integers(1, 40))
def test_rounds_tile_the_steps(m, batch_size):
    steps = extreme_data.steps_per_epoch(m, batch_size)
    rounds = [extreme_data.round_of(s, m, batch_size) for s in range(3 * steps)]
    distinct = sorted(set(rounds))
    assert distinct[0].start == 0
    assert distinct[-1].stop == 3 * steps
    for one, after in itertools.pairwise(distinct):
        assert one.stop == after.start
        assert one.number < after.number
    for epoch in range(3):
        within = [r for r in distinct if epoch * steps <= r.start < (epoch + 1) * steps]
        assert len(within) == min(m, 4)
        assert {r.number // 4 for r in within} == {epoch}


@properties
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=600),
    st.integers(0, 11),
    st.integers(0, 2**31 - 1),
)
def test_codes_bring_alike_labels_together_in_shuffled_blocks(labels, number, seed):
    """Codes change the order within a round, not which examples it visits."""
    dataset = one_label_each(labels, 10)
    codes = np.arange(10, dtype=np.int32) % 5
    plain = extreme_data.order_of_round(number, dataset, seed, None)
    order = extreme_data.order_of_round(number, dataset, seed, codes)
    np.testing.assert_array_equal(np.sort(order), np.sort(plain))
    again = extreme_data.order_of_round(number, dataset, seed, codes.copy())
    np.testing.assert_array_equal(order, again)
    num_blocks = max(len(order) // 64, 1)
    for key in (codes[np.array(labels)], np.array(labels)):
        changes = np.count_nonzero(np.diff(key[order]))
        assert changes <= max(len(set(key[order])), 1) - 1 + num_blocks - 1


def test_orders_differ():
    dataset = one_label_each([0] * 2000, 1)
    codes = np.zeros(1, np.int32)
    orders = [
        tuple(extreme_data.order_of_round(number, dataset, seed, which))
        for number in (0, 1, 4, 8)
        for seed in (0, 1)
        for which in (None, codes)
    ]
    assert len(set(orders)) == len(orders)


def test_batches_resume_where_they_are_told():
    dataset = make_examples(50)
    order = np.random.default_rng(1).permutation(50)
    whole = list(extreme_data.batches(dataset, 8, order))
    rest = list(extreme_data.batches(dataset, 8, order, 3))
    assert len(whole) == 7
    for one, other in zip(whole[3:], rest, strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)


# ---- hold-outs and notes ------------------------------------------------------------


def make_part(rows, rng):
    """Row `r` has the feature `r`, which outweighs the other ones; some rows lack."""
    ids, values, labels = [], [], []
    for r in rows:
        others = rng.choice(np.arange(1000, 1040), rng.integers(7), replace=False)
        ids.append([] if r % 17 == 3 else [r, *others])
        values.append([50.0, *rng.uniform(0.1, 1, 7)][: len(ids[-1])])
        labels.append(rng.choice(NUM_LABELS, rng.integers(5), replace=False).tolist())
    features = from_lists(ids, NUM_FEATURES, values)
    return Dataset(features, from_lists(labels, NUM_LABELS))


CONFIG = Config(feature_capacity=4, label_capacity=2)


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    parts = [make_part(rows, rng) for rows in (range(450), range(450, 480))]
    return Splits(*parts, "made")


@pytest.fixture(scope="module")
def prepared(splits):
    return extreme_data.prepare(splits, ["as read"], CONFIG, 0)


def whole_rows(dataset):
    pairs = zip(lists(dataset.features), lists(dataset.labels), strict=True)
    return [r for r, (features, labels) in enumerate(pairs) if features and labels]


def owners(dataset):
    """The row that each example comes from."""
    return [min(ids) for ids in lists(dataset.features)]


def test_hold_outs_and_the_rest_are_the_whole_examples(splits, prepared):
    rest, held_out = owners(prepared.train), owners(prepared.validation)
    whole = whole_rows(splits.train)
    assert sorted(rest + held_out) == whole
    assert len(held_out) == len(whole) // 100 >= 3
    assert prepared.num_train == splits.train.features.num_rows
    assert prepared.test.features.num_rows == splits.test.features.num_rows
    labels = lists(splits.train.labels)
    assert lists(prepared.validation.labels) == [labels[r] for r in held_out]


def test_another_seed_holds_out_others(splits, prepared):
    other = extreme_data.prepare(splits, [], CONFIG, 1)
    same = extreme_data.prepare(splits, [], CONFIG, 0)
    held_out = owners(prepared.validation)
    assert owners(same.validation) == held_out
    assert sorted(owners(other.validation)) != sorted(held_out)


def lost(rows, capacity):
    long = [len(row) for row in rows if len(row) > capacity]
    return sum(long) - capacity * len(long), len(long)


def test_notes_count_what_is_left_out(splits, prepared):
    whole = whole_rows(splits.train)
    features, labels = (lists(rows) for rows in splits.train)
    entries, examples = lost([features[r] for r in whole], 4)
    test_entries, test_examples = lost(lists(splits.test.features), 4)
    label_entries, labelled = lost([labels[r] for r in owners(prepared.train)], 2)
    assert min(entries, test_entries, label_entries) > 0
    missing = len(features) - len(whole)
    assert sorted(prepared.notes) == sorted(
        [
            "as read",
            f"{missing} training examples without features or labels are left out",
            f"{entries} features of {examples} training examples are beyond "
            "feature_capacity=4 and left out",
            f"{test_entries} features of {test_examples} test examples are beyond "
            "feature_capacity=4 and left out",
            f"{label_entries} labels of {labelled} training examples are beyond "
            "label_capacity=2 and left out",
        ]
    )
    assert prepared.train.features.lengths.max() == 4
    assert prepared.test.features.lengths.max() == 4
    assert prepared.train.labels.lengths.max() == 2


def test_nothing_left_out_nothing_noted():
    dataset = make_examples(40)
    splits = Splits(dataset, dataset, "clean")
    assert extreme_data.prepare(splits, [], Config(), 0).notes == []


def test_rare_features_weigh_nothing(splits):
    """Each row's own feature occurs once."""
    prepared = extreme_data.prepare(splits, [], Config(min_count=2), 0)
    for dataset in (prepared.train, prepared.test):
        is_own = dataset.features.ids < 1000
        assert not dataset.features.values[is_own].any()
        assert dataset.features.values[~is_own].all()
    rare = len(whole_rows(splits.train))
    assert any(
        note.startswith(f"{rare} features occur in fewer than min_count=2")
        for note in prepared.notes
    )


def test_both_ways_doubles_the_training_set_but_not_what_is_held_out():
    rng = np.random.default_rng(0)
    m, n = 300, 600
    pairs = [(r, 300 + int(rng.integers(300))) for r in range(m)]
    rows = [from_lists([[pair[i]] for pair in pairs], n) for i in (0, 1)]
    splits = Splits(Dataset(*rows), Dataset(*rows), "pairs")
    prepared = extreme_data.prepare(splits, [], Config(both_ways=True), 0)

    def pairs_of(dataset):
        columns = (dataset.features.ids.tolist(), dataset.labels.ids.tolist())
        return list(zip(*columns, strict=True))

    held_out = pairs_of(prepared.validation)
    assert len(held_out) == 3
    rest = [pair for pair in pairs if pair not in held_out]
    assert sorted(pairs_of(prepared.train)) == sorted(rest + [(b, a) for a, b in rest])


# ---- files --------------------------------------------------------------------------


def test_lines_go_to_the_test_set_by_the_crc_of_their_number(tmp_path):
    path = write_examples(tmp_path / "tiny.txt", 120)
    splits, notes = extreme_data.read(str(path), test=None, strict=True)
    dataset, _ = load_xc(path)
    in_test = [zlib.crc32(str(i).encode()) % 10 == 0 for i in range(120)]
    for part, wanted in ((splits.train, False), (splits.test, True)):
        for rows, all_rows in zip(part, dataset, strict=True):
            want = [
                r for r, t in zip(lists(all_rows), in_test, strict=True) if t == wanted
            ]
            assert lists(rows) == want
    assert splits.name == "tiny"
    assert notes == [f"{sum(in_test)} of 120 examples are held out to test by"]


def test_file_of_test_examples(tmp_path):
    paths = [
        write_examples(tmp_path / name, m, seed=m)
        for name, m in (("a.txt.gz", 40), ("b.txt", 30))
    ]
    splits, notes = extreme_data.read(str(paths[0]), test=paths[1], strict=True)
    for part, path in zip((splits.train, splits.test), paths, strict=True):
        dataset, _ = load_xc(path)
        assert lists(part.features) == lists(dataset.features)
        assert lists(part.labels) == lists(dataset.labels)
    assert notes == []
