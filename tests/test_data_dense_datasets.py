"""The rules of the data sets of arrays on small packages made here."""

import gzip
import io
import struct
import sys
import zlib

import numpy as np
import pytest

from fsparse.data import (
    dense_datasets,
    hash_char_ngrams,
    hash_words,
    load,
    load_dense,
    packages,
    sales,
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


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def serve_images(serve, rng, **changes):
    train, test = (rng.integers(0, 256, (m, 28, 28)) for m in (7, 3))
    labels = rng.integers(0, 10, 7), rng.integers(0, 10, 3)
    files = {"a": idx(train), "b": idx(labels[0]), "c": idx(test), "d": idx(labels[1])}
    serve(**files | changes)
    return (train, labels[0]), (test, labels[1])


def test_fashion_mnist(serve, rng):
    wanted = serve_images(serve, rng)
    splits = load_dense("fashion-mnist")
    assert (splits.name, splits.num_classes) == ("fashion-mnist", 10)
    for part, (images, labels) in zip(splits[:2], wanted, strict=True):
        assert part.features.dtype == np.float32
        np.testing.assert_allclose(part.features, images.reshape(-1, 784) / 255, 1e-6)
        np.testing.assert_array_equal(part.labels, labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a": gzip.compress(b"\0\0\x0d\1\0\0\0\0")}, "a must be an idx file"),
        ({"a": gzip.compress(b"\0\0\x08\1\0\0\0\5abc")}, r"sizes \[5\] and 11 bytes"),
        ({"a": gzip.compress(b"\0\0\x08\3\0\0")}, "a must be an idx file"),
        ({"a": gzip.compress(b"")}, "a must be an idx file"),
        ({"b": idx(np.zeros(6))}, r"a label for each; got \(7, 28, 28\) and \(6,\)"),
        ({"a": idx(np.zeros((7, 20, 28)))}, "must hold images of 28 x 28"),
    ],
)
def test_broken_images(serve, rng, changes, words):
    serve_images(serve, rng, **changes)
    with pytest.raises(ValueError, match=words):
        load_dense("fashion-mnist")


def in_test(key):
    return zlib.crc32(key.encode()) % 10 == 0


