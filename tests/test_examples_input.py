"""Bad input ends the trainer with one line that names it; odd input works."""

import itertools
import json
from types import SimpleNamespace

import pytest
from example_cases import SMALL, complaint, example, run, write_examples

from fsparse.data import load_xc

train_extreme = example("train_extreme")
NUM_LABELS, NUM_FEATURES = 50, 190


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_examples(tmp_path / "tiny.txt", 200)


BAD_SETTINGS = [
    ("width", 1, "at least 2"),
    ("batch-size", 0, "at least 1"),
    ("label-capacity", 0, "at least 1"),
    ("feature-capacity", -5, "at least 1"),
    ("num-negatives", -1, "at least 0"),
    ("min-count", -1, "at least 0"),
    ("table-dtype", "float16", "float32 or bfloat16"),
    ("feature-dropout", 1.0, "in [0, 1)"),
    ("feature-dropout", 1.5, "in [0, 1)"),
    ("feature-dropout", -0.5, "in [0, 1)"),
    ("scale", 0.0, "positive and finite"),
    ("learning-rate", float("nan"), "at least 0 and finite"),
    ("embedding-learning-rate", -1.0, "at least 0 and finite"),
    ("hidden-learning-rate", float("inf"), "at least 0 and finite"),
    ("margin", -1.0, "at least 0 and finite"),
    ("log-q", -0.1, "at least 0 and finite"),
    ("epochs", 0.0, "positive and finite"),
    ("epochs", float("inf"), "positive and finite"),
    ("seconds", -1.0, "positive and finite"),
    ("seconds", 0.0, "positive and finite"),
    ("checkpoint-every", 0.0, "positive and finite"),
    ("seed", -1, "in [0, 2**31)"),
    ("seed", 2**64, "in [0, 2**31)"),
]


@pytest.mark.parametrize(("option", "value", "requirement"), BAD_SETTINGS)
def test_bad_setting_is_named(option, value, requirement):
    message = complaint(f"--{option}", value)
    assert message == f"train_extreme: --{option} must be {requirement}; got {value}."


def test_every_number_has_a_requirement():
    fields = train_extreme.Config()._asdict().items()
    numbers = {name for name, value in fields if not isinstance(value, bool)}
    named = {name for _, _, names in train_extreme._REQUIREMENTS for name in names}
    assert numbers <= named


def test_options_that_exclude_each_other():
    assert "--seconds and --epochs exclude each other" in complaint(
        "--seconds", 1, "--epochs", 1
    )
    message = complaint("--data", "baskets", "--test", "x.txt")
    assert "--test must go with a file as --data; got baskets" in message


LINES = {
    "nan": "1 2:nan",
    "inf": "1 2:inf",
    "label out of range": "50 2:1",
    "feature out of range": "1 190:1",
    "no number": "1 2:x",
    "no colon": "foo bar",
    "negative id": "1 -2:1",
}


def write_flawed(path):
    """Lines 2 to 201 are right, one line of each kind of flaw follows."""
    write_examples(path, 200)
    _, *right = path.read_text().splitlines()
    header = f"{200 + len(LINES)} {NUM_FEATURES} {NUM_LABELS}"
    path.write_text("\n".join([header, *right, *LINES.values()]) + "\n")
    return [f"{path.name}:{202 + i}:" for i in range(len(LINES))]


def test_malformed_lines_are_left_out_and_told(tiny, capsys):
    places = write_flawed(tiny)
    result = run("--data", tiny.name, "--out", "o", "--json", "r.json", *SMALL)
    assert result["n_train"] + result["n_test"] == 200
    told = [n for n in result["notes"] if n.startswith("malformed line left out: ")]
    assert len(told) == len(places)
    shown = capsys.readouterr().err.splitlines()
    for note, place in zip(told, places, strict=True):
        assert place in note
        assert f"note: {note}" in shown
    assert json.loads((tiny.parent / "r.json").read_text())["notes"] == result["notes"]


def test_more_malformed_lines_than_are_told(tiny):
    tiny.write_text("30 190 50\n" + "1 2:nan\n" * 30)
    _, notes = train_extreme.extreme_data.read(tiny.name, test=None, strict=False)
    assert "30 malformed lines of tiny.txt in all" in notes


def test_strict_stops_at_the_first_malformed_line(tiny):
    first, *_ = write_flawed(tiny)
    assert first in complaint("--data", tiny.name, "--strict", *SMALL)


def test_lines_that_the_header_promises_are_missed(tiny):
    _, *right = tiny.read_text().splitlines()
    tiny.write_text("\n".join(["300 190 50", *right]) + "\n")
    _, notes = train_extreme.extreme_data.read(tiny.name, test=None, strict=False)
    assert f"{tiny.name} declares 300 examples and has 200 lines" in notes
    assert "got 300 for 200 lines" in complaint("--data", tiny.name, "--strict")


