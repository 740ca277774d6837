"""Text to features: n-grams of characters or of words, hashed to column ids.

A feature's id is a function of its bytes, the seed and ``num_features`` alone, so no
vocabulary is kept, and any text can be turned into features of a trained model. The
hash is written out in ``ffi/text.h``. Values are counts: weigh them with
:func:`~fsparse.data.tfidf` or the functions it is made of.
"""

from collections.abc import Sequence

import numpy as np

from fsparse import _ffi
from fsparse.data.rows import I64, SparseRows, concatenate, require_columns, take


def hash_char_ngrams(
    texts: Sequence[str],
    *,
    min_n: int = 2,
    max_n: int = 5,
    num_features: int = 2**18,
    seed: int = 0,
) -> SparseRows:
    r"""Counts of the character n-grams of each text.

    A text is put between the markers ``"\x02"`` and ``"\x03"``, so that prefixes and
    suffixes are features of their own; every run of ``min_n`` to ``max_n`` characters
    of it is one feature, but for a marker alone. The empty text has no features.

    Args:
      texts: ``m`` strings.
      min_n: the fewest characters of a feature.
      max_n: the most.
      num_features: columns to hash to; features that collide are counted together.
      seed: chooses another hash; in ``[0, 2**64)``.

    Returns:
      ``m`` rows with rising ids.

    Raises:
      TypeError: if ``texts`` is one string or holds something else.
      ValueError: if a size is out of range.

    Example:
      >>> rows = hash_char_ngrams(["kot", "kota"], min_n=2, max_n=3)
      >>> rows.lengths.tolist()  # ^k ko ot t$ ^ko kot ot$, and for "kota" two more
      [7, 9]
    """
    function = "hash_char_ngrams"
    if not 1 <= min_n <= max_n < 2**31:
        raise ValueError(
            f"{function}: 1 <= min_n <= max_n is required; got {min_n=}, {max_n=}."
        )
    _require_sizes(function, num_features, seed)
    text, offsets = join_texts(function, texts)
    hashed = _ffi.hash_char_ngrams(text, offsets, min_n, max_n, num_features, seed)
    return SparseRows(*hashed, num_features)


def hash_words(
    texts: Sequence[str],
    *,
    max_n: int = 2,
    num_features: int = 2**18,
    seed: int = 0,
) -> SparseRows:
    """Counts of the runs of 1 to ``max_n`` words of each text.

    A word is a longest run of ASCII letters, digits and any characters beyond ASCII;
    ASCII letters are read in lower case.

    Args:
      texts: ``m`` strings.
      max_n: the most words of a feature.
      num_features: columns to hash to; features that collide are counted together.
      seed: chooses another hash; in ``[0, 2**64)``.

    Returns:
      ``m`` rows with rising ids.

    Raises:
      TypeError: if ``texts`` is one string or holds something else.
      ValueError: if a size is out of range.

    Example:
      >>> hash_words(["To be, or not to be"]).values.sum()  # 6 words, 5 pairs
      np.float32(11.0)
    """
    function = "hash_words"
    if not 1 <= max_n < 2**31:
        raise ValueError(f"{function}: max_n must be positive; got {max_n=}.")
    _require_sizes(function, num_features, seed)
    text, offsets = join_texts(function, texts)
    hashed = _ffi.hash_words(text, offsets, max_n, num_features, seed)
    return SparseRows(*hashed, num_features)


def hash_ngrams(
    texts: Sequence[str],
    ngrams: str,
    *,
    min_n: int,
    max_n: int,
    num_features: int = 2**18,
    seed: int = 0,
) -> SparseRows:
    """:func:`hash_words` for ``"word"``, :func:`hash_char_ngrams` for ``"char"``.

    Raises:
      ValueError: if ``ngrams`` is something else, or a size is out of range; runs of
        words begin with single ones, ``min_n=1``.

    Example:
      >>> hash_ngrams(["to be"], "word", min_n=1, max_n=2).lengths.tolist()
      [3]
    """
    function = "hash_ngrams"
    if ngrams not in ("word", "char"):
        raise ValueError(
            f"{function}: ngrams must be 'word' or 'char'; got {ngrams!r}."
        )
    if ngrams == "char":
        sizes = {"min_n": min_n, "max_n": max_n, "num_features": num_features}
        return hash_char_ngrams(texts, **sizes, seed=seed)
    if min_n != 1:
        raise ValueError(f"{function}: min_n must be 1 for words; got {min_n}.")
    return hash_words(texts, max_n=max_n, num_features=num_features, seed=seed)


def join_columns(parts: Sequence[SparseRows]) -> SparseRows:
    """Row by row side by side: the columns of a part after those of the one before.

    Raises:
      ValueError: if there is no part, or they differ in their number of rows.

    Example:
      >>> from fsparse.data import from_lists
      >>> joined = join_columns([from_lists([[0], []], 2), from_lists([[1], [2]], 3)])
      >>> joined.ids.tolist(), joined.indptr.tolist(), joined.num_columns
      ([0, 3, 4], [0, 2, 3], 5)
    """
    num_rows = sorted({part.num_rows for part in parts})
    if len(num_rows) != 1:
        raise ValueError(
            "join_columns: parts must have one and the same num_rows; got "
            f"{len(parts)} parts with num_rows {num_rows}."
        )
    ends = np.cumsum([part.num_columns for part in parts]).tolist()
    require_columns("join_columns", ends[-1])
    moved = [
        part._replace(ids=part.ids + np.int32(first), num_columns=ends[-1])
        for part, first in zip(parts, [0, *ends[:-1]], strict=True)
    ]
    index = np.arange(len(parts) * num_rows[0]).reshape(len(parts), -1)
    joined = take(concatenate(moved), index.T.ravel())
    return joined._replace(indptr=joined.indptr[:: len(parts)])


def join_texts(function: str, texts: Sequence[str]) -> tuple[bytes, I64]:
    """All texts as UTF-8 in one buffer, and where each begins."""
    if isinstance(texts, str):
        raise TypeError(
            f"{function}: texts must be a sequence of strings; got one string. "
            "Put it into a list."
        )
    try:
        joined = "".join(texts)
        offsets = np.zeros(len(texts) + 1, np.int64)
        if joined.isascii():
            np.cumsum([*map(len, texts)], out=offsets[1:])
            return joined.encode(), offsets
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    except TypeError as e:
        kinds = sorted({type(t).__name__ for t in texts if not isinstance(t, str)})
        raise TypeError(
            f"{function}: texts must be strings; got {', '.join(kinds)} among them."
        ) from e
    np.cumsum([*map(len, encoded)], out=offsets[1:])
    return b"".join(encoded), offsets


def _require_sizes(function: str, num_features: int, seed: int) -> None:
    if not 1 <= num_features < 2**31 - 1:
        raise ValueError(
            f"{function}: num_features must be in [1, 2**31 - 1); got {num_features}."
        )
    if not 0 <= seed < 2**64:
        raise ValueError(f"{function}: seed must be in [0, 2**64); got {seed}.")
