"""The extreme classification text format: good files, bad files, borders of chunks."""

import gzip
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.data import (
    Dataset,
    Report,
    SparseRows,
    XcHeader,
    concatenate,
    from_lists,
    load_xc,
    read_xc_header,
    stream_xc,
    write_xc,
)

GOOD = b"4 10 5\n1,3 0:0.5 9:-2\n 4:1e-3\n0\n2 1:3 2:4\n"
GOOD_LABELS = [[1, 3], [], [0], [2]]
GOOD_FEATURES = [[(0, 0.5), (9, -2.0)], [(4, 1e-3)], [], [(1, 3.0), (2, 4.0)]]


@pytest.fixture
def save(tmp_path):
    def write(content, name="data.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def features_of(rows):
    pairs = list(zip(rows.ids.tolist(), rows.values.tolist(), strict=True))
    return [pairs[rows.indptr[r] : rows.indptr[r + 1]] for r in range(rows.num_rows)]


def labels_of(rows):
    return [[i for i, _ in row] for row in features_of(rows)]


def assert_good(dataset):
    assert labels_of(dataset.labels) == GOOD_LABELS
    want = [[(i, float(np.float32(v))) for i, v in row] for row in GOOD_FEATURES]
    assert features_of(dataset.features) == want
    assert dataset.features.num_columns == 10
    assert dataset.labels.num_columns == 5
    for rows in dataset:
        assert (rows.indptr.dtype, rows.ids.dtype) == (np.int64, np.int32)
        assert rows.values.dtype == np.float32
    assert dataset.labels.values.tolist() == [1.0] * 4


GOOD_FILES = {
    "plain": GOOD,
    "no newline at the end": GOOD[:-1],
    "windows": GOOD.replace(b"\n", b"\r\n"),
    "windows, no newline at the end": GOOD.replace(b"\n", b"\r\n")[:-2],
    "empty lines": GOOD.replace(b"\n0\n", b"\n\n0\n\n") + b"\n",
    "spaces and tabs": GOOD.replace(b" 9:", b" \t 9:").replace(b":4\n", b":4 \n"),
    "signs and zeros": GOOD.replace(b"0:0.5", b"00:+.50").replace(b"-2", b"-2.e0"),
}


@pytest.mark.parametrize("content", GOOD_FILES.values(), ids=GOOD_FILES)
@pytest.mark.parametrize("compressed", [False, True])
def test_good_files(save, content, compressed):
    path = save(gzip.compress(content), "x.gz") if compressed else save(content)
    assert read_xc_header(path) == XcHeader(4, 10, 5)
    dataset, report = load_xc(str(path), strict=True)
    assert_good(dataset)
    assert report == Report(num_declared=4, num_examples=4)
    assert report.is_clean


@pytest.mark.parametrize("name", ["plain", "windows", "no newline at the end"])
@pytest.mark.parametrize("chunk_bytes", range(1, len(GOOD) + 2))
def test_chunk_borders(save, name, chunk_bytes):
    """The first border falls on every byte of the file."""
    path = save(GOOD_FILES[name])
    parts = list(stream_xc(path, chunk_bytes=chunk_bytes, strict=True))
    features = concatenate([part.features for part in parts])
    labels = concatenate([part.labels for part in parts])
    assert_good(Dataset(features, labels))
    assert chunk_bytes > 1 or len(parts) == 4


BAD_LINES = {
    "label too large": (b"5 1:1", "label id must be less than 5, got '5'"),
    "label negative": (b"-1 1:1", "a label id must not be negative, got '-1'"),
    "label beyond 64 bits": (b"1" * 30 + b" 1:1", "label id must be less than 5"),
    "label of letters": (b"x 1:1", "expected a label id, got 'x'"),
    "label missing": (b"1,,2 1:1", "expected a label id, got ',2'"),
    "label at the end missing": (b"1, 1:1", "expected a label id, got ''"),
    "label fractional": (b"1.5 1:1", "expected ',' or ' ' after a label, got '.5'"),
    "no labels, no space": (b"1:1 2:2", "expected ',' or ' ' after a label, got ':1'"),
    "feature too large": (b"1 10:1", "feature id must be less than 10, got '10'"),
    "feature negative": (b"1 -3:1", "a feature id must not be negative, got '-3:1'"),
    "feature without value": (b"1 3", "expected ':' after a feature, got the end"),
    "feature and nothing": (b"1 3:", "expected a number after ':', got the end"),
    "space after colon": (b"1 3: 4", "expected a number after ':', got ''"),
    "value of letters": (b"1 3:x", "expected a number after ':', got 'x'"),
    "value and letters": (b"1 3:1x", "expected ' ' after a number, got 'x'"),
    "two values": (b"1 3:1:2", "expected ' ' after a number, got ':2'"),
    "two points": (b"1 3:1.2.3", "expected ' ' after a number, got '.3'"),
    "hexadecimal": (b"1 3:0x10", "expected ' ' after a number, got 'x10'"),
    "nan": (b"1 3:nan", "a value must be finite in float32, got 'nan'"),
    "inf": (b"1 3:-Infinity", "a value must be finite in float32, got '-Infinity'"),
    "too large for float32": (b"1 3:1e39", "must be finite in float32, got '1e39'"),
    "far too large": (b"1 3:1e999999999999", "must be finite in float32, got '1e9"),
    "control character": (b"1 3:\x00\xff", "got '\\x00\\xff'"),
    "long token": (b"1 3:" + b"y" * 99, "got '" + "y" * 32 + "...'"),
    "only a comma": (b",", "expected a label id, got ','"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line_is_left_out_named_and_counted(save, line, message):
    path = save(
        GOOD.replace(b"4 10 5\n", b"5 10 5\n").replace(b"\n0\n", b"\n%b\n0\n" % line)
    )
    dataset, report = load_xc(path)
    assert_good(dataset)
    assert (report.num_examples, report.num_malformed) == (4, 1)
    assert report.num_missing == 0
    assert not report.is_clean
    (text,) = report.messages
    assert text.startswith(f"{path}:4: ")
    assert message in text
    with pytest.raises(ValueError, match=rf"^{re.escape(f'stream_xc: {text}.')}$"):
        load_xc(path, strict=True)


def test_only_the_first_messages_are_kept(save):
    path = save(b"100 3 3\n" + b"0 9:1\n0 1:1\n" * 50)
    report = Report()
    parts = list(stream_xc(path, chunk_bytes=7, report=report))
    assert sum(p.features.num_rows for p in parts) == report.num_examples == 50
    assert report.num_malformed == 50
    assert report.num_missing == 0
    lines = [int(m.removeprefix(f"{path}:").split(":")[0]) for m in report.messages]
    assert lines == list(range(2, 22, 2))


def test_strict_stream_yields_what_comes_before(save):
    stream = stream_xc(save(b"3 3 3\n0 1:1\n1 2:1\n9\n"), chunk_bytes=1, strict=True)
    assert labels_of(next(stream).labels) == [[0]]
    assert labels_of(next(stream).labels) == [[1]]
    with pytest.raises(ValueError, match=r"data\.txt:4: label id must be less than 3"):
        next(stream)


def test_a_stream_without_report_warns(save):
    path = save(b"5 3 3\n0 1:1\n9 1:1\n")
    with pytest.warns(UserWarning, match="1 malformed lines") as caught:
        list(stream_xc(path))
    message = str(caught[0].message)
    assert f"{path}:3: label id" in message
    assert "got 5 for 2 lines" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(stream_xc(path, report=Report()))
        list(stream_xc(save(GOOD)))


@pytest.mark.parametrize(("declared", "missing"), [(6, 2), (3, -1), (0, -4)])
def test_header_mismatch(save, declared, missing):
    path = save(GOOD.replace(b"4 10 5", b"%d 10 5" % declared))
    dataset, report = load_xc(path)
    assert_good(dataset)
    assert report.num_missing == missing
    assert not report.is_clean
    with pytest.raises(
        ValueError, match=rf"must declare .* got {declared} for 4 lines"
    ):
        load_xc(path, strict=True)


BAD_HEADERS = {
    "empty file": (b"", r"data\.txt must not be empty"),
    "missing": (GOOD[7:], r"data\.txt:1 must be 'num_examples.*; got b'1,3 0:0\.5"),
    "two numbers": (b"4 10\n", r"got b'4 10\\n'\. Put that line"),
    "four numbers": (b"4 10 5 6\n", "got b'4 10 5 6"),
    "negative": (b"4 -10 5\n", "got b'4 -10 5"),
    "fractional": (b"4 1e3 5\n", "got b'4 1e3 5"),
    "underscore": (b"4 1_0 5\n", "got b'4 1_0 5"),
    "empty line": (b"\n4 10 5\n", r"got b'\\n'"),
    "too many features": (b"1 2147483647 5\n", "ids are int32; got 2147483647 and 5"),
    "too many labels": (b"1 5 9999999999\n", "got 5 and 9999999999"),
    "a long line": (b"1" * 10**5, "must be 'num_examples"),
}


@pytest.mark.parametrize(("content", "message"), BAD_HEADERS.values(), ids=BAD_HEADERS)
@pytest.mark.parametrize("read", [read_xc_header, load_xc, stream_xc])
def test_bad_header(save, read, content, message):
    with pytest.raises(ValueError, match=message):
        read(save(content))


@pytest.mark.parametrize("kept", [5, 20, -9, -4, -1])
def test_truncated_gzip(save, kept):
    whole = gzip.compress(
        b"9999 10 5\n" + b"".join(b"1 2:%d\n" % i for i in range(9999))
    )
    path = save(whole[:kept], "cut.gz")
    with pytest.raises(ValueError, match=r"cut\.gz must hold gzip data to its end"):
        load_xc(path)


@pytest.mark.parametrize(
    "damage", [lambda b: b"plain text", lambda b: b[:60] + b"\x00" * 9 + b[69:]]
)
def test_damaged_gzip(save, damage):
    whole = gzip.compress(
        b"9999 10 5\n" + b"".join(b"1 2:%d\n" % i for i in range(9999))
    )
    with pytest.raises(ValueError, match=r"bad\.gz must hold gzip data"):
        load_xc(save(damage(whole), "bad.gz"))


def test_missing_file(tmp_path):
    for read in (read_xc_header, load_xc, stream_xc):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.txt")


def test_no_examples(save):
    dataset, report = load_xc(save(b"0 3 4\n"))
    assert report.is_clean
    assert (dataset.features.num_rows, dataset.labels.num_rows) == (0, 0)
    assert (dataset.features.num_columns, dataset.labels.num_columns) == (3, 4)


def test_chunk_bytes_must_be_positive(save):
    with pytest.raises(ValueError, match="chunk_bytes must be positive; got 0"):
        stream_xc(save(GOOD), chunk_bytes=0)


DIGITS = st.text("0123456789", max_size=25)
NUMBERS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    DIGITS,
    st.sampled_from(["", "."]),
    DIGITS,
    st.sampled_from(["", "e0", "E+5", "e-7", "e38", "e-46", "e-330", "e22", "e23"]),
) | st.floats(width=64, allow_nan=False).map(repr)


@settings(deadline=None, max_examples=300)
@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_numbers_are_read_as_python_reads_them(tmp_path_factory, tokens):
    def read(token):
        try:
            with np.errstate(over="ignore"):
                return np.float32(float(token))
        except ValueError:
            return None

    path = tmp_path_factory.getbasetemp() / "numbers.txt"
    lines = "".join(f" 0:{token}\n" for token in tokens)
    path.write_text(f"{len(tokens)} 1 1\n{lines}")
    dataset, report = load_xc(path)
    want = [v for v in map(read, tokens) if v is not None and math.isfinite(v)]
    got = dataset.features.values
    np.testing.assert_array_equal(
        got.view(np.uint32), np.array(want, np.float32).view(np.uint32)
    )
    assert report.num_malformed == len(tokens) - len(want)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EXAMPLES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 2**31 - 3), FLOATS), max_size=5),
        st.lists(st.integers(0, 99), max_size=4),
    ),
    max_size=6,
)


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        assert one.num_columns == other.num_columns
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.ids, other.ids)
        bits = one.values.view(np.uint32), other.values.view(np.uint32)
        np.testing.assert_array_equal(*bits)