BAD_FILES = {
    "empty": ("", "bad.txt must not be empty"),
    "no example": ("0 5 5\n", "training examples with features and labels"),
    "no header": ("0 1:1\n1 2:1\n", "bad.txt:1 must be 'num_examples num_features"),
    "no label": ("30 5 5\n" + " 1:1\n" * 30, "got 0 and 0"),
    "no feature": ("30 5 5\n" + "1 \n" * 30, "got 0 and "),
    "only one example": ("1 5 5\n1 1:1\n", "got 1 and 0"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_text(text)
    assert message in complaint("--data", "bad.txt", *SMALL)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", b"label,text\n1,a\n", "table.csv:1 must be"),
        ("x.parquet", b"PAR1\x15\x04\x15\x00", "x.parquet:1 must be"),
        ("x.txt.gz", b"10 5 5\n1 1:1\n", "x.txt.gz must hold gzip data"),
    ],
)
def test_file_of_another_format(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert message in complaint("--data", name, *SMALL)


def test_missing_files(tiny):
    message = complaint("--data", "gone.txt")
    assert "--data must be a file or one of polish-lemmas" in message
    assert "there is no gone.txt" in message
    assert "gone.txt" in complaint("--data", tiny.name, "--test", "gone.txt")
    assert "Is a directory" in complaint("--data", ".")


def test_folders_that_cannot_be_made(tiny):
    """Before any time is spent on training."""
    where = tiny / "under a file"
    assert "under a file" in complaint("--data", tiny.name, "--out", where, *SMALL)
    message = complaint("--data", tiny.name, "--out", "o", "--json", where / "r.json")
    assert "under a file" in message
    assert not (tiny.parent / "o" / "checkpoint.npz").exists()


@pytest.mark.parametrize(
    ("header", "what"),
    [("200 191 50", "features"), ("200 180 50", "features"), ("200 190 51", "labels")],
)
def test_test_file_must_have_the_columns_of_the_training_file(tiny, header, what):
    other = tiny.with_name("other.txt")
    _, lines = tiny.read_text().split("\n", 1)
    other.write_text(f"{header}\n{lines}")
    message = complaint("--data", tiny.name, "--test", other.name)
    assert f"--test must declare as many {what} as --data; got " in message
    assert "other.txt:1" in message
    assert "tiny.txt:1" in message


@pytest.mark.parametrize("option", ["--exclude-inputs", "--both-ways"])
def test_labels_that_are_no_inputs(tiny, option):
    message = complaint("--data", tiny.name, option, *SMALL)
    assert option in message
    assert "must go with features and labels that are the same items" in message
    assert "got 190 and 50" in message


# ---- odd input that works -----------------------------------------------------------


def test_capacities_and_other_options(tiny):
    options = ["--feature-capacity", 3, "--label-capacity", 1, "--log-q", 0.5]
    options += ["--feature-dropout", 0.2, "--no-centroids", "--epochs", 2]
    result = run("--data", tiny.name, "--out", "o", *SMALL, *options)
    dataset, _ = load_xc(tiny)
    notes = "\n".join(result["notes"])
    for part, count in (("test", result["n_test"]), ("training", result["n_train"])):
        assert f"of {count} {part} examples are beyond feature_capacity=3" in notes
    assert "training examples are beyond label_capacity=1" in notes
    lost = sum(max(length - 3, 0) for length in dataset.features.lengths)
    told = [int(n.split()[0]) for n in result["notes"] if "feature_capacity" in n]
    assert sum(told) == lost
    assert result["config"]["feature_dropout"] == 0.2
    assert result["steps"] == 2 * 4 * 3  # of 180 examples, 45 a round, 16 a batch


@pytest.mark.parametrize("m", [1, 25])
def test_three_labels_and_fewer_examples_than_a_batch(tiny, m):
    """Fewer labels than the ten that are asked for, no validation set."""
    train = write_examples(tiny.parent / "few.txt", m, num_labels=3)
    test = write_examples(tiny.parent / "test.txt", 9, num_labels=3, seed=1)
    options = [*SMALL, "--num-negatives", 0, "--out", "o", "--json", "r.json"]
    result = run("--data", train.name, "--test", test.name, *options)
    assert (result["n_train"], result["n_validation"], result["n_test"]) == (m, 0, 9)
    assert result["hit_at_10"] == 1  # ten of three are all
    assert result["steps"] == 4 * min(m, 4)  # a step a round, if it has examples

    def refuse(constant):
        raise AssertionError(constant)

    text = (tiny.parent / "r.json").read_text()
    figures = json.loads(text, parse_constant=refuse)
    assert {point["p_at_1"] for point in figures["curve"]} == {None}


def test_training_by_the_clock(tiny, monkeypatch):
    """Of a clock that moves by 10 ms whenever it is looked at."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 100)
    monkeypatch.setattr(train_extreme, "time", clock)
    result = run("--data", tiny.name, "--out", "o", "--seconds", 0.5, *SMALL)
    assert 0.5 <= result["train_seconds"] < 0.52
    assert 10 < result["steps"] <= 50
    assert len(result["curve"]) > 10
    assert result["curve"][-1]["step"] == result["steps"]
