"""Schemas: fitting, targets, streams, JSON, serving, and rows that are no good."""

import json
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import table_oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from fsparse.data import Dataset, SparseRows, concatenate, stream_batches
from fsparse.tabular import (
    FittedSchema,
    Report,
    Rows,
    Schema,
    _json,
    binary,
    categorical,
    cross,
    history,
    integer,
    multi_label,
    numerical,
    text,
    timestamp,
)
from fsparse.tabular._sample import extend, no_sample

fast = settings(deadline=None, max_examples=40)
COLUMNS = {
    "color": categorical(),
    "size": numerical(bins=3),
    "note": text(max_n=1),
    "tags": multi_label(),
    "when": timestamp(),
    "color x tags": cross("color", "tags"),
    "past": history("user", "label", "when", last=2),
}
SCHEMA = Schema(COLUMNS, "label", num_features=2**12)
WORDS = st.sampled_from(["", "red", "green", "blue red"])
ROW = st.fixed_dictionaries(
    {
        "color": WORDS,
        "size": st.none() | st.floats(-9, 9),
        "note": WORDS,
        "tags": st.sampled_from(["a;b", "b", ""]),
        "when": st.integers(0, 10**6),
        "user": st.sampled_from(["u", "v"]),
        "label": st.sampled_from(["x", "y", "10", "9"]),
    }
)
TABLES = st.lists(ROW, min_size=1, max_size=20)


def parts(table, sizes):
    found, i = [], 0
    while table:
        size = sizes[i % len(sizes)]
        found.append(table[:size])
        table, i = table[size:], i + 1
    return found


def joined(datasets):
    features, labels = zip(*datasets, strict=True)
    return Dataset(concatenate(features), concatenate(labels))


def assert_equal(one, two):
    for mine, its in zip(one, two, strict=True):
        assert mine.num_columns == its.num_columns
        for a, b in zip(mine[:3], its[:3], strict=True):
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()


