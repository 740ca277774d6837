"""How fast a file of sparse examples is read: fsparse beside plain Python and others.

A file in the extreme classification repository's format is generated, then read by each
reader in turn, round after round; the median of the rounds is shown. Plain Python reads
a part of the file, so that a round does not take minutes. scikit-learn reads the file
without its first line, if it is installed.

Example:
  python examples/benchmarks/read_xc.py --megabytes 100 --rounds 5 --json read_xc.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import machine
import numpy as np

from fsparse.data import Dataset, SparseRows, load_xc, write_xc

NUM_FEATURES = 135_909  # the shape of a set of product texts:
NUM_LABELS = 670_091
FEATURES_PER_EXAMPLE = 75
LABELS_PER_EXAMPLE = 5
BLOCK_EXAMPLES = 4096  # generated once, then repeated
PART_OF_PLAIN_PYTHON = 0.05


class Reader(NamedTuple):
    """A function that reads a file and returns its number of examples."""

    name: str
    read: Callable[[Path], int]
    path: Path


class Result(NamedTuple):
    """Medians over the rounds."""

    reader: str
    megabytes: float
    seconds: float
    megabytes_per_second: float
    examples_per_second: float


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


def make_readers(folder: Path, num_bytes: int) -> list[Reader]:
    """Generates the files; a reader that is not installed is left out."""
    whole, part = folder / "whole.txt", folder / "part.txt"
    generate(whole, num_bytes)
    generate(part, int(num_bytes * PART_OF_PLAIN_PYTHON))
    readers = [
        Reader("fsparse.data.load_xc", read_fsparse, whole),
        Reader("plain Python", read_plain_python, part),
    ]
    if machine.version("scikit-learn"):
        readers.append(Reader("sklearn load_svmlight_file", read_scikit_learn, whole))
    return readers


def measure(reader: Reader) -> tuple[int, float]:
    """Examples read, and the seconds it took."""
    start = time.perf_counter()
    num_examples = reader.read(reader.path)
    return num_examples, time.perf_counter() - start


def compare(readers: list[Reader], rounds: int) -> list[Result]:
    """Alternates, so that a slow minute of the machine falls on every reader."""
    times: dict[str, list[float]] = {reader.name: [] for reader in readers}
    counts = {}
    for _ in range(rounds):
        for reader in readers:
            counts[reader.name], seconds = measure(reader)
            times[reader.name].append(seconds)
    results = []
    for name, _, path in readers:
        seconds = statistics.median(times[name])
        megabytes = path.stat().st_size / 1e6
        rates = megabytes / seconds, counts[name] / seconds
        results.append(Result(name, megabytes, seconds, *rates))
    return results


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--megabytes", type=float, default=100, help="size of the file (default: 100)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="times each reader reads (default: 5)"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    if arguments.megabytes <= 0 or arguments.rounds < 1:
        parser.error("--megabytes and --rounds must be positive")
    return arguments


def main() -> None:
    """Measures and prints."""
    arguments = parse_arguments()
    found = machine.facts("numpy", "scikit-learn")
    machine.show(found)
    with tempfile.TemporaryDirectory() as folder:
        readers = make_readers(Path(folder), int(arguments.megabytes * 1e6))
        results = compare(readers, arguments.rounds)
    print(f"\n{'reader':<28}{'MB':>8}{'s':>9}{'MB/s':>9}{'examples/s':>13}")
    for name, size, seconds, rate, examples in results:
        print(f"{name:<28}{size:>8.1f}{seconds:>9.3f}{rate:>9.1f}{examples:>13,.0f}")
    if arguments.json:
        figures = {"machine": found, "results": [r._asdict() for r in results]}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