def test_letter(serve, rng):
    lines = [
        ",".join(map(str, row)) + "," + "AMZ"[i % 3]
        for i, row in enumerate(rng.integers(0, 16, (60, 16)))
    ]
    serve(letters="\n".join([*lines, ""]).encode())
    splits = load_dense("letter")
    assert splits.num_classes == 26
    for part, wanted in zip(splits[:2], (False, True), strict=True):
        own = [line.split(",") for line in lines if in_test(line) == wanted]
        assert own
        np.testing.assert_array_equal(
            part.features, [list(map(int, r[:-1])) for r in own]
        )
        assert part.labels.tolist() == ["AMZ".index(r[-1]) * 25 // 2 for r in own]


def parquet(**columns):
    pyarrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    writer.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def test_adult(serve):
    m = 60
    ages = list(range(20, 20 + m))
    gains = [i % 3 * 1000 for i in range(m)]
    jobs = [["smith", "clerk", "?"][i % 3] for i in range(m)]
    income = ["<=50K" if i % 4 else ">50K" for i in range(m)]
    columns = {"age": ages, "job": jobs, "capital-gain": gains, "income": income}
    serve(adult=parquet(**columns))
    splits = load_dense("adult")
    assert splits.num_classes == 2
    assert splits.num_features == 5  # age, three jobs, gain
    for part, wanted in zip(splits[:2], (False, True), strict=True):
        rows = zip(ages, jobs, gains, income, strict=True)
        own = [r for r in rows if in_test(",".join(map(str, r))) == wanted]
        assert own
        np.testing.assert_array_equal(part.features[:, 0], [r[0] for r in own])
        job = [["?", "clerk", "smith"].index(r[1]) for r in own]
        np.testing.assert_array_equal(part.features[:, 1:4], np.eye(3)[job])
        np.testing.assert_allclose(part.features[:, 4], np.log1p([r[2] for r in own]))
        assert part.labels.tolist() == [int(r[3] == ">50K") for r in own]


def serve_promotions(serve, rng, m=200, **changes):
    week = np.sort(rng.integers(40, 54, m))
    product, store = rng.integers(0, 12, m), rng.integers(0, 3, m)
    promotions = {
        "product_id": product,
        "store_id": store,
        "display_location": ["0A9"[i % 3] for i in range(m)],
        "mailer_location": ["0A"[i % 2] for i in range(m)],
        "week": week,
    }
    listed = np.arange(10)[::-1].copy()  # two products are not listed
    products = {
        "product_id": listed,
        "manufacturer_id": listed % 4,
        "department": [f"d{i % 3}" for i in listed],
        "brand": ["National" if i % 2 else "Private" for i in listed],
        "product_category": [None if i == 4 else f"c{i}" for i in listed],
        "product_type": [f"t{i}" for i in listed],
    }
    sold = {"product_id": product[::5], "store_id": store[::5], "week": week[::5]}
    sold |= changes
    serve(a=parquet(**promotions), b=parquet(**products), c=parquet(**sold))
    return promotions, sold


def test_ctr(serve, rng):
    promotions, sold = serve_promotions(serve, rng)
    splits = load_dense("ctr", num_features=10**6)
    week = promotions["week"]
    keys = list(
        zip(promotions["product_id"], promotions["store_id"], week, strict=True)
    )
    sales = set(zip(*sold.values(), strict=True))
    ids = np.concatenate([part.features for part in splits[:2]])
    labels = np.concatenate([part.labels for part in splits[:2]])
    assert len(splits.train.labels) == np.count_nonzero(week < 46)
    assert labels.tolist() == [int(key in sales) for key in keys]
    assert 0 < labels.mean() < 1
    assert ids.shape == (200, len(dense_datasets.CTR_FIELDS))
    assert ids.dtype == np.int32
    # An id is the same if and only if the value is.
    product = promotions["product_id"]
    for field, values in {
        0: product,
        1: promotions["store_id"],
        2: np.array(promotions["display_location"]),
        4: np.where(product < 10, product % 4, -1),
        7: np.where(product < 10, np.where(product == 4, -1, product), -1),
    }.items():
        pairs = set(zip(values.tolist(), ids[:, field].tolist(), strict=True))
        assert len(pairs) == len(set(values.tolist())) == len(set(ids[:, field]))
    assert len({*ids[:, 0]} & {*ids[:, 1]}) == 0  # other fields, other hashes


def test_ctr_options(serve, rng):
    serve_promotions(serve, rng)
    whole, some = load_dense("ctr"), load_dense("ctr", num_rows=20)
    np.testing.assert_array_equal(some.train.features, whole.train.features[:20])
    spread = load_dense("ctr", every=3, num_rows=20).train.features
    np.testing.assert_array_equal(spread, whole.train.features[::3][:20])
    assert load_dense("ctr", num_features=16).train.features.max() < 16
    other = load_dense("ctr", seed=1).train.features
    assert (other != whole.train.features).mean() > 0.99
    fewer = load_dense("ctr", test_every=4).test.features
    np.testing.assert_array_equal(fewer, whole.test.features[::4])
    for option in ("num_rows", "every", "test_every", "num_features"):
        with pytest.raises(ValueError, match=f"ctr: {option} must be positive; got 0"):
            load_dense("ctr", **{option: 0})


def all_rows(splits):
    """Ids and labels of both parts, in the order of the weeks."""
    return [np.concatenate(arrays) for arrays in zip(*splits[:2], strict=True)]


def test_ctr_history(serve, rng):
    promotions, sold = serve_promotions(serve, rng)
    plain, _ = all_rows(load_dense("ctr", num_features=10**6))
    ids, _ = all_rows(load_dense("ctr", num_features=10**6, history=True))
    fields = [*dense_datasets.CTR_FIELDS, *sales.HISTORY_FIELDS]
    assert ids.shape == (200, len(fields))
    np.testing.assert_array_equal(ids[:, :9], plain)
    sales_of = list(
        zip(sold["product_id"], sold["store_id"], sold["week"], strict=True)
    )
    here = zip(
        promotions["product_id"],
        promotions["store_id"],
        promotions["week"],
        strict=True,
    )
    counts = [
        sum((p, s) == sale[:2] and sale[2] < week for sale in sales_of)
        for p, s, week in here
    ]
    own = ids[:, fields.index("sold_here")].tolist()
    assert len(set(counts)) == len(set(own)) == len(set(zip(counts, own, strict=True)))
    assert len(set(counts)) > 1


def test_ctr_history_knows_nothing_of_the_future(serve, rng):
    state = rng.bit_generator.state
    promotions, sold = serve_promotions(serve, rng)
    ids, labels = all_rows(load_dense("ctr", history=True))
    later = np.where(
        sold["week"] >= 48, (sold["product_id"] + 1) % 12, sold["product_id"]
    )
    rng.bit_generator.state = state
    serve_promotions(serve, rng, product_id=later)
    other_ids, other_labels = all_rows(load_dense("ctr", history=True))
    is_early = promotions["week"] <= 48
    np.testing.assert_array_equal(ids[is_early], other_ids[is_early])
    assert (ids != other_ids)[~is_early].any()
    assert (labels != other_labels)[promotions["week"] == 48].any()


@pytest.mark.parametrize("name", ["adult", "ctr"])
def test_pyarrow_is_needed(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install fsparse\[examples\]"):
        load_dense(name)


def test_no_such_data_set():
    with pytest.raises(ValueError, match=r"one of \['adult', 'ctr', .*got 'mnist'"):
        load_dense("mnist")


def test_newsgroups(serve):
    header = "Category\tText\r\nd\tstring\r\nclass\t\r\n\r\n"
    parts = {"train": ["rec.autos\tfast cars", 'alt.x\t"a, b"'], "test": ["alt.x\tb b"]}
    serve(**{name: (header + "\r\n".join(p)).encode() for name, p in parts.items()})
    splits = load("20newsgroups", num_features=64)
    assert splits.train.labels.ids.tolist() == [1, 0]
    assert splits.test.labels.ids.tolist() == [0]
    for part, texts in zip(splits[:2], (["fast cars", "a, b"], ["b b"]), strict=True):
        wanted = hash_words(texts, max_n=1, num_features=64)
        np.testing.assert_array_equal(part.features.ids, wanted.ids)
        np.testing.assert_array_equal(part.features.values, wanted.values)
    chars = load("20newsgroups", ngrams="char", min_n=3, max_n=4, num_features=64)
    wanted = hash_char_ngrams(["b b"], min_n=3, max_n=4, num_features=64)
    np.testing.assert_array_equal(chars.test.features.values, wanted.values)


REAL = {
    "fashion-mnist": (dense_datasets.FASHION_MNIST, 60_000, 10_000),
    "letter": (dense_datasets.LETTER, 18_026, 1_974),
    "adult": (dense_datasets.ADULT, 43_867, 4_975),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    package, num_train, num_test = REAL[name]
    folder = packages.cache_dir() / package.requirement
    if not all((folder / member.split("/")[-1]).exists() for member in package.members):
        pytest.skip(f"{name} is not in the cache")
    if name == "adult":
        pytest.importorskip("pyarrow")
    splits = load_dense(name)
    assert len(splits.train.features) == len(splits.train.labels) == num_train
    assert len(splits.test.features) == len(splits.test.labels) == num_test
    assert splits.train.features.shape[1] == splits.num_features
    assert set(splits.test.labels) <= set(range(splits.num_classes))
