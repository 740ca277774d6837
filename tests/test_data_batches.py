"""Batches: their padding, their order, resuming, streams and the thread ahead."""

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.data import (
    Batch,
    Dataset,
    batches,
    from_lists,
    num_batches,
    prefetch,
    stream_batches,
    take,
)

FEATURES, LABELS = 50, 20
ROOM = {"feature_capacity": 3, "label_capacity": 2}


def make(m, seed=0):
    """``m`` examples; the first feature tells their number."""
    rng = np.random.default_rng(seed)
    ids = [[r, *rng.integers(FEATURES, size=rng.integers(3))] for r in range(m)]
    values = [rng.normal(size=len(row)) for row in ids]
    labels = [rng.integers(LABELS, size=rng.integers(3)) for _ in range(m)]
    return Dataset(from_lists(ids, FEATURES, values), from_lists(labels, LABELS))


def part(dataset, start, stop):
    index = np.arange(start, stop)
    return Dataset(take(dataset.features, index), take(dataset.labels, index))


def numbers(stream):
    """The first feature of each example, batch by batch."""
    return [batch.feature_ids[:, 0].tolist() for batch in stream]


def assert_same(stream, wanted):
    for one, other in zip(stream, wanted, strict=True):
        for array, want in zip(one, other, strict=True):
            assert array.dtype == want.dtype
            np.testing.assert_array_equal(array, want)


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "want"), [(0, 4, 0), (1, 4, 1), (8, 4, 2), (9, 4, 3)]
)
def test_num_batches(num_examples, batch_size, want):
    assert num_batches(num_examples, batch_size) == want


def test_batches_are_padded_and_filled_up():
    dataset = Dataset(
        from_lists([[4, 5], [], [6]], 9, [[0.5, -2.0], [], [3.0]]),
        from_lists([[1], [2, 0], []], 3),
    )
    got = list(batches(dataset, [2, 0, 1], 2, feature_capacity=3, label_capacity=2))
    want = [
        Batch(
            np.array([[6, 9, 9], [4, 5, 9]], np.int32),
            np.array([[3, 0, 0], [0.5, -2, 0]], np.float32),
            np.array([[3, 3], [1, 3]], np.int32),
        ),
        Batch(
            np.array([[9, 9, 9], [9, 9, 9]], np.int32),
            np.zeros((2, 3), np.float32),
            np.array([[2, 0], [3, 3]], np.int32),
        ),
    ]
    assert_same(got, want)


def test_no_examples_no_batches():
    assert list(batches(make(3), [], 2, **ROOM)) == []
    assert list(stream_batches([], 2, **ROOM)) == []
    assert list(stream_batches([make(0)], 2, **ROOM)) == []


@pytest.mark.parametrize("start", range(5))
def test_resumed_pass_is_the_tail(start):
    dataset, order = make(10), np.random.default_rng(1).permutation(10)
    whole = list(batches(dataset, order, 3, **ROOM))
    assert len(whole) == 4
    assert_same(batches(dataset, order, 3, **ROOM, start=start), whole[start:])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 7), max_size=6), st.integers(1, 5), st.sampled_from([0, 7])
)
def test_stream_does_not_depend_on_its_parts(lengths, batch_size, shuffle_buffer):
    dataset = make(sum(lengths))
    ends = np.cumsum([0, *lengths])
    parts = [part(dataset, a, b) for a, b in itertools.pairwise(ends)]
    options = {"shuffle_buffer": shuffle_buffer, **ROOM}
    got = list(stream_batches(iter(parts), batch_size, **options))
    assert_same(got, stream_batches([dataset], batch_size, **options))
    if not shuffle_buffer:
        order = np.arange(sum(lengths))
        assert_same(got, batches(dataset, order, batch_size, **ROOM))


def test_stream_shuffles_within_the_buffer():
    def shuffled(seed):
        stream = stream_batches([make(20)], 4, shuffle_buffer=7, seed=seed, **ROOM)
        return np.ravel(numbers(stream)).tolist()

    order = shuffled(0)
    assert order != sorted(order)
    for start in (0, 8, 16):  # 7 is rounded up to 2 batches
        assert sorted(order[start : start + 8]) == list(
            range(start, min(start + 8, 20))
        )
    assert order == shuffled(0)
    assert order != shuffled(1)


