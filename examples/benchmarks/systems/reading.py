"""Readers of text files in the extreme classification repository's format."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsparse.data import Dataset, SparseRows, load_xc, write_xc

NUM_FEATURES = 135_909  # the shape of a set of product texts:
NUM_LABELS = 670_091
FEATURES_PER_EXAMPLE = 75
LABELS_PER_EXAMPLE = 5
BLOCK_EXAMPLES = 4096  # generated once, then repeated
PART_OF_PLAIN_PYTHON = 0.05


def reader(megabytes: float, name: str) -> Callable[[], float]:
    """Seconds for each megabyte. Plain Python reads a part, or it took minutes."""
    folder = tempfile.TemporaryDirectory()
    path, read = Path(folder.name) / "examples.txt", globals()[name]
    part = PART_OF_PLAIN_PYTHON if read is read_plain_python else 1
    generate(path, int(part * megabytes * 1e6))

    def call() -> float:
        assert folder
        began = time.perf_counter()
        read(path)
        return (time.perf_counter() - began) / (path.stat().st_size / 1e6)

    return call


def generate(path: Path, num_bytes: int) -> None:
    """A file of about ``num_bytes``, or one block if that is more."""
    block_path = path.with_suffix(".block")
    write_xc(block_path, random_examples(np.random.default_rng(0)))
    header, block = block_path.read_bytes().split(b"\n", 1)
    repeats = max(1, num_bytes // len(block))
    _, sizes = header.split(b" ", 1)
    with path.open("wb") as file:
        file.write(b"%d %b\n" % (repeats * BLOCK_EXAMPLES, sizes))
        for _ in range(repeats):
            file.write(block)


def random_examples(rng: np.random.Generator) -> Dataset:
    """Rows of rising ids and six decimals, as real files have them."""

    def rows(per_example: int, num_columns: int) -> SparseRows:
        m = BLOCK_EXAMPLES
        gaps = rng.integers(1, num_columns // per_example, (m, per_example))
        ids = (np.cumsum(gaps, axis=1) - 1).astype(np.int32).ravel()
        indptr = np.arange(m + 1) * per_example
        return SparseRows(indptr, ids, np.ones(ids.size, np.float32), num_columns)

    features = rows(FEATURES_PER_EXAMPLE, NUM_FEATURES)
    weights = np.round(rng.exponential(0.1, features.ids.size) + 1e-6, 6)
    features = features._replace(values=weights.astype(np.float32))
    return Dataset(features, rows(LABELS_PER_EXAMPLE, NUM_LABELS))


def read_fsparse(path: Path) -> int:
    """Through the compiled parser, in chunks."""
    dataset, report = load_xc(path, strict=True)
    assert report.is_clean
    return dataset.features.num_rows


def read_plain_python(path: Path) -> int:
    """The straightforward loop; it checks less than fsparse does."""
    label_ids: list[list[int]] = []
    ids: list[int] = []
    values: list[float] = []
    with path.open() as file:
        next(file)
        for line in file:
            labels, _, entries = line.partition(" ")
            label_ids.append([int(label) for label in labels.split(",") if label])
            for entry in entries.split():
                i, _, value = entry.partition(":")
                ids.append(int(i))
                values.append(float(value))
    np.array(ids, np.int32), np.array(values, np.float32)
    return len(label_ids)


def read_scikit_learn(path: Path) -> int:
    """To a scipy matrix and tuples of labels."""
    from sklearn.datasets import load_svmlight_file

    with path.open("rb") as file:
        file.readline()
        features, _ = load_svmlight_file(
            file,
            n_features=NUM_FEATURES,
            dtype=np.float32,
            multilabel=True,
            zero_based=True,
        )
    return int(features.shape[0])
