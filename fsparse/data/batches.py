"""Batches of static shape: from a data set in memory or from a stream of its parts.

A batch has room for ``k`` features and ``l`` labels an example. What is left of it is
padding, as is every example that the last batch lacks, so a compiled step sees one
shape. A row that is longer than its room is an error, never cut in silence: use
:func:`~fsparse.data.clip`, which counts what it drops.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsparse.data.rows import (
    F32,
    I32,
    I64,
    Dataset,
    SparseRows,
    concatenate,
    require_capacity,
    to_padded,
)

S = TypeVar("S", bound=np.generic)
T = TypeVar("T")


class Batch(NamedTuple):
    """``b`` examples as padded arrays."""

    feature_ids: I32  # i32[b, k], padded with num_features
    feature_weights: F32  # f32[b, k], padded with 0
    label_ids: I32  # i32[b, l], padded with num_labels


def num_batches(num_examples: int, batch_size: int) -> int:
    """How many batches hold all examples; the last one may be filled up.

    Raises:
      ValueError: if ``batch_size`` is not positive.

    Example:
      >>> num_batches(5, 2)
      3
    """
    _require_at_least_one("num_batches", batch_size=batch_size)
    return -(-num_examples // batch_size)


def batches(
    dataset: Dataset,
    order: ArrayLike,
    batch_size: int,
    *,
    feature_capacity: int,
    label_capacity: int,
    start: int = 0,
) -> Iterator[Batch]:
    """Batches of a data set's examples, in the order given.

    Nothing is dropped: the last batch is filled up with examples that are all padding.

    Args:
      dataset: where the examples are taken from.
      order: ``i64[m]``, the examples of one pass, such as a permutation.
      batch_size: ``b``.
      feature_capacity: ``k``, room for the features of an example.
      label_capacity: ``l``, room for its labels.
      start: the first batch to yield; a run that was stopped resumes here.

    Raises:
      ValueError: if a row is longer than its capacity, or an argument is out of range.

    Example:
      >>> from fsparse.data import from_lists
      >>> rows = from_lists([[0], [1, 2], [2]], 3)
      >>> parts = batches(
      ...     Dataset(rows, rows), [2, 1, 0], 2, feature_capacity=2, label_capacity=2
      ... )
      >>> [batch.label_ids.tolist() for batch in parts]
      [[[2, 3], [1, 2]], [[0, 3], [3, 3]]]
    """
    _require_at_least_one("batches", batch_size=batch_size)
    _require_same_rows("batches", dataset)
    index = np.asarray(order, np.int64)
    count = num_batches(len(index), batch_size)
    if not 0 <= start <= count:
        raise ValueError(
            f"batches: start must be in [0, {count}], the batches there are; got "
            f"{start}."
        )
    return (
        _batch(dataset, part, batch_size, feature_capacity, label_capacity)
        for part in _parts(index, batch_size, start)
    )


def stream_batches(
    examples: Iterable[Dataset],
    batch_size: int,
    *,
    feature_capacity: int,
    label_capacity: int,
    shuffle_buffer: int = 0,
    seed: int = 0,
) -> Iterator[Batch]:
    """Batches of a stream of examples, of which only a buffer is held.

    The batches depend on the examples and their order, not on how the stream is parted.
    As in :func:`batches`, nothing is dropped or cut: have the caller :func:`clip` the
    parts of the stream.

    Args:
      examples: parts of a data set, such as :func:`~fsparse.data.stream_xc` yields.
      batch_size: ``b``.
      feature_capacity: ``k``, room for the features of an example.
      label_capacity: ``l``, room for its labels.
      shuffle_buffer: how many successive examples are shuffled with each other, rounded
        up to whole batches; 0 keeps the order.
      seed: of the shuffling; each pass over the data should have its own.

    Raises:
      ValueError: if a row is longer than its capacity, the parts differ in their
        columns, or an argument is out of range.

    Example:
      >>> from fsparse.data import from_lists
      >>> rows = from_lists([[0], [1, 2], [2]], 3)
      >>> parts = [Dataset(rows, rows), Dataset(rows, rows)]
      >>> stream = stream_batches(parts, 4, feature_capacity=2, label_capacity=2)
      >>> [batch.label_ids.tolist() for batch in stream]
      [[[0, 3], [1, 2], [2, 3], [0, 3]], [[1, 2], [2, 3], [3, 3], [3, 3]]]
    """
    _require_at_least_one("stream_batches", batch_size=batch_size)
    if shuffle_buffer < 0:
        raise ValueError(
            "stream_batches: shuffle_buffer must not be negative; got "
            f"{shuffle_buffer}."
        )
    size = batch_size * max(1, num_batches(shuffle_buffer, batch_size))
    blocks = _regroup(examples, size)
    rng = np.random.default_rng(seed)

    def generate() -> Iterator[Batch]:
        for number, block in enumerate(blocks):
            m = block.features.num_rows
            names = number * size + np.arange(m)
            for rows, capacity in zip(
                block, (feature_capacity, label_capacity), strict=True
            ):
                require_capacity("stream_batches", rows.lengths, capacity, names)
            yield from batches(
                block,
                rng.permutation(m) if shuffle_buffer else np.arange(m),
                batch_size,
                feature_capacity=feature_capacity,
                label_capacity=label_capacity,
            )

    return generate()


def prefetch(iterator: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items, made ahead of time by one background thread.

    The thread starts with the first item asked for. It ends with the iterator, with an
    exception, which is raised here in its place, or when the generator is closed or
    collected; an item that is being made is waited for.

    Args:
      iterator: what to iterate over; nobody else may do so meanwhile.
      depth: the most items that wait or are being made.

    Raises:
      ValueError: if ``depth`` is not positive.

    Example:
      >>> list(prefetch(iter([1, 2, 3])))
      [1, 2, 3]
    """
    _require_at_least_one("prefetch", depth=depth)
    return _prefetch(iter(iterator), depth)


