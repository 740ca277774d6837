"""Features of texts such as `word; word | gloss`; either side may be empty."""

import re
from collections.abc import Sequence

import numpy as np

from fsparse import data
from fsparse.data import SparseRows


def count(texts: Sequence[str]) -> SparseRows:
    """Words; the first ones of the gloss, which say the kind; ends of compounds."""
    sides = [f"{text.lower()}|".split("|")[:2] for text in texts]
    firsts = [" ".join(re.findall(r"\w+", gloss)[:4]) for _, gloss in sides]
    ends = [" ".join(re.findall(r"\w[ -](\w+) *(?:;|$)", names)) for names, _ in sides]
    more = [data.hash_words(part, num_features=2**16) for part in (firsts, ends)]
    return data.join_columns([data.hash_words(texts), *more])


def weigh(counts: SparseRows) -> np.ndarray:
    """The inverse document frequency; features that are seen once weigh nothing."""
    is_known = data.column_counts(counts) > 1
    return data.inverse_document_frequency(counts) * is_known


def encode(texts: Sequence[str], weights: np.ndarray) -> SparseRows:
    """Weighted features, in rows of length 1."""
    return data.normalize(data.scale_columns(count(texts), weights))


def as_kind(text: str) -> str:
    """A concept as the compounds and glosses of its kinds name it."""
    names = text.split(" | ")[0].split("; ")
    return "; ".join(f"a {name}" for name in names) + " | " + " ".join(names)
