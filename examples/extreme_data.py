"""From a data set's name or file to examples that the model can be trained on."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from extreme_model import Config

from fsparse import data
from fsparse.data import Batch, Dataset, Splits

# Tuned on a part of each training set, never on a test set.
PRESETS = {
    "polish-lemmas": Config(
        scale=20.0,
        batch_size=512,
        learning_rate=5e-4,
        embedding_learning_rate=5e-3,
        hidden_learning_rate=5e-5,
        margin=0.0,
        neighbours=True,
        label_capacity=1,
        epochs=2.0,
    ),
    "wordnet-hypernyms": Config(
        width=512,
        batch_size=512,
        num_negatives=1024,
        learning_rate=1e-3,
        embedding_learning_rate=2e-2,
        margin=0.6,
        min_count=2,
        label_capacity=6,
    ),
    "baskets": Config(
        width=512,
        scale=8.0,
        learning_rate=2e-3,
        embedding_learning_rate=1e-2,
        hidden_learning_rate=5e-6,
        feature_dropout=0.3,
        centroids=False,
        log_q=0.5,
        exclude_inputs=True,
        both_ways=True,
        epochs=2.0,
    ),
}
_MAX_VALIDATION = 2000
_ROUNDS = 4
_BLOCK = 64


class Prepared(NamedTuple):
    """What is trained on, watched and judged by."""

    name: str
    train: Dataset
    validation: Dataset  # held out of the training set, for the curve
    test: Dataset
    num_train: int  # examples of the training set before anything was left out
    label_counts: np.ndarray  # i64[num_labels] over those
    notes: list[str]  # what was left out or cut, and how much


def read(name: str, *, test: Path | None, strict: bool) -> tuple[Splits, list[str]]:
    """A data set of `fsparse.data` by its name, or the user's file.

    Without a file of test examples, each line goes to the test set by the CRC-32 of its
    number: one in ten.
    """
    if name in PRESETS:
        return data.load(name), []
    if not Path(name).exists():
        raise FileNotFoundError(
            f"--data must be a file or one of {', '.join(PRESETS)}; there is no {name}."
        )
    dataset, notes = _read_file(Path(name), strict)
    if test is not None:
        held_out, more = _read_file(test, strict)
        _require_same_columns(name, dataset, test, held_out)
        return Splits(dataset, held_out, Path(name).stem), notes + more
    m = dataset.features.num_rows
    in_test = np.array([zlib.crc32(b"%d" % i) % 10 == 0 for i in range(m)], bool)
    notes.append(f"{np.count_nonzero(in_test)} of {m} examples are held out to test by")
    parts = [_take(dataset, np.flatnonzero(which)) for which in (~in_test, in_test)]
    return Splits(*parts, Path(name).stem), notes


def prepare(splits: Splits, notes: list[str], config: Config, seed: int) -> Prepared:
    """Weighs features by tf-idf, clips, and holds out a part to validate on."""
    notes = list(notes)
    if config.exclude_inputs or config.both_ways:
        _require_same_items(splits.train)
    num_train = splits.train.labels.num_rows
    label_counts = data.column_counts(splits.train.labels)
    train = _leave_out_empty(splits.train, notes)
    m, num_test = train.features.num_rows, np.count_nonzero(splits.test.labels.lengths)
    if not m or not num_test:
        raise ValueError(
            f"prepare: {splits.name} must have training examples with features and "
            f"labels, and test examples with labels; got {m} and {num_test}."
        )
    if config.both_ways:
        train = _add_reversed(train)
    splits = splits._replace(train=train)
    splits = data.tfidf(_leave_out_rare(splits, config.min_count, notes))
    capacity = config.feature_capacity
    test = _clip("features", "test", splits.test, capacity, notes)
    train = _clip("features", "training", splits.train, capacity, notes)
    train, validation = _hold_out(train, m, seed)
    train = _clip("labels", "training", train, config.label_capacity, notes)
    return Prepared(
        splits.name, train, validation, test, num_train, label_counts, notes
    )


def batches(
    dataset: Dataset, batch_size: int, order: np.ndarray | None = None, start: int = 0
) -> Iterator[Batch]:
    """Padded batches with room for the longest row, made in the background."""
    capacities = [int(max(r.lengths.max(initial=0), 1)) for r in dataset]
    return data.prefetch(
        data.batches(
            dataset,
            np.arange(dataset.features.num_rows) if order is None else order,
            batch_size,
            feature_capacity=capacities[0],
            label_capacity=capacities[1],
            start=start,
        )
    )


class Round(NamedTuple):
    """A quarter of an epoch: its number, its first step and the next round's."""

    number: int
    start: int
    stop: int