@fast
@given(TABLES, st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_parts_of_any_size_give_the_same(table, sizes):
    whole = SCHEMA.fit(table, report=Report())
    parted = SCHEMA.fit(parts(table, sizes), report=Report())
    assert parted.to_json() == whole.to_json()
    stream = parted.encode_stream(parts(table, sizes), report=Report())
    assert_equal(joined(stream), whole.encode(table, report=Report()))


@fast
@given(TABLES, TABLES)
def test_a_saved_schema_encodes_alike(table, later):
    fitted = SCHEMA.fit(table, report=Report())
    again = FittedSchema.from_json(fitted.to_json())
    assert again.to_json() == fitted.to_json()
    assert again.fingerprint == fitted.fingerprint
    assert again.schema == fitted.schema
    for state in (None, fitted.state):
        one, two = (
            f.encode(later, state=state, report=Report()) for f in (fitted, again)
        )
        assert_equal(one, two)
    one, two = (f.encode_features(later, report=Report()) for f in (fitted, again))
    assert_equal([one], [two])


@fast
@given(TABLES)
def test_there_is_room_for_every_example(table):
    fitted, report = SCHEMA.fit(table, report=Report()), Report()
    dataset = fitted.encode(table, report=report)
    assert not report.num_clipped
    assert dataset.features.lengths.max() <= fitted.feature_capacity
    batches = stream_batches(
        [dataset],
        4,
        feature_capacity=fitted.feature_capacity,
        label_capacity=fitted.label_capacity,
    )
    count = sum((b.label_ids < fitted.num_labels).sum() for b in batches)
    assert count == len(table)


def test_tables_of_all_shapes_are_one():
    table = [{"c": "r", "n": 1, "y": "a"}, {"c": "g", "n": 2, "y": "b"}]
    schema = Schema({"c": categorical(), "n": numerical()}, "y")
    columns = {"c": ["r", "g"], "n": np.array([1, 2]), "y": ("a", "b")}
    rows = Rows(columns, np.arange(2))
    wanted = schema.fit(table).encode(table)
    for data in (columns, rows, [table], [table[:1], rows._replace(numbers=[5])][:1]):
        fitted = schema.fit(data)
        assert fitted.feature_capacity == 3
    for data in (columns, rows):
        assert_equal(schema.fit(data).encode(data), wanted)


def test_extra_columns_are_named_and_change_nothing():
    schema, report = Schema({"c": categorical()}, "y"), Report()
    table = [{"c": "r", "y": "a"}]
    extra = [{**table[0], "z": 1, "b": 2}]
    assert_equal(
        schema.fit(extra, report=report).encode(extra), schema.fit(table).encode(table)
    )
    assert report.ignored_columns == ("b", "z")
    assert report.is_clean


def labels_of(labels, values, kind, found):
    """The labels of ``found`` rows by a schema fitted on ``values``, and its report."""
    schema, report = Schema({"c": categorical()}, "y", kind), Report()
    fitted = schema.fit({"c": [0] * len(values), "y": values})
    table = {"c": [0] * len(found), "y": found}
    rows = fitted.encode(table, report=report).labels
    assert isinstance(rows, SparseRows)
    assert rows.num_columns == fitted.num_labels == len(fitted.label_names)
    assert fitted.label_names == labels
    ends = rows.indptr.tolist()
    return [rows.ids[a:b].tolist() for a, b in pairwise(ends)], report


def test_categorical_targets():
    found, report = labels_of(
        ("a", "b", "ż"), ["b", "ż", "a", "b"], categorical(), ["ż", "new", "a"]
    )
    assert found == [[2], [], [0]]
    assert (report.num_unseen_labels, report.num_unlabelled) == (1, 1)
    assert not report.is_clean


def test_numbers_are_in_order():
    names = ("-3", "9", "10", str(2**70))
    values = [10, 9, str(2**70), -3.0]
    assert labels_of(names, values, categorical(), [9])[0] == [[1]]


def test_multi_label_targets():
    found, report = labels_of(
        ("a", "b", "c"),
        ["b;a", "c", ""],
        multi_label(),
        ["c; a;c", "", None, "a;new", "new", ["b", "a"]],
    )
    assert found == [[0, 2], [], [], [0], [], [0, 1]]
    assert (report.num_unseen_labels, report.num_unlabelled) == (2, 1)


def test_binary_targets():
    kind = binary("yes")
    found, report = labels_of(("no", "yes"), ["yes", "no"], kind, ["no", "yes", "Yes"])
    assert (found, report.num_unseen_labels) == ([[0], [1], []], 1)
    values = ["p", "q", "yes"]
    found, report = labels_of(("not yes", "yes"), values, kind, ["q", "yes", "p"])
    assert (found, report.is_clean) == ([[0], [1], [0]], True)
    assert labels_of(("0", "1"), [1, 0], binary(), [1.0, "0"])[0] == [[1], [0]]


def test_integer_targets():
    names = ("0", "1", "2", "3")
    found, report = labels_of(names, [3, "1"], integer(), [0, 3.0, "4", 2**31 - 3])
    assert (found, report.num_unseen_labels) == ([[0], [3], [], []], 2)
    kind = integer(num_labels=4, delimiter=" ")
    found, report = labels_of(names, ["1 0"], kind, ["3 2", "", [1]])
    assert (found, report.is_clean) == ([[2, 3], [], [1]], True)


def test_unseen_labels_are_told_of():
    fitted = Schema({"c": categorical()}, "y").fit({"c": ["r"], "y": ["a"]})
    with pytest.warns(UserWarning, match=r"encode: 1 labels were not seen by the fit"):
        fitted.encode({"c": ["r"], "y": ["b"]})
    with pytest.warns(UserWarning, match=r"encode_stream: 2 labels were not seen"):
        list(fitted.encode_stream(iter([{"c": ["r"], "y": ["b"]}] * 2)))


def test_serving_needs_no_target():
    table = {"c": ["r", "g"], "n": [1, None], "y": ["a", "b"]}
    fitted = Schema({"c": categorical(), "n": numerical()}, "y").fit(table)
    found = fitted.encode_features([{"c": "r", "n": 1}, {"c": "g", "n": None}])
    assert_equal([found], [fitted.encode(table).features])
    assert fitted.encode_features([]).num_rows == 0
    assert fitted.encode([]).features.num_rows == 0


def test_what_is_clipped_is_counted():
    words = ["a b c d", "a", "b", "c"]
    schema = Schema({"t": text(max_n=1)}, "y")
    fitted = schema.fit({"t": words, "y": [0] * 4}, capacity_quantile=0.75)
    assert fitted.feature_capacity == 1
    report = Report()
    found = fitted.encode({"t": words, "y": [0] * 4}, report=report)
    assert found.features.lengths.tolist() == [1, 1, 1, 1]
    assert report.num_clipped == 3
    with pytest.warns(UserWarning, match=r"encode_features: 4 features are beyond"):
        fitted.encode_features([{"t": "p q r s t"}])


def test_a_sample_does_not_depend_on_parts(rng):
    values = rng.normal(size=1000)
    whole = extend(no_sample(), values, 0, 100)
    parted = no_sample()
    for first in range(0, 1000, 37):
        parted = extend(parted, values[first : first + 37], first, 100)
    assert whole.values.tolist() == parted.values.tolist()
    assert len(whole.values) == 100
    assert set(whole.values) < set(values)
    where = np.flatnonzero(np.isin(values, whole.values))
    assert 300 < where.mean() < 700  # not the first hundred, nor the last


def same(one, other):
    return all(
        np.array_equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@fast
@given(TABLES, st.lists(st.integers(1, 5), min_size=1), st.sampled_from([None, 64]))
def test_one_pass_gives_the_bits_of_two(table, sizes, num_features):
    schema = Schema(COLUMNS, "label", num_features=num_features)
    options = {"capacity_quantile": 0.5, "report": Report()}
    data = list(parts(table, sizes))
    fitted, found = schema.fit_encode(data, **options)
    twice = schema.fit(data, **options)
    assert fitted.to_json() == twice.to_json()
    encoded = list(twice.encode_stream(data, report=Report()))
    both = zip(*encoded, strict=True)
    assert same(found, Dataset(*map(concatenate, both)))


def test_one_pass_counts_bad_rows_once():
    rows = [{"c": "r", "n": x, "y": y} for x, y in [(1, "a"), ("?", "b"), (2, "c")]]
    schema, report = Schema({"n": numerical()}, "y"), Report()
    fitted, found = schema.fit_encode(rows, strict=False, report=report)
    assert (report.num_malformed, report.num_examples) == (1, 2)
    assert fitted.label_names == ("a", "c")
    assert found.labels.ids.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"fit_encode: rows, row 1: column 'n' must"):
        schema.fit_encode(rows)
    with pytest.raises(ValueError, match=r"fit_encode: at least one good row"):
        schema.fit_encode([])


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 2**12), (512, 2**12), (513, 2**13), (5000, 2**16)]
)
def test_as_many_features_as_the_data_need(count, expected):
    values = [f"value {i}" for i in range(count)]
    hashed = {next(iter(table_oracle.categorical("c", v, 2**18))) for v in values}
    fitted = Schema({"c": categorical()}, "y").fit({"c": values * 2, "y": values * 2})
    assert fitted.num_features == expected
    assert 8 * len(hashed) <= expected
    found = fitted.encode({"c": values, "y": values}).features
    wanted = [table_oracle.categorical("c", v, expected) for v in values]
    assert found.ids.tolist() == [i for row in wanted for i in row]
    again = FittedSchema.from_json(fitted.to_json())
    assert again.num_features == expected


