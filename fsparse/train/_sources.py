"""Where batches come from: a data set in memory, or a stream that is made anew."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from fsparse import data
from fsparse.adaptive import Pool, pool_order
from fsparse.data import Dataset
from fsparse.data.rows import require_capacity

Stream = Callable[[int], Iterable[Any]]
Data = Dataset | Stream | Iterable[Any]


class Sizes(NamedTuple):
    """Of a batch; a capacity of None is that of the longest row."""

    batch: int
    features: int | None = None
    labels: int | None = None
    pool: int = 1  # examples for each one that is trained on


class Source(Protocol):
    """Batches of one shape, with which of their examples are no padding."""

    @property
    def num_labels(self) -> int | None:
        """Of the data, if they are known."""

    @property
    def num_batches(self) -> int | None:
        """Of an epoch, if they are known."""

    @property
    def fingerprint(self) -> str:
        """By which the data are told from others."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Pool]:
        """Those of an epoch, from the one numbered ``start``."""


def source_of(
    fn: str, name: str, examples: Data, sizes: Sizes, seed: int | None = None
) -> Source:
    """Batches of what a user passed as data; in order if there is no seed."""
    if isinstance(examples, Dataset):
        return _InMemory(fn, name, examples, sizes, seed)
    if callable(examples):
        return _Streamed(fn, name, examples, sizes.batch)
    if isinstance(examples, Iterable) and not isinstance(examples, Iterator | tuple):
        return _Streamed(fn, name, lambda epoch: examples, sizes.batch)
    raise TypeError(
        f"{fn}: {name} must be a data.Dataset, a function from the number of an epoch "
        f"to an iterable of batches, or a list of batches; got "
        f"{type(examples).__name__}. Wrap an iterator in a function that makes it anew."
    )


class _InMemory:
    """A data set, shuffled by the seed and the number of the epoch."""

    def __init__(
        self, fn: str, name: str, dataset: Dataset, sizes: Sizes, seed: int | None
    ) -> None:
        self._dataset, self._seed = dataset, seed
        self._size, self._pool = sizes.batch, sizes.pool
        self._num = _num_examples(fn, name, dataset)
        self._capacities = {
            "feature_capacity": _capacity(fn, dataset.features, sizes.features),
            "label_capacity": _capacity(fn, dataset.labels, sizes.labels),
        }
        self.num_labels = dataset.labels.num_columns
        self.num_batches = data.num_batches(self._num, self._size)

    @property
    def fingerprint(self) -> str:
        """The CRC-32 of all examples."""
        crc = 0
        for rows in self._dataset:
            for array in (rows.indptr, rows.ids, rows.values):
                crc = zlib.crc32(array.tobytes(), crc)
        return f"{crc:08x}"

    def batches(self, epoch: int, start: int = 0) -> Iterator[Pool]:
        order = self._order(epoch)
        parts = data.batches(
            self._dataset, order, self._size, start=start, **self._capacities
        )
        for number, batch in enumerate(parts, start):
            left = self._num - number * self._size
            yield Pool(batch, np.arange(self._size) < left)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._seed is None:
            return np.arange(self._num)
        size = self._size // self._pool
        return pool_order(self._num, size, self._pool, seed=self._seed, epoch=epoch)


class _Streamed:
    """Batches of the user's own, filled up to one size."""

    num_labels = None
    num_batches = None
    fingerprint = "stream"

    def __init__(self, fn: str, name: str, stream: Stream, size: int) -> None:
        self._where, self._stream, self._size = f"{fn}: {name}", stream, size

    def batches(self, epoch: int, start: int = 0) -> Iterator[Pool]:
        for number, item in enumerate(self._stream(epoch)):
            if number >= start:
                yield self._filled(number, item)

    def _filled(self, number: int, item: Any) -> Pool:
        """With repeats of the first example, which do not count."""
        batch, is_valid = item if isinstance(item, Pool) else (item, True)
        num, places = self._count(number, batch), np.arange(self._size)
        valid = np.zeros(self._size, bool)
        valid[:num] = is_valid
        if num == self._size:
            return Pool(batch, valid)
        at = np.where(places < num, places, 0)
        return Pool(jax.tree.map(lambda x: np.asarray(x)[at], batch), valid)

    def _count(self, number: int, batch: Any) -> int:
        leaves = jax.tree.leaves(batch)
        counts = {np.shape(x)[0] if np.ndim(x) else 0 for x in leaves}
        if len(counts) != 1 or not 1 <= (num := counts.pop()) <= self._size:
            shapes = [tuple(np.shape(x)) for x in leaves]
            raise ValueError(
                f"{self._where}: a batch must be a pytree of arrays that have 1 to "
                f"{self._size} examples as their first axis, alike; batch {number} has "
                f"arrays of shapes {shapes}. Pass batch_size=."
            )
        return num


def _num_examples(fn: str, name: str, dataset: Dataset) -> int:
    features, labels = dataset.features.num_rows, dataset.labels.num_rows
    if features != labels:
        raise ValueError(
            f"{fn}: {name} must have a row of features and one of labels for each "
            f"example; got {features} and {labels} rows."
        )
    if not features:
        raise ValueError(f"{fn}: {name} must have at least 1 example; got 0.")
    return features


def _capacity(fn: str, rows: data.SparseRows, given: int | None) -> int:
    if given is None:
        return max(int(rows.lengths.max()), 1)
    require_capacity(fn, rows.lengths, given, np.arange(rows.num_rows))
    return given