def round_of(step: int, num_examples: int, batch_size: int) -> Round:
    """The round that a step belongs to."""
    sizes = _round_sizes(num_examples, batch_size)
    epoch, within = divmod(step, sum(sizes))
    ends = np.cumsum(sizes)
    quarter = int(np.searchsorted(ends, within, side="right"))
    stop = epoch * sum(sizes) + int(ends[quarter])
    return Round(epoch * _ROUNDS + quarter, stop - sizes[quarter], stop)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Steps in which every example is seen once."""
    return sum(_round_sizes(num_examples, batch_size))


def order_of_round(
    number: int, dataset: Dataset, seed: int, codes: np.ndarray | None
) -> np.ndarray:
    """Which examples a round visits, in order; a function of its arguments alone.

    With `codes`, examples whose labels have the same code stand together in blocks, so
    that the labels of a batch are hard negatives for each other. Blocks are shuffled.
    """
    epoch, quarter = divmod(number, _ROUNDS)
    shuffle = np.random.default_rng([seed, epoch])
    m = dataset.features.num_rows
    order = np.array_split(shuffle.permutation(m), _ROUNDS)[quarter]
    if codes is None:
        return order
    first = dataset.labels.ids[dataset.labels.indptr[order]]
    order = order[np.lexsort((first, codes[first]))]
    blocks = np.array_split(order, max(len(order) // _BLOCK, 1))
    shuffled = np.random.default_rng([seed, epoch, quarter]).permutation(len(blocks))
    return np.concatenate([blocks[i] for i in shuffled])


def _round_sizes(num_examples: int, batch_size: int) -> list[int]:
    """Steps of each round of an epoch, parted as `np.array_split` does."""
    parts = [(num_examples + _ROUNDS - 1 - q) // _ROUNDS for q in range(_ROUNDS)]
    return [data.num_batches(part, batch_size) for part in parts]


def _read_file(path: Path, strict: bool) -> tuple[Dataset, list[str]]:
    dataset, report = data.load_xc(path, strict=strict)
    notes = [f"malformed line left out: {message}" for message in report.messages]
    if report.num_malformed > len(notes):
        notes.append(f"{report.num_malformed} malformed lines of {path} in all")
    if report.num_missing:
        notes.append(
            f"{path} declares {report.num_declared} examples and has "
            f"{report.num_examples + report.num_malformed} lines"
        )
    return dataset, notes


def _require_same_columns(
    name: str, dataset: Dataset, test_name: Path, test: Dataset
) -> None:
    for rows, other, what in zip(dataset, test, ("features", "labels"), strict=True):
        if rows.num_columns != other.num_columns:
            raise ValueError(
                f"--test must declare as many {what} as --data; got "
                f"{other.num_columns} in {test_name}:1 and {rows.num_columns} in "
                f"{name}:1."
            )


def _require_same_items(dataset: Dataset) -> None:
    features, labels = dataset
    if features.num_columns != labels.num_columns:
        raise ValueError(
            "--exclude-inputs must go with features and labels that are the same "
            f"items, and so must --both-ways; got {features.num_columns} and "
            f"{labels.num_columns} of them."
        )


def _leave_out_rare(splits: Splits, min_count: int, notes: list[str]) -> Splits:
    counts = data.column_counts(splits.train.features)
    frequent = (counts >= min_count).astype(np.float32)
    left_out = np.count_nonzero((counts > 0) & (counts < min_count))
    if left_out:
        notes.append(
            f"{left_out} features occur in fewer than min_count={min_count} training "
            "examples and weigh nothing"
        )

    def weigh(dataset: Dataset) -> Dataset:
        features = data.scale_columns(dataset.features, frequent)
        return dataset._replace(features=features)

    return splits._replace(train=weigh(splits.train), test=weigh(splits.test))


def _clip(
    what: str, name: str, dataset: Dataset, capacity: int, notes: list[str]
) -> Dataset:
    """At most `capacity` features or labels an example; notes how many it cost."""
    rows, clipped = data.clip(getattr(dataset, what), capacity)
    if clipped.entries:
        notes.append(
            f"{clipped.entries} {what} of {clipped.examples} {name} examples are "
            f"beyond {what[:-1]}_capacity={capacity} and left out"
        )
    return dataset._replace(**{what: rows})


def _add_reversed(dataset: Dataset) -> Dataset:
    """Each example twice: row `m + i` has the labels of row `i` as its features."""
    features, labels = (r._replace(values=np.ones_like(r.values)) for r in dataset)
    reverse = Dataset(labels, features)
    return Dataset(*map(data.concatenate, zip(dataset, reverse, strict=True)))


def _hold_out(dataset: Dataset, m: int, seed: int) -> tuple[Dataset, Dataset]:
    """Some of the first `m` rows to validate on; rows `i` and `m + i` stay together."""
    size = min(_MAX_VALIDATION, m // 100)
    held_out = np.random.default_rng(seed).permutation(m)[:size]
    row = np.arange(dataset.features.num_rows)
    rest = row[~np.isin(row % m, held_out)]
    return _take(dataset, rest), _take(dataset, held_out)


def _leave_out_empty(dataset: Dataset, notes: list[str]) -> Dataset:
    """Examples to learn from: with a feature and a label."""
    whole = (dataset.features.lengths > 0) & (dataset.labels.lengths > 0)
    if not whole.all():
        notes.append(
            f"{np.count_nonzero(~whole)} training examples without features or labels "
            "are left out"
        )
    return _take(dataset, np.flatnonzero(whole))


def _take(dataset: Dataset, index: np.ndarray) -> Dataset:
    return Dataset(data.take(dataset.features, index), data.take(dataset.labels, index))
