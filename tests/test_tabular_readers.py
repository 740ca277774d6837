"""CSV and parquet files, good and bad, in parts of any size; guessed schemas."""

import csv
import datetime
import gzip
import io
import json
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.tabular import (
    Report,
    Schema,
    categorical,
    infer_schema,
    multi_label,
    numerical,
    read,
    read_csv,
    read_parquet,
    text,
    timestamp,
)

GOOD = 'a,b\n1,x\n"2 ""q""","y,\nz"\n\n,é\n'
GOOD_COLUMNS = {"a": ["1", '2 "q"', ""], "b": ["x", "y,\nz", "é"]}


@pytest.fixture
def save(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def columns_of(reader):
    parts = list(reader)
    return {n: [v for p in parts for v in p.columns[n]] for n in reader.columns}


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 100])
def test_a_good_file(save, chunk_rows):
    reader = read_csv(save(GOOD), chunk_rows=chunk_rows)
    assert columns_of(reader) == columns_of(reader) == GOOD_COLUMNS
    assert [n for part in reader for n in part.numbers.tolist()] == [2, 3, 6]
    assert [part.num_rows for part in reader][:-1] == [chunk_rows] * (
        len([*reader]) - 1
    )


FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(FIELDS, FIELDS), max_size=6), st.integers(1, 3))
def test_what_pythons_writer_writes_is_read(tmp_path_factory, rows, chunk_rows):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path.write_bytes(file.getvalue().encode())
    found = columns_of(read_csv(path, chunk_rows=chunk_rows))
    assert list(zip(found["a"], found["b"], strict=True)) == rows


def test_compressed_and_other_files(save):
    assert columns_of(read_csv(save(gzip.compress(GOOD.encode()), "t.csv.gz"))) == (
        GOOD_COLUMNS
    )
    assert columns_of(read_csv(save("\ufeff" + GOOD))) == GOOD_COLUMNS
    assert columns_of(read_csv(save(GOOD.replace("\n", "\r\n")))) == {
        **GOOD_COLUMNS,
        "b": ["x", "y,\r\nz", "é"],
    }
    for encoding in ("latin-1", "utf-16"):
        found = read_csv(save(GOOD.encode(encoding)), encoding=encoding)
        assert columns_of(found) == GOOD_COLUMNS
    tabs = read_csv(save("a\tb\n1,5\tx\n"), delimiter="\t")
    assert columns_of(tabs) == {"a": ["1,5"], "b": ["x"]}
    assert columns_of(read_csv(save("a,b"))) == {"a": [], "b": []}


def numbered(path):
    """Records and the lines that they begin on, by Python's parser, line by line."""
    with open(path, newline="") as file:
        reader, line = csv.reader(file), 1
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1


ODD = {
    "none": [],
    "two lines": [(20, '"a\nb",c\n')],
    "a quoted delimiter": [(3, '"a,b",c\n'), (39, "é,x\n")],
    "an empty line": [(20, "\n"), (30, '"",\n')],
    "an end that is open": [(39, 'x,"y\nz"')],
}


@pytest.mark.parametrize("chunk_rows", [8, 40, 100])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_lines_are_numbered_in_blocks_as_one_by_one(save, odd, chunk_rows):
    lines = [f"{i},{i * i}\n" for i in range(40)]
    for at, line in odd:
        lines[at] = line
    path = save("a,b\n" + "".join(lines))
    parts = list(read_csv(path, chunk_rows=chunk_rows))
    found = [
        (line, list(fields))
        for part in parts
        for line, *fields in zip(
            part.numbers.tolist(), *part.columns.values(), strict=True
        )
    ]
    assert found == list(numbered(path))[1:]
    assert {part.num_rows for part in parts[:-1]} <= {chunk_rows}


def test_a_bad_row_after_good_blocks(save):
    lines = [f"{i},{i}\n" for i in range(40)]
    lines[25], lines[33] = "1,2,3\n", '4,"5"6\n'
    path = save("a,b\n" + "".join(lines))
    with pytest.raises(ValueError, match=r"line 27: must have 2 fields; got 3"):
        list(read_csv(path, chunk_rows=10))
    report = Report()
    found = columns_of(read_csv(path, chunk_rows=10, strict=False, report=report))
    kept = [str(i) for i in range(40) if i not in (25, 33)]
    assert found == {"a": kept, "b": kept}
    assert report.num_malformed == 2