@settings(deadline=None, max_examples=100)
@given(EXAMPLES, st.sampled_from(["a.txt", "a.gz"]))
def test_round_trip(tmp_path_factory, examples, name):
    ids = [[i for i, _ in features] for features, _ in examples]
    values = [[v for _, v in features] for features, _ in examples]
    dataset = Dataset(
        from_lists(ids, 2**31 - 2, values),
        from_lists([labels for _, labels in examples], 100),
    )
    path = tmp_path_factory.getbasetemp() / name
    write_xc(path, dataset)
    got, report = load_xc(path, strict=True)
    assert report.is_clean
    assert_same(got, dataset)


def test_round_trip_of_many_rows_and_any_bits(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(2**32, size=30_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    m = len(values)
    rows = SparseRows(np.arange(m + 1), np.zeros(m, np.int32), values, 1)
    dataset = Dataset(rows, from_lists([[]] * m, 1))
    write_xc(tmp_path / "x", dataset)
    assert_same(load_xc(tmp_path / "x", strict=True)[0], dataset)


def test_round_trip_where_the_shortest_digits_miss(tmp_path):
    """7.038531e-26 is nearest this float32, but not by way of the nearest float64."""
    dataset = Dataset(from_lists([[0]], 1, [[0x15AE43FD]]), from_lists([[]], 1))
    dataset.features.values.view(np.uint32)[:] = 0x15AE43FD
    write_xc(tmp_path / "x", dataset)
    assert_same(load_xc(tmp_path / "x")[0], dataset)


ONE = from_lists([[0]], 2)
UNWRITABLE = {
    "nan": (ONE._replace(values=np.float32([np.nan])), ONE, "values must be finite"),
    "range": (ONE._replace(num_columns=0), ONE, r"ids must be in \[0, num_columns=0\)"),
    "rows": (ONE, from_lists([], 2), "got 0 and 1 rows"),
    "weighted labels": (
        ONE,
        from_lists([[0]], 2, [[0.5]]),
        "and the value 1; .* 1 labels of another value",
    ),
}


@pytest.mark.parametrize(
    ("features", "labels", "message"), UNWRITABLE.values(), ids=UNWRITABLE
)
def test_unwritable(tmp_path, features, labels, message):
    with pytest.raises(ValueError, match=f"write_xc: .*{message}"):
        write_xc(tmp_path / "x", Dataset(features, labels))
    assert not (tmp_path / "x").exists()