def test_the_number_of_features_has_an_end():
    values = [str(i) for i in range(40_000)]
    fitted = Schema({"c": categorical()}, "y").fit({"c": values, "y": ["a"] * 40_000})
    assert fitted.num_features == 2**18
    few = Schema({"c": categorical()}, "y", num_features=77)
    assert few.fit({"c": values, "y": ["a"] * 40_000}).num_features == 77


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (categorical(), ["b", "a", "b"], [1, 2]),
        (multi_label(), ["b;a;b", "b", ""], [1, 2]),
        (binary("b"), ["b", "a", "c"], [2, 1]),
        (integer(4), ["3", "0", "3"], [1, 0, 0, 2]),
    ],
)
def test_how_many_rows_have_each_label(kind, values, expected):
    fitted = Schema(C, "y", kind).fit([{"c": "r", "y": y} for y in values])
    assert fitted.label_counts.tolist() == expected
    again = FittedSchema.from_json(fitted.to_json())
    assert again.label_counts.tolist() == expected


def test_serving_does_not_offer_to_leave_rows_out():
    fitted = Schema({"n": numerical()}, "y").fit({"n": [1], "y": ["a"]})
    with pytest.raises(ValueError, match=r"row 0: column 'n' .* or give none: None"):
        fitted.encode_features([{"n": "x"}])