def test_stream_reads_no_more_than_it_needs():
    read = []

    def parts():
        for number in range(5):
            read.append(number)
            yield make(2)

    stream = stream_batches(parts(), 2, **ROOM)
    assert read == []
    next(stream)
    assert read == [0]


def test_stream_tells_the_row_over_capacity():
    ids = [[0], [0], [0], [1], [2], [3, 4, 5], [6]]
    dataset = Dataset(from_lists(ids, FEATURES), from_lists([[0]] * 7, LABELS))
    parts = [part(dataset, 0, 3), part(dataset, 3, 7)]
    room = {"feature_capacity": 2, "label_capacity": 2, "shuffle_buffer": 4}
    stream = stream_batches(parts, 2, **room)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(
        ValueError, match=r"stream_batches: .*capacity=2 entries; got 3 in row 5"
    ):
        next(stream)


SHORT = from_lists([[0]], 5)
ERRORS = {
    "feature capacity": (
        lambda: list(
            batches(make(9), range(9), 3, feature_capacity=1, label_capacity=2)
        ),
        r"at most capacity=1 entries; got .* fsparse\.data\.clip",
    ),
    "label capacity": (
        lambda: list(
            batches(make(9), range(9), 3, feature_capacity=3, label_capacity=1)
        ),
        r"at most capacity=1 entries; got 2 in row",
    ),
    "order": (
        lambda: list(batches(make(3), [0, 3], 2, **ROOM)),
        r"index must be in \[0, 3\)",
    ),
    "batch size": (
        lambda: batches(make(3), [0], 0, **ROOM),
        r"batches: batch_size must be positive; got 0",
    ),
    "stream's batch size": (
        lambda: stream_batches([], 0, **ROOM),
        r"stream_batches: batch_size must be positive; got 0",
    ),
    "number of batches": (lambda: num_batches(3, 0), r"num_batches: batch_size"),
    "start": (
        lambda: batches(make(3), [0, 1, 2], 2, **ROOM, start=3),
        r"start must be in \[0, 2\], the batches there are; got 3",
    ),
    "unequal rows": (
        lambda: batches(Dataset(SHORT, from_lists([], 5)), [], 2, **ROOM),
        r"a row of features and one of labels; got 1 and 0 rows",
    ),
    "unequal rows in a stream": (
        lambda: list(stream_batches([Dataset(SHORT, from_lists([], 5))], 2, **ROOM)),
        r"stream_batches: .* got 1 and 0 rows",
    ),
    "buffer": (
        lambda: stream_batches([], 2, **ROOM, shuffle_buffer=-1),
        r"shuffle_buffer must not be negative; got -1",
    ),
    "depth": (lambda: prefetch([], 0), r"prefetch: depth must be positive; got 0"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def alive():
    return [t for t in threading.enumerate() if t.name == "fsparse-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    assert not alive()


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_prefetch_yields_all_in_order(depth):
    assert list(prefetch(iter(range(50)), depth)) == list(range(50))


def test_prefetch_runs_ahead_but_no_further_than_depth():
    made, enough = [], threading.Event()

    def items():
        for item in range(100):
            made.append(item)
            if len(made) == 3:
                enough.set()
            yield item

    stream = prefetch(items(), 3)
    assert made == []
    assert next(stream) == 0
    assert enough.wait(10)
    stream.close()
    assert made == [0, 1, 2]


def test_prefetch_raises_what_the_iterator_raises_in_its_place():
    def items():
        yield 1
        raise KeyError("lost")

    stream = prefetch(items())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="lost"):
        next(stream)
    assert not alive()
    with pytest.raises(StopIteration):
        next(stream)


def test_prefetch_closes_while_the_thread_waits_for_room():
    stream = prefetch(iter(range(100)), 1)
    next(stream)
    assert len(alive()) == 1
    stream.close()
    assert not alive()


def test_prefetch_ends_when_it_is_forgotten():
    source = iter(make_items())
    forgotten = weakref.ref(source)
    stream = prefetch(source)
    next(stream)
    del stream, source
    gc.collect()
    assert not alive()
    assert forgotten() is None


def make_items():
    yield from range(10)


def test_prefetch_that_is_never_asked_starts_nothing():
    stream = prefetch(iter([1]))
    assert not alive()
    stream.close()


def test_prefetch_beside_batches():
    dataset = make(10)
    one = batches(dataset, np.arange(10), 3, **ROOM)
    assert_same(prefetch(one), batches(dataset, np.arange(10), 3, **ROOM))
