"""The rules of the data sets on small packages made here; the real ones if at hand."""

import gzip
import io
import json
import sys
import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from fsparse.data import (
    column_counts,
    datasets,
    hash_char_ngrams,
    hash_words,
    load,
    packages,
    wordnet_texts,
)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Puts files in the place of a package's."""

    def install(**files):
        paths = [tmp_path / name for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.write_bytes(content)
        monkeypatch.setattr(packages, "fetch", lambda package: paths)

    return install


def lists(rows):
    ends = rows.indptr
    return [rows.ids[ends[r] : ends[r + 1]].tolist() for r in range(rows.num_rows)]


def split(texts, labels):
    """The rules in plain Python: (texts, label numbers) of both parts."""
    counts = Counter(label for names in labels for label in names)
    frequent = [label for label in counts if counts[label] >= 2]
    numbers = {label: number for number, label in enumerate(frequent)}
    examples = [
        (text, [numbers[label] for label in names if label in numbers])
        for text, names in zip(texts, labels, strict=True)
    ]
    examples = [example for example in examples if example[1]]
    tested = [zlib.crc32(text.encode()) % 10 == 0 for text, _ in examples]
    known = {n for e, t in zip(examples, tested, strict=True) if not t for n in e[1]}
    for i, (_, ids) in enumerate(examples):
        if tested[i] and not known.issuperset(ids):
            tested[i] = False
            known.update(ids)
    return tuple(
        [e for e, t in zip(examples, tested, strict=True) if t == wanted]
        for wanted in (False, True)
    )


def assert_splits(splits, texts, labels, features):
    for dataset, want in zip(splits[:2], split(texts, labels), strict=True):
        assert want, "the case must have examples in both parts"
        assert lists(dataset.labels) == [ids for _, ids in want]
        assert set(dataset.labels.values.tolist()) == {1.0}
        rows = features([text for text, _ in want])
        for got, one in zip(dataset.features, rows, strict=True):
            np.testing.assert_array_equal(got, one)
    assert column_counts(splits.train.labels).min() >= 1
    assert splits.train.labels.num_columns == splits.test.labels.num_columns


def texts_by_rule(tested, count):
    """Texts that the rule puts into the test set, or into training."""
    texts = (f"żółw{i}" for i in range(10**4))
    chosen = [t for t in texts if (zlib.crc32(t.encode()) % 10 == 0) == tested]
    return chosen[:count]


def test_polish_lemmas(serve):
    train, test = texts_by_rule(False, 60), texts_by_rule(True, 12)
    lemma_of = {form: f"lemma{i % 20}" for i, form in enumerate(train)}
    lemma_of |= {form: f"lemma{i}" for i, form in enumerate(test[:8])}
    lemma_of |= dict.fromkeys(test[8:11], "only in the test set")
    lemma_of[test[11]] = lemma_of[f"{test[11]}!"] = "of two forms"
    lemma_of["alone"] = "of one form"
    lemma_of = dict(sorted(lemma_of.items(), key=lambda item: item[0][::-1]))
    serve(forms=gzip.compress(json.dumps(lemma_of).encode()))

    splits = load("polish-lemmas", num_features=1000, seed=3)
    assert splits.name == "polish-lemmas"
    assert splits.train.labels.num_columns == 22

    def features(texts):
        return hash_char_ngrams(texts, min_n=2, max_n=5, num_features=1000, seed=3)

    labels = [[lemma] for lemma in lemma_of.values()]
    assert_splits(splits, list(lemma_of), labels, features)


def synset(offset, kind, words, pointers, gloss, frames=""):
    """A line of WordNet's data files."""
    fields = [f"{offset:08d}", "03", kind, f"{len(words):02x}"]
    fields += [part for word in words for part in (word, "0")]
    fields += [f"{len(pointers):03d}"]
    fields += [f"{s} {o:08d} {k} 0000" for s, o, k in pointers]
    return f"{' '.join(fields)}{frames} | {gloss}  \n"


def serve_wordnet(serve):
    """Texts of synsets that have hypernyms, and those; a key's own words name it."""
    licence = "  1 This software and database | is provided \n"
    nouns = [
        synset(i, "n", [f"n{i}"], [("~", 2, "n")], "no hypernym") for i in range(15)
    ]
    verbs = [synset(i, "v", [f"v{i}"], [], "to have none") for i in range(7)]
    texts, labels = [], []
    for i in range(100):
        words = [f"word_{i}{letter}" for letter in "abcdefghijklmnopq"[: 1 + i % 17]]
        parents = [("@", i % 7, "n"), ("@i", 10 + i % 5, "n"), ("+", 9, "v")]
        nouns.append(synset(100 + i, "n", words, parents[i % 2 :], f"gloss; «{i}»"))
        texts.append("; ".join(words).replace("_", " ") + f" | gloss; «{i}»")
        labels.append([("n", i % 7)][i % 2 :] + [("n", 10 + i % 5)])
    for i in range(20):
        parents = [("@", i % 7, "v"), ("@", 100 + i, "v")]
        frames = " 01 + 02 00"
        verbs.append(synset(200 + i, "v", [f"verb{i}"], parents, "to | do", frames))
        texts.append(f"verb{i} | to | do")
        labels.append([("v", i % 7), ("v", 100 + i)])
    files = [(licence + "".join(lines)).encode() for lines in (nouns, verbs)]
    serve(noun=files[0], verb=files[1])
    return texts, labels


def test_wordnet_texts(serve):
    texts, labels = serve_wordnet(serve)
    train, test, label_texts = wordnet_texts()
    parents_of = dict(zip(texts, labels, strict=True))
    counts = Counter(parent for parents in labels for parent in parents)
    assert len(label_texts) == train.labels.num_columns == test.labels.num_columns
    for part, want in zip((train, test), split(texts, labels), strict=True):
        assert part.texts == [text for text, _ in want]
        for text, ids in zip(part.texts, lists(part.labels), strict=True):
            named = [label_texts[i] for i in ids]
            frequent = [p for p in parents_of[text] if counts[p] >= 2]
            glosses = {"n": "no hypernym", "v": "to have none"}
            assert named == [f"{kind}{i} | {glosses[kind]}" for kind, i in frequent]


def test_wordnet_hypernyms(serve):
    texts, labels = serve_wordnet(serve)
    splits = load("wordnet-hypernyms", num_features=500)
    assert splits.name == "wordnet-hypernyms"
    assert splits.train.labels.num_columns == 7 + 5 + 7  # nouns and verbs apart

    def features(texts):
        return hash_words(texts, max_n=2, num_features=500, seed=0)

    assert_splits(splits, texts, labels, features)


def make_receipts(rng):
    """(basket, product, week) by line: products repeat, sizes are 1 to 8."""
    lines = []
    for basket in range(60):
        products = rng.choice(30, size=1 + basket % 8, replace=False)
        week = 46 + basket % 4
        for product in [*products, products[0]]:
            lines.append((31_198_459_904 + basket, 800_000 + 7 * product, week))
    return np.array(lines)


def serve_receipts(serve, lines):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["basket_id", "product_id", "week"]
    columns = dict(zip(names, lines.T, strict=True))
    file = io.BytesIO()
    table = pyarrow.table({"store": np.zeros(len(lines)), **columns})
    parquet.write_table(table, file)
    serve(receipts=file.getvalue())


def test_baskets(serve, rng):
    lines = make_receipts(rng)
    serve_receipts(serve, lines)
    splits = load("baskets", seed=1)
    assert splits.name == "baskets"

    numbers = {p: i for i, p in enumerate(np.unique(lines[:, 1]).tolist())}
    products, weeks = defaultdict(set), {}
    for basket, product, week in lines.tolist():
        products[basket].add(numbers[product])
        weeks[basket] = week
    wanted = (
        [b for b in sorted(products) if weeks[b] <= 47],
        [b for b in sorted(products) if weeks[b] > 47 and len(products[b]) >= 4],
    )
    for dataset, names in zip(splits[:2], wanted, strict=True):
        assert dataset.features.num_columns == dataset.labels.num_columns
        assert dataset.labels.num_columns == len(numbers)
        rows = zip(lists(dataset.features), lists(dataset.labels), strict=True)
        for (half, rest), name in zip(rows, names, strict=True):
            assert len(half) == len(products[name]) // 2
            assert sorted(half + rest) == sorted(products[name])


def test_baskets_depend_on_the_seed_and_on_no_order(serve, rng):
    lines = make_receipts(rng)
    serve_receipts(serve, lines)
    one, other = load("baskets"), load("baskets", seed=1)
    assert lists(one.train.features) != lists(other.train.features)
    serve_receipts(serve, rng.permutation(lines))
    again = load("baskets")
    for part, same in zip(one[:2], again[:2], strict=True):
        assert lists(part.features) == lists(same.features)
        assert lists(part.labels) == lists(same.labels)


def test_baskets_need_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install fsparse\[examples\]"):
        load("baskets")


def test_no_such_data_set():
    with pytest.raises(
        ValueError,
        match=r"one of \['20newsgroups', 'baskets', .*got 'mnist'",
    ):
        load("mnist")


REAL = {
    "polish-lemmas": (datasets.POLISH_LEMMAS, 1_395_461, 154_894, 218_590, 42.28),
    "wordnet-hypernyms": (datasets.WORDNET, 79_124, 8_875, 12_824, 27.30),
    "baskets": (datasets.BASKETS, 138_106, 10_475, 68_509, 4.41),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    package, num_train, num_test, num_labels, num_features = REAL[name]
    folder = packages.cache_dir() / package.requirement
    if not all((folder / member.split("/")[-1]).exists() for member in package.members):
        pytest.skip(f"{name} is not in the cache")
    if package is datasets.BASKETS:
        pytest.importorskip("pyarrow")
    splits = load(name)
    assert splits.train.features.num_rows == num_train
    assert splits.test.features.num_rows == num_test
    assert splits.train.labels.num_columns == num_labels
    assert splits.train.features.lengths.mean() == pytest.approx(num_features, abs=0.01)