def test_features_of_a_reader_are_those_of_its_parts():
    table = {"c": ["r", "s", "t"], "y": ["a", "b", "c"]}
    fitted = Schema(C, "y").fit(table)
    data = [{"c": ["r", "s"]}, {"c": ["t"]}]
    assert same([fitted.encode_features(iter(data))], [fitted.encode_features(table)])
    assert fitted.encode_features(iter([])).num_rows == 0


def test_check_model():
    fitted = Schema({"c": categorical()}, "y").fit({"c": ["r"], "y": ["a"]})
    fitted.check_model(num_features=2**12, num_labels=1)
    with pytest.raises(ValueError, match=r"must have num_labels=1; got 2\. Load the"):
        fitted.check_model(num_features=2**12, num_labels=2)
    with pytest.raises(ValueError, match=r"must have num_features=4096; got 7"):
        fitted.check_model(num_features=7, num_labels=1)


KINDS = {
    **COLUMNS,
    "char": text("char", min_n=3, normalize=False),
    "day": timestamp("%Y", parts=("year",)),
    "other": history("user", "item", "when", delimiter=",", format="epoch"),
}


@pytest.mark.parametrize(
    "labels", [categorical(), multi_label("|"), binary("yes"), integer(5, " ")]
)
def test_schemas_as_text(labels):
    schema = Schema(KINDS, "y", labels, num_features=77, missing=("", "NA"))
    assert Schema.from_json(schema.to_json()) == schema
    assert eval(repr(schema)) == schema


def json_with(column="text", **keys):
    return json.dumps({"target": "y", "columns": {"c": column}, **keys})


WRONG_KEYS = {
    "a number that is text": (
        json_with({"kind": "numerical", "bins": "ten"}),
        r"the key 'bins' of the column 'c' \(numerical\) must be a whole number; got "
        r'"ten"',
    ),
    "true for a number": (json_with({"kind": "numerical", "bins": True}), "got true"),
    "a key too many": (
        json_with({"kind": "categorical", "bins": 3}),
        r"of the column 'c' \(categorical\) must be left out; got 'bins'",
    ),
    "a choice": (
        json_with({"kind": "text", "ngrams": "words"}),
        r"'ngrams' .* must be \"word\" or \"char\"; got \"words\"",
    ),
    "a number or nothing": (
        json_with({"kind": "text", "max_n": 2.5}),
        r"'max_n' .* must be a whole number or null; got 2\.5",
    ),
    "a key too few": (
        json_with({"kind": "history", "user": "u"}),
        r"the column 'c' \(history\) must have the key 'item'; got 'user'",
    ),
    "text for a list": (
        json_with(missing="NA"),
        r"the key 'missing' of the schema must be a list of strings; got \"NA\"",
    ),
    "labels": (
        json_with(labels={"kind": "binary", "positive": 1}),
        r"'positive' of labels \(binary\) must be a string; got 1",
    ),
    "no target": ('{"columns": {"c": "text"}}', r"the schema must have the key 'tar"),
    "a target": (json_with(target=3), r"the key 'target' .* a string; got 3"),
}


