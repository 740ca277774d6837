"""Files of clicks in the formats of Criteo, Avazu and MovieLens, made here."""

import gzip
import math

import numpy as np
import pytest

from fsparse.data import load_clicks, stream_clicks
from fsparse.data.clicks import FORMATS


def criteo_line(label, numbers, names, separator="\t"):
    return separator.join([label, *numbers, *names]) + "\n"


NUMBERS = [str(i) for i in range(13)]
NAMES = [f"{i:08x}" for i in range(26)]


def write(path, *lines):
    path.write_text("".join(lines))
    return path


def one(path, kind, **options):
    (part,) = stream_clicks(path, kind, num_features=10**6, **options)
    return part


def test_criteo_without_a_header(tmp_path):
    numbers = ["-2", "", *NUMBERS[2:]]
    lines = criteo_line("1", numbers, NAMES), criteo_line("0", NUMBERS, NAMES)
    part = one(write(tmp_path / "train.txt", *lines), "criteo")
    assert part.ids.shape == part.weights.shape == (2, 39)
    assert part.ids.dtype == part.labels.dtype == np.int32
    assert part.weights.dtype == np.float32
    assert part.labels.tolist() == [1, 0]
    want = [-math.log(3), 1, *[math.log1p(i) for i in range(2, 13)]]
    np.testing.assert_allclose(part.weights[0, :13], want, rtol=1e-6)
    np.testing.assert_array_equal(part.weights[:, 13:], 1)
    same = part.ids[0] == part.ids[1]
    assert same.tolist() == [True, False, *[True] * 37]  # a missing number
    assert len(np.unique(part.ids)) == 40  # other fields, other ids


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_header_orders_the_columns(tmp_path, separator):
    plain = write(tmp_path / "plain", criteo_line("1", NUMBERS, NAMES))
    columns = [*FORMATS["criteo"].columns[::-1], "more"]
    values = [*["1", *NUMBERS, *NAMES][::-1], "x"]
    lines = [separator.join(row) + "\r\n" for row in (columns, values)]
    want, got = one(plain, "criteo"), one(write(tmp_path / "h", *lines), "criteo")
    for x, y in zip(want, got, strict=True):
        np.testing.assert_array_equal(x, y)


def test_avazu(tmp_path):
    columns = FORMATS["avazu"].columns
    rows = [
        ["77", "0", "14102100", *"abcdefghijklmnopqrstu"],
        ["78", "1", "14102223", *"abcdefghijklmnopqrstu"],
        ["79", "1", "14103000", *"abcdefghijklmnopqrstx"],
    ]
    lines = [",".join(row) + "\n" for row in (columns, *rows)]
    part = one(write(tmp_path / "train.csv", *lines), "avazu")
    assert part.labels.tolist() == [0, 1, 1]
    assert part.ids.shape == (3, 22)
    assert part.ids[0, 0] == part.ids[2, 0] != part.ids[1, 0]  # the hour of the day
    assert (part.ids[0] == part.ids[1]).sum() == 21
    assert part.ids[0, -1] != part.ids[2, -1]
    assert (part.weights == 1).all()


@pytest.mark.parametrize("separator", [",", "\t", "::"])
def test_movielens(tmp_path, separator):
    lines = [separator.join(row) + "\n" for row in (["1", "5", "3.5", "0"],) * 2]
    lines.append(separator.join(["5", "1", "4", "0"]))
    part = one(write(tmp_path / "u.data", *lines), "movielens")
    assert part.labels.tolist() == [0, 0, 1]
    assert len(np.unique(part.ids)) == 4


def test_parts_are_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        criteo_line(str(i % 2), map(str, rng.integers(0, 99, 13)), NAMES)
        for i in range(10)
    ]
    path = tmp_path / "train.txt.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(lines)
    whole = one(path, "criteo")
    parts = [*stream_clicks(path, "criteo", num_features=10**6, chunk_rows=3)]
    assert [len(part.labels) for part in parts] == [3, 3, 3, 1]
    for x, *xs in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(x, np.concatenate(xs))
    other = one(path, "criteo", seed=1)
    assert (other.ids != whole.ids).mean() > 0.99


def test_loaded_numbers_are_standardised(tmp_path):
    numbers = [["", "5", *[str(i)] * 11] for i in range(6)]
    numbers[0][0] = "3"
    lines = [criteo_line("0", row, NAMES) for row in numbers]
    path = write(tmp_path / "train.txt", *lines)
    found = load_clicks(path, "criteo", num_features=2, num_rows=5)
    assert found.labels.shape == (5,)
    weights = found.weights[:, :13]
    assert weights[:, 0].tolist() == [0, 1, 1, 1, 1]  # one is there, others missing
    assert weights[:, 1].tolist() == [0] * 5  # constant
    np.testing.assert_allclose(weights[:, 2:].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(weights[:, 2:].std(0), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"must have lines; it is empty"),
        (["1\t2\n"], r":1 must have 40 columns \(label, ..., C26\).* got 2. Mend"),
        (
            [criteo_line("0", NUMBERS, NAMES), criteo_line("2", NUMBERS, NAMES)],
            r":2, column label, must be 0 or 1; got '2'",
        ),
        ([criteo_line("", NUMBERS, NAMES)], r":1, column label, must be 0 or 1; got"),
        (
            [criteo_line("0", ["x", *NUMBERS[1:]], NAMES)],
            r":1, column I1, must be a number; got 'x'",
        ),
        (
            [criteo_line("0", ["nan", *NUMBERS[1:]], NAMES)],
            r":1, column I1, must be finite; got 'nan'",
        ),
        (["label,I1\n", "1,2\n"], r":1 must name the columns I2, .*C26; got label, I1"),
    ],
)
def test_flaws_are_named(tmp_path, lines, message):
    path = write(tmp_path / "train.txt", *lines)
    with pytest.raises(ValueError, match=message):
        list(stream_clicks(path, "criteo"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "netflix"}, r"kind must be one of .*got 'netflix'"),
        ({"num_features": 1}, r"num_features must be at least 2.*num_features=1"),
        ({"num_rows": 0}, r"num_rows must be positive; got 0"),
    ],
)
def test_bad_options(tmp_path, options, message):
    path = write(tmp_path / "ratings.csv", "1,2,3,4\n")
    with pytest.raises(ValueError, match=message):
        load_clicks(path, **{"kind": "movielens", **options})
