"""Hashed features against the hash that ffi/text.h documents, in plain Python."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.data import hash_char_ngrams, hash_words

MASK = 2**64 - 1
fast = settings(deadline=None, max_examples=100)


def fmix64(h):
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def feature(ngram, num_features, seed):
    h = 0xCBF29CE484222325 ^ fmix64(seed)
    for byte in ngram.encode("utf-8", "surrogatepass"):
        h = (h ^ byte) * 0x100000001B3 & MASK
    return (fmix64(h) >> 32) * num_features >> 32


def char_ngrams(text, min_n, max_n):
    points = f"\x02{text}\x03"
    for n in range(min_n, max_n + 1):
        for i in range(len(points) + 1 - n):
            if not (n == 1 and i in (0, len(points) - 1)) and text:
                yield points[i : i + n]


def word_ngrams(text, max_n):
    words = re.findall(r"[0-9a-z\x80-\U0010ffff]+", ascii_lower(text))
    for n in range(1, max_n + 1):
        for i in range(len(words) + 1 - n):
            yield " ".join(words[i : i + n])


def ascii_lower(text):
    return "".join(c.lower() if c.isascii() else c for c in text)


def assert_rows(rows, ngrams_of_texts, num_features, seed):
    assert rows.num_columns == num_features
    assert (rows.indptr.dtype, rows.ids.dtype) == (np.int64, np.int32)
    assert rows.values.dtype == np.float32
    assert rows.num_rows == len(ngrams_of_texts)
    for r, ngrams in enumerate(ngrams_of_texts):
        counts = Counter(feature(ngram, num_features, seed) for ngram in ngrams)
        entries = slice(rows.indptr[r], rows.indptr[r + 1])
        assert rows.ids[entries].tolist() == sorted(counts)
        assert rows.values[entries].tolist() == [counts[i] for i in sorted(counts)]


TEXTS = st.lists(st.text(max_size=12), max_size=4)
WORDY = st.lists(st.text(alphabet="aB9é, -\n\x00漢", max_size=12), max_size=4)
SIZES = st.sampled_from([1, 3, 2**10, 2**18, 2**31 - 2])
SEEDS = st.sampled_from([0, 1, 2**64 - 1])


@fast
@given(TEXTS, st.integers(1, 4), st.integers(0, 9), SIZES, SEEDS)
def test_char_ngrams(texts, min_n, more, num_features, seed):
    max_n = min_n + more
    rows = hash_char_ngrams(
        texts, min_n=min_n, max_n=max_n, num_features=num_features, seed=seed
    )
    ngrams = [list(char_ngrams(text, min_n, max_n)) for text in texts]
    assert_rows(rows, ngrams, num_features, seed)


@fast
@given(TEXTS | WORDY, st.integers(1, 4), SIZES, SEEDS)
def test_words(texts, max_n, num_features, seed):
    rows = hash_words(texts, max_n=max_n, num_features=num_features, seed=seed)
    ngrams = [list(word_ngrams(text, max_n)) for text in texts]
    assert_rows(rows, ngrams, num_features, seed)


def test_ids_stay_what_they_are():
    """A saved model depends on these numbers."""
    rows = hash_char_ngrams(["kot"], min_n=2, max_n=2, num_features=1000)
    assert rows.ids.tolist() == sorted(
        feature(ngram, 1000, 0) for ngram in ("\x02k", "ko", "ot", "t\x03")
    )
    assert rows.ids.tolist() == [253, 353, 663, 878]


def test_one_feature_counts_them_all():
    rows = hash_char_ngrams(["abc", ""], min_n=1, max_n=3, num_features=1)
    assert rows.ids.tolist() == [0]
    assert rows.values.tolist() == [3 + 4 + 3]
    assert rows.lengths.tolist() == [1, 0]


def test_lone_surrogates_and_zeros_are_characters():
    rows = hash_char_ngrams(["\ud800\x00"], min_n=1, max_n=1, num_features=2**30)
    assert_rows(rows, [["\ud800", "\x00"]], 2**30, 0)


def test_seeds_give_other_features():
    one, two = (hash_words(["a b c d"], seed=s, max_n=1).ids.tolist() for s in (0, 1))
    assert one != two


ERRORS = {
    "one string": (
        lambda: hash_words("kot"),
        TypeError,
        r"hash_words: texts must be a sequence of strings; got one string\. Put it",
    ),
    "bytes": (
        lambda: hash_char_ngrams(["a", b"b", None]),
        TypeError,
        r"texts must be strings; got NoneType, bytes among them",
    ),
    "min_n": (
        lambda: hash_char_ngrams([], min_n=0),
        ValueError,
        r"1 <= min_n <= max_n is required; got min_n=0, max_n=5",
    ),
    "min_n > max_n": (
        lambda: hash_char_ngrams([], min_n=6),
        ValueError,
        r"got min_n=6, max_n=5",
    ),
    "max_n": (
        lambda: hash_words([], max_n=0),
        ValueError,
        r"hash_words: max_n must be positive; got max_n=0",
    ),
    "no features": (
        lambda: hash_words([], num_features=0),
        ValueError,
        r"num_features must be in \[1, 2\*\*31 - 1\); got 0",
    ),
    "too many features": (
        lambda: hash_words([], num_features=2**31 - 1),
        ValueError,
        r"got 2147483647",
    ),
    "seed": (
        lambda: hash_char_ngrams([], seed=-1),
        ValueError,
        r"seed must be in \[0, 2\*\*64\); got -1",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