@pytest.mark.parametrize(("content", "message"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_wrong_keys_of_a_schema(content, message):
    with pytest.raises(ValueError, match=r"Schema\.from_json: .*" + message):
        Schema.from_json(content)


def test_names_of_all_kinds_are_saved():
    names = ["é", "\ud800", '"', "漢", "\x00"]
    fitted = Schema({"é": categorical()}, "y").fit({"é": names, "y": names})
    again = FittedSchema.from_json(fitted.to_json())
    assert again.label_names == fitted.label_names == tuple(sorted(names))


def fitted_text(**changes):
    fitted = Schema({"c": categorical()}, "y").fit({"c": ["r"], "y": ["a"]})
    return json.dumps({**json.loads(fitted.to_json()), **changes})


GOOD = {"c": "r", "k": "s", "n": 1, "t": "2024-05-01", "y": "a"}
ROWS_SCHEMA = Schema(
    {"c": categorical(), "n": numerical(), "t": timestamp(), "m": cross("c", "k")}, "y"
)
BAD_VALUES = {
    "a word for a number": ({"n": "abc"}, r"column 'n' must be a number; got 'abc'\."),
    "a list for a number": ({"n": [1]}, r"column 'n' must be a number; got \[1\]"),
    "a date for a number": ({"n": "2024-01-01"}, r"'n' must be a number"),
    "a number without end": ({"n": 10**5000}, r"'n' must be a number; got an int of"),
    "a list for a category": ({"c": ["r"]}, r"'c' must be text or a number; got \['r'"),
    "bytes that are no text": ({"c": b"\xff"}, r"'c' must be text.*can't decode byte"),
    "no date": ({"t": "soon"}, r"'t' must be a time; got 'soon' \(Invalid isoformat"),
    "a day that is none": (
        {"t": "2024-02-30"},
        r"'t' must be a time.*day is out of ra",
    ),
    "milliseconds": ({"t": 1714521600000}, r"'t' must be a time.*divide millis"),
    "a date or seconds": (
        {"t": "20240501"},
        r"'t' must be.*format=\"%Y%m%d\"",
    ),
    "endless time": ({"t": math.inf}, r"'t' must be a time; got inf"),
    "a list for a time": ({"t": [1]}, r"'t' must be a time; got \[1\]"),
    "a list in a cross": ({"k": [1]}, r"column 'm' \(its 'k'\) must be text or a"),
    "no label": ({"y": ""}, r"column 'y' must have one label; got ''"),
    "two labels": ({"y": ["a", "b"]}, r"'y' must have one label; got \['a', 'b'\]"),
}


@pytest.mark.parametrize(("change", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values(change, message):
    table = [GOOD, {**GOOD, **change}, {**GOOD, "y": "b"}]
    with pytest.raises(ValueError, match=rf"fit: rows, row 1: .*{message}") as e:
        ROWS_SCHEMA.fit(table)
    assert "leave such rows out with strict=False" in str(e.value)
    report = Report()
    fitted = ROWS_SCHEMA.fit(table, strict=False, report=report)
    assert (fitted.num_rows, report.num_examples, report.num_malformed) == (2, 2, 1)
    assert "row 1" in report.messages[0]
    with pytest.warns(UserWarning, match=r"encode: 1 malformed rows are left out"):
        found = fitted.encode(table, strict=False)
    assert_equal(found, fitted.encode([table[0], table[2]]))
    if "y" not in change:
        place = r"encode_features: rows, row 1: "
        with pytest.raises(ValueError, match=rf"{place}.*{message}"):
            fitted.encode_features(table)


BAD_IDS = ["-1", "1.5", "x", str(2**31 - 2), str(2**64), "1" * 5000, "٣"]


@pytest.mark.parametrize("value", BAD_IDS, ids=range(len(BAD_IDS)))
def test_bad_label_ids(value):
    schema = Schema({"c": categorical()}, "y", integer())
    with pytest.raises(
        ValueError, match=r"row 1: column 'y' must hold label ids in \["
    ):
        schema.fit({"c": ["r", "r"], "y": [1, value]})


def test_only_the_first_messages_are_kept():
    table = [GOOD] + [{**GOOD, "n": "abc"}] * 50
    report = Report()
    ROWS_SCHEMA.fit(table, strict=False, report=report)
    assert (report.num_malformed, len(report.messages)) == (50, 10)


def fit(columns, labels=None, **options):
    return Schema(columns, "y", **({"labels": labels} if labels else {})).fit(
        {"c": ["r", "g"], "y": ["a", "b"]}, **options
    )


C = {"c": categorical()}
ERRORS = {
    "no column": (lambda: Schema({}, "y"), r"Schema: a column is required"),
    "features": (
        lambda: Schema(C, "y", num_features=2**31 - 1),
        r"num_features must be in \[1, 2\*\*31 - 1\); got 2147483647",
    ),
    "the target as a feature": (
        lambda: Schema(C, "c"),
        r"must not be made of the target 'c'; got it in the column 'c'",
    ),
    "the target in a cross": (
        lambda: Schema({"x": cross("c", "y")}, "y"),
        r"must not be made of the target 'y'; got it in the column 'x'",
    ),
    "a column that is not there": (
        lambda: fit({"cc": categorical()}),
        r"fit: rows must have the column 'cc'; got 'c', 'y'\. Did you mean 'c'\?",
    ),
    "no target": (
        lambda: Schema(C, "z").fit({"c": ["r"]}),
        r"must have the column 'z'; got 'c'\. Rename",
    ),
    "a row without a column": (
        lambda: Schema(C, "y").fit([{"c": 1, "y": 2}, {"y": 3}]),
        r"fit: row 1 must have the column 'c'; got 'y'\. Give it the value None",
    ),
    "columns of two lengths": (
        lambda: Schema(C, "y").fit({"c": [1, 2], "y": [3]}),
        r"one value for each row; got the lengths \{'c': 2, 'y': 1\}",
    ),
    "no rows": (
        lambda: fit({"c": categorical()}).schema.fit([]),
        r"fit: at least one good row is required; got none",
    ),
    "no good rows": (
        lambda: Schema({"c": numerical()}, "y").fit(
            {"c": ["x"], "y": [1]}, strict=False, report=Report()
        ),
        r"got none, and 1 bad ones\. rows, row 0: column 'c' must be a number",
    ),
    "quantile": (
        lambda: fit(C, capacity_quantile=0),
        r"fit: capacity_quantile must be in \(0, 1\]; got 0",
    ),
    "nothing positive": (
        lambda: fit(C, binary("yes")),
        r"the target 'y' must have the value 'yes', which is positive; got 'a', 'b'",
    ),
    "more ids than labels": (
        lambda: Schema(C, "y", integer(2)).fit({"c": ["r"], "y": [2]}),
        r"must hold label ids in \[0, 2\); got '2'",
    ),
    "num_labels": (lambda: integer(0), r"integer: num_labels must be in \[1, "),
    "positive": (lambda: binary(1), r"positive must be written as a string; got 1"),
    "no JSON": (
        lambda: Schema.from_json("{"),
        r"Schema.from_json: the text must be JS",
    ),
    "a list": (lambda: Schema.from_json("[]"), r"must be a JSON object; got list"),
    "no columns": (
        lambda: Schema.from_json("{}"),
        r"'columns' must map names to kinds",
    ),
    "an unknown kind": (
        lambda: Schema.from_json('{"target": "y", "columns": {"c": {"kind": "eval"}}}'),
        r"the kind of the column 'c' must be one of categorical, .*; got 'eval'",
    ),
    "an unknown field": (
        lambda: Schema.from_json(
            '{"target": "y", "columns": {"c": {"kind": "numerical", "bin": 3}}}'
        ),
        r"a key of the column 'c' \(numerical\) must be one of 'bins'; got 'bin'\.",
    ),
    "an unknown field of a schema": (
        lambda: Schema.from_json(
            '{"target": "y", "columns": {"c": {"kind": "numerical"}}, "size": 3}'
        ),
        r"a key of the schema must be one of 'columns', 'target', .*; got 'size'",
    ),
    "another format": (
        lambda: FittedSchema.from_json(Schema(C, "y").to_json()),
        r"format and version must be 'fsparse-schema' and 2; got None and None",
    ),
    "another version": (
        lambda: FittedSchema.from_json(fitted_text(version=1)),
        r"got 'fsparse-schema' and 1\. Read it with the release",
    ),
    "damage": (
        lambda: FittedSchema.from_json(fitted_text().replace('"a"', '"b"')),
        r"the checksum must be that of the body; got another one",
    ),
    "another body": (
        lambda: FittedSchema.from_json(_json.seal({"schema": {}})),
        r"'columns' must map names to kinds",
    ),
    "half a body": (
        lambda: FittedSchema.from_json(_json.seal({"schema": SCHEMA.to_dict()})),
        r"the body must be that of a fitted schema; got the error KeyError",
    ),
    "no body": (
        lambda: FittedSchema.from_json(fitted_text(body=None)),
        r"the checksum must be that of the body",
    ),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TYPE_ERRORS = {
    "a kind": (
        lambda: Schema({"c": "text"}, "y"),
        r"column 'c' must have a kind, one of",
    ),
    "a class": (lambda: Schema({"c": text}, "y"), r"column 'c' must have a kind"),
    "labels": (lambda: Schema(C, "y", numerical()), r"labels must have a kind, one of"),
    "a number": (
        lambda: fit(C).encode(3),
        r"encode: rows must be a list of dicts, a di",
    ),
    "a string": (lambda: fit(C).encode("rows"), r"encode: rows must be .* got str"),
    "rows of lists": (
        lambda: fit(C).encode([[1]]),
        r"row 0 must map columns to values",
    ),
}


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_type_errors(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_stream_that_is_left_early_warns_of_nothing():
    fitted = fit(C)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = fitted.encode_stream(iter([{"c": ["r"], "y": ["new"]}] * 3))
        assert next(stream).labels.num_rows == 1
        stream.close()