def _prefetch(source: Iterator[T], depth: int) -> Generator[T, None, None]:
    ready: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def produce() -> None:
        try:
            while room.acquire() and not closed.is_set():
                ready.put((next(source),))
        except BaseException as e:  # StopIteration among them
            ready.put(e)

    thread = threading.Thread(target=produce, name="fsparse-prefetch", daemon=True)
    thread.start()
    try:
        while isinstance(item := ready.get(), tuple):
            yield item[0]
            room.release()
        if not isinstance(item, StopIteration):
            raise item
    finally:
        closed.set()
        room.release()
        thread.join()


def _parts(index: I64, size: int, start: int) -> Iterator[I64]:
    for at in range(start * size, len(index), size):
        yield index[at : at + size]


def _batch(dataset: Dataset, index: I64, b: int, k: int, num_labels: int) -> Batch:
    feature_ids, feature_weights = to_padded(dataset.features, index, k)
    label_ids, _ = to_padded(dataset.labels, index, num_labels)
    return Batch(
        _fill(feature_ids, b, dataset.features.num_columns),
        _fill(feature_weights, b, 0),
        _fill(label_ids, b, dataset.labels.num_columns),
    )


def _fill(array: NDArray[S], b: int, padding: int) -> NDArray[S]:
    """``array`` with rows of padding up to ``b``."""
    missing = b - len(array)
    if not missing:
        return array
    return np.pad(array, ((0, missing), (0, 0)), constant_values=padding)


def _regroup(parts: Iterable[Dataset], size: int) -> Iterator[Dataset]:
    """The same examples in parts of ``size``, but for the last one."""
    held: list[Dataset] = []
    count = 0
    for part in parts:
        _require_same_rows("stream_batches", part)
        m, start = part.features.num_rows, 0
        while count + m - start >= size:
            stop = start + size - count
            yield _join([*held, _slice(part, start, stop)])
            held, count, start = [], 0, stop
        if start < m:
            held.append(_slice(part, start, m))
            count += m - start
    if held:
        yield _join(held)


def _slice(dataset: Dataset, start: int, stop: int) -> Dataset:
    """Views of successive examples."""

    def view(rows: SparseRows) -> SparseRows:
        first, last = rows.indptr[start], rows.indptr[stop]
        return SparseRows(
            rows.indptr[start : stop + 1] - first,
            rows.ids[first:last],
            rows.values[first:last],
            rows.num_columns,
        )

    return Dataset(view(dataset.features), view(dataset.labels))


def _join(parts: list[Dataset]) -> Dataset:
    return Dataset(
        concatenate([part.features for part in parts]),
        concatenate([part.labels for part in parts]),
    )


def _require_at_least_one(function: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{function}: {name} must be positive; got {size}.")


def _require_same_rows(function: str, dataset: Dataset) -> None:
    features, labels = dataset.features.num_rows, dataset.labels.num_rows
    if features != labels:
        raise ValueError(
            f"{function}: an example must have a row of features and one of labels; "
            f"got {features} and {labels} rows."
        )