MALFORMED = {
    "too few fields": (
        b"3",
        r"line 3: must have 2 fields; got 1\. Correct the row, or",
    ),
    "too many fields": (b"3,4,5", r"table\.csv, line 3: must have 2 fields; got 3"),
    "a stray quote": (b'"3"4,5', r"line 3: ',' expected after '\"'"),
    "wrong bytes": (b"3,\xe9", r"line 3: must be text in utf-8.*; got the byte 0xe9"),
}


@pytest.mark.parametrize(("line", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_rows(save, line, message):
    path = save(b"a,b\n1,2\n" + line + b"\n5,6\n")
    with pytest.raises(ValueError, match=message):
        list(read_csv(path))
    report = Report()
    found = columns_of(read_csv(path, strict=False, report=report))
    assert found == {"a": ["1", "5"], "b": ["2", "6"]}
    assert report.num_malformed == 1
    assert not report.is_clean
    with pytest.warns(UserWarning, match=r"read_csv: 1 malformed rows are left out"):
        list(read_csv(path, strict=False))


def test_a_quote_that_never_ends(save):
    path = save('a,b\n1,2\n3,"4\n5,6\n')
    with pytest.raises(ValueError, match=r"line 3: unexpected end of data"):
        list(read_csv(path))
    report = Report()
    found = columns_of(read_csv(path, strict=False, report=report))
    assert found == {"a": ["1"], "b": ["2"]}
    assert report.num_malformed == 1


def test_a_field_beyond_pythons_limit(save):
    path = save(f"a,b\n{'x' * 200_000},1\n")
    with pytest.raises(ValueError, match=r"line 2: field larger than field limit"):
        list(read_csv(path))


BAD_FILES = {
    "empty": (b"", r"must begin with the names of its columns; got an empty file"),
    "only empty lines": (b"\n\n", r"got an empty file"),
    "one name twice": (
        b"a,b,a\n",
        r"distinct names.* got 'a' for the columns \[1, 3\]",
    ),
    "bytes in the header": (b"\xff,b\n", r"names of its columns; got must be text in"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_headers(save, content, message):
    with pytest.raises(ValueError, match=message):
        read_csv(save(content))


def test_damaged_files(save):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    for content in (whole[:-20], whole[:-8] + b"12345678"):
        reader = read_csv(save(content, "t.csv.gz"))
        with pytest.raises(ValueError, match=r"must hold gzip data to its end"):
            list(reader)
    with pytest.raises(ValueError, match=r"must hold gzip data to its end"):
        read_csv(save(b"a,b\n", "t.csv.gz"))
    with pytest.raises(ValueError, match=r"must be text in utf-16; got the error"):
        read_csv(save(b"a,b\n1"), encoding="utf-16")
    with pytest.raises(FileNotFoundError):
        read_csv("no such file")
    with pytest.raises(ValueError, match=r"chunk_rows must be positive; got 0"):
        read_csv(save(GOOD), chunk_rows=0)


@pytest.fixture
def parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    def write(columns):
        path = tmp_path / "table.parquet"
        if isinstance(columns, dict):
            columns = arrow.table(columns)
        pyarrow.parquet.write_table(columns, path)
        return path

    return write


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_parquet(parquet, chunk_rows):
    when = datetime.datetime(2024, 5, 1, 12, 30)
    columns = {
        "i": [1, None, 2**40],
        "f": [0.5, None, float("inf")],
        "s": ["a", None, ""],
        "d": [when.date(), None, when.date()],
        "t": [when, None, when],
        "l": [["a", "b"], None, []],
        "b": [True, None, False],
    }
    reader = read_parquet(parquet(columns), chunk_rows=chunk_rows)
    assert columns_of(reader) == columns_of(reader) == columns
    assert [n for part in reader for n in part.numbers.tolist()] == [0, 1, 2]


def test_parquet_of_other_types(parquet):
    arrow = pytest.importorskip("pyarrow")
    nanoseconds = arrow.array([1_000_000_123], arrow.timestamp("ns", "UTC"))
    names = arrow.array(["a"]).dictionary_encode()
    path = parquet(arrow.table({"t": nanoseconds, "c": names, "x": [1]}))
    reader = read_parquet(path, columns=["c", "t"])
    second = datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)
    assert columns_of(reader) == {"c": ["a"], "t": [second]}


def test_bad_parquet(parquet, save):
    arrow = pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"must be a parquet file; got the error"):
        read_parquet(save(b"PAR1 no", "t.parquet"))
    with pytest.raises(ValueError, match=r"must have the column 'z'; got 'a'"):
        read_parquet(parquet({"a": [1]}), columns=["z"])
    twice = arrow.table([[1], [2]], names=["a", "a"])
    with pytest.raises(ValueError, match=r"distinct names of columns; got 'a' twice"):
        read_parquet(parquet(twice))
    with pytest.raises(ValueError, match=r"chunk_rows must be positive"):
        read_parquet(parquet({"a": [1]}), chunk_rows=0)


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install fsparse\[tabular\]"):
        read_parquet("table.parquet")


def test_csv_and_parquet_give_the_same_examples(save, parquet):
    rows = [(7, 0.5, "red wine"), (8, -1.5, "white"), (7, 2.0, "")]
    lines = "".join(f"{i},{x},{t},{i % 2}\n" for i, x, t in rows)
    path = save(f"i,x,t,y\n{lines}")
    columns = zip(*rows, strict=True)
    table = dict(zip("ixt", map(list, columns), strict=True)) | {"y": [1, 0, 1]}
    schema = Schema({"i": categorical(), "x": numerical(), "t": text()}, "y")
    found = []
    for reader in (read_csv(path, chunk_rows=1), read_parquet(parquet(table)), table):
        fitted = schema.fit(reader)
        found.append((fitted.to_json(), *fitted.encode_stream(reader)))
    assert found[0][0] == found[1][0] == found[2][0]
    ids = np.concatenate([part.features.ids for part in found[0][1:]])
    assert ids.tolist() == found[1][1].features.ids.tolist()


FRUIT = """\
when,price,stars,user_id,kind,tags,review,empty,liked
2024-05-01,1.5,1,100001,a,x;y,not so good at all,,no
2024-05-02,NA,2,100002,b,y;x,it is very good fruit,,yes
2024-05-03,2.5,2,100003,a,x,,,no
"""


def test_guessed_kinds(save):
    schema = infer_schema(save(FRUIT), target="liked")
    assert schema.columns == {
        "when": timestamp(),
        "price": numerical(),
        "stars": categorical(),
        "user_id": categorical(),
        "kind": categorical(),
        "tags": multi_label(),
        "review": text(),
        "empty": categorical(),
    }
    assert schema.labels == categorical()
    assert schema.missing == ("", "NA")
    fitted = schema.fit(read_csv(save(FRUIT)))
    assert (fitted.num_rows, fitted.label_names) == (3, ("no", "yes"))


def test_guessed_targets(save):
    path = save("a,b,c,d\n1,x;y,p,u\n2,y,q,u\n3,x,r,v\n")
    labels = [infer_schema(path, target=name).labels for name in "abcd"]
    assert labels == [categorical(), multi_label(), categorical(), categorical()]


def test_only_a_sample_is_looked_at(save):
    path = save("a,y\n" + "0.5,u\n" * 3 + "word,v\n")
    assert infer_schema(path, "y", sample_rows=3).columns == {"a": numerical()}
    assert infer_schema(path, "y", sample_rows=4).columns == {"a": categorical()}


NUMBERS = [str(i + 0.5) for i in range(200)]
DAYS = [f"2024-05-{1 + i % 28:02}" for i in range(200)]


@pytest.mark.parametrize(
    ("cells", "kind", "what"),
    [(NUMBERS, numerical(), "a number"), (DAYS, timestamp(), "a time")],
)
def test_a_bad_cell_does_not_change_the_kind_of_a_column(save, cells, kind, what):
    def path(count):
        odd = ["oops"] * count + cells[count:]
        return save("a,y\n" + "".join(f"{x},u\n" for x in odd))

    message = r"column 'a' is \w+, but for 2 of 200 rows; .*table\.csv, line 2: it must"
    with pytest.warns(UserWarning, match=message + rf" be {what}; got 'oops'"):
        schema = infer_schema(path(2), "y")
    assert schema.columns == {"a": kind}
    reader = read_csv(path(2))
    with pytest.raises(ValueError, match=r"line 2: column 'a' .*strict=False"):
        schema.fit(reader)
    report = Report()
    assert schema.fit(reader, strict=False, report=report).num_rows == 198
    assert report.num_malformed == 2
    assert infer_schema(path(3), "y").columns == {"a": categorical()}


def test_numbers_with_bad_cells_that_are_codes(save):
    odd = ["oops"] + [str(i % 5) for i in range(199)]
    path = save("a,shop_id,y\n" + "".join(f"{x},{i}{x},u\n" for i, x in enumerate(odd)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = infer_schema(path, "y")
    assert schema.columns == {"a": categorical(), "shop_id": categorical()}


def test_marks_among_numbers_with_a_bad_cell(save):
    path = save("a,y\n" + "".join(f"{x},u\n" for x in ["NA", "oops", *NUMBERS]))
    with pytest.warns(UserWarning, match=r"but for 1 of 202 rows"):
        schema = infer_schema(path, "y")
    assert (schema.columns, schema.missing) == ({"a": numerical()}, ("", "NA"))


def test_guesses_do_not_depend_on_where_rows_come_from(save):
    path = save(FRUIT)
    expected = infer_schema(path, "liked")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for source in (read_csv(path, chunk_rows=1), rows, columns):
        assert infer_schema(source, "liked") == expected
    other = save(FRUIT.replace(",", "\t").encode("utf-16"), "other.csv")
    options = {"delimiter": "\t", "encoding": "utf-16"}
    assert infer_schema(other, "liked", **options) == expected
    with pytest.raises(ValueError, match=r"rows must have the column 'z'"):
        infer_schema(columns, "z")
    with pytest.raises(ValueError, match=r"the source must have at least one row"):
        infer_schema([], "z")


def test_reading_by_name(save, parquet):
    path = parquet({"a": [1, 2]})
    assert columns_of(read(path, strict=False)) == {"a": [1, 2]}
    assert columns_of(read(save("a;b\n1;2\n"), delimiter=";")) == {
        "a": ["1"],
        "b": ["2"],
    }
    reader = read_csv(save(GOOD))
    assert read(reader) is reader
    with pytest.raises(TypeError, match=r"must be a path; got CsvReader and encoding"):
        read(reader, encoding="latin-1")
    with pytest.raises(TypeError, match=r"among columns, chunk_rows; got encoding"):
        read(path, encoding="latin-1")


def test_a_guess_is_edited(save):
    schema = infer_schema(save(FRUIT), target="liked")
    edited = json.loads(schema.to_json())
    edited["columns"]["stars"] = {"kind": "numerical", "bins": 3}
    del edited["columns"]["empty"]
    again = Schema.from_json(json.dumps(edited))
    assert again.columns["stars"] == numerical(bins=3)
    assert len(again.columns) == len(schema.columns) - 1


def test_guesses_of_parquet(parquet):
    path = parquet(
        {
            "x": [0.5, 1.5, 2.5],
            "when": [datetime.datetime(2024, 5, 1, 12)] * 3,
            "tags": [["a"], [], ["b"]],
            "flag": [True, False, None],
            "y": [["a"], ["b"], ["a", "b"]],
        }
    )
    schema = infer_schema(path, "y")
    kinds = [numerical(), timestamp(), multi_label(), categorical()]
    assert list(schema.columns.values()) == kinds
    assert schema.labels == multi_label()
    assert schema.fit(read_parquet(path)).label_names == ("a", "b")


def test_nothing_to_guess_from(save):
    with pytest.raises(ValueError, match=r"must have at least one row; got none"):
        infer_schema(save("a,b\n"), target="a")
    with pytest.raises(ValueError, match=r"must have the column 'z'; got 'a', 'b'"):
        infer_schema(save("a,b\n1,2\n"), target="z")


def test_a_header_alone(save):
    reader = read_csv(save("a,y\n"))
    schema = Schema({"a": categorical()}, "y")
    with pytest.raises(ValueError, match=r"fit: at least one good row is required"):
        schema.fit(reader)
    fitted = schema.fit({"a": [1], "y": [2]})
    assert list(fitted.encode_stream(reader)) == []


def test_errors_name_file_and_line(save):
    reader = read_csv(save('a,y\n1,"p\nq"\nx,r\n'))
    with pytest.raises(
        ValueError, match=r"table\.csv, line 4: column 'a' must be a num"
    ):
        Schema({"a": numerical()}, "y").fit(reader)
    with pytest.raises(
        ValueError, match=r"table\.csv must have the column 'b'; got 'a'"
    ):
        Schema({"b": numerical()}, "y").fit(reader)


def test_reading_part_of_a_file_warns_of_nothing(save):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(read_csv(save("a\n1\n2\n"), chunk_rows=1))).num_rows == 1
