"""The shell command: a new user's path, help, and errors of one line."""

import csv
import io
import json
import socket
import subprocess
import sys

import pytest
from pipelines import make_rows, write_csv

from fsparse import Pipeline
from fsparse.cli import main
from fsparse.cli._main import _COMMANDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, and a model that the command trained on one of them."""
    folder = tmp_path_factory.mktemp("cli")
    write_csv(folder / "train.csv", make_rows(400))
    write_csv(folder / "test.csv", make_rows(100, seed=1))
    main(
        f"train {folder}/train.csv --target kind --out {folder}/model.fsparse --quiet "
        f"--epochs 8 --learning-rate 0.02 --width 16 --batch-size 32 "
        f"--json {folder}/run.json --plot {folder}/run.png".split()
    )
    return folder


def printed(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_train_writes_model_figures_and_plot(folder):
    run = json.loads((folder / "run.json").read_text())
    assert run["figures"]["p@1"] > 0.8
    assert run["history"]
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate(folder, capsys):
    path = folder / "figures.json"
    out = printed(
        capsys,
        *["evaluate", folder / "model.fsparse", folder / "test.csv"],
        *["--metrics", "p@1", "hit@2", "--json", path],
    )
    figures = json.loads(path.read_text())
    assert figures["p@1"] > 0.8
    assert out == f"p@1: {figures['p@1']:.4f}\nhit@2: {figures['hit@2']:.4f}\n"


def test_predict(folder, capsys):
    out = printed(
        capsys, "predict", folder / "model.fsparse", folder / "test.csv", "--k", 2
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 100
    model = Pipeline.load(folder / "model.fsparse")
    columns = [{k: str(v) for k, v in row.items()} for row in make_rows(100, seed=1)]
    expected = [p.label for best in model.predict(columns, 2) for p in best]
    assert [row["label"] for row in rows] == expected


def test_predict_by_what_was_exported(folder, capsys):
    model, exported = folder / "model.fsparse", folder / "exported.fsparse"
    printed(capsys, "export", model, exported, "--batch-sizes", 1, 64)
    of_model = printed(capsys, "predict", model, folder / "test.csv")
    out = folder / "predictions.csv"
    printed(capsys, "predict", exported, folder / "test.csv", "--out", out)
    labels = lambda text: [r["label"] for r in csv.DictReader(io.StringIO(text))]  # noqa: E731
    assert labels(out.read_text()) == labels(of_model)


def test_inspect(folder, capsys):
    assert "3 labels" in printed(capsys, "inspect", folder / "model.fsparse")
    row = json.dumps({"title": "small red old thing", "price": 9})
    out = printed(capsys, "inspect", folder / "model.fsparse", "--explain", row)
    assert out.startswith("mug: ")
    assert "title = 'small red old thing'" in out


def test_a_schema_that_was_inspected_trains(folder, capsys):
    schema = folder / "schema.json"
    schema.write_text(
        printed(capsys, "inspect", folder / "train.csv", "--target", "kind")
    )
    out = printed(
        capsys,
        *["train", folder / "train.csv", "--schema", schema, "--epochs", 1],
        *["--width", 4, "--quiet", "--out", folder / "second.fsparse"],
        *["--validation", folder / "test.csv"],
    )
    assert out.startswith("loss: ")


@pytest.mark.parametrize("exports", [False, True])
def test_bench(folder, capsys, tmp_path, exports):
    model = folder / "model.fsparse"
    if exports:
        model = tmp_path / "exported.fsparse"
        printed(capsys, "export", folder / "model.fsparse", model, "--k", 2)
    path = tmp_path / "bench.json"
    out = printed(
        capsys,
        *["bench", model, folder / "test.csv", "--queries", 5, "--json", path],
    )
    found = json.loads(path.read_text())
    assert found["file_bytes"] == model.stat().st_size
    assert found["cold_start_seconds"] > 0.1  # of a whole process
    assert 0 < found["single_p50_seconds"] <= found["single_p99_seconds"]
    assert found["rows_per_batch"] == 100
    assert found["rows_per_second"] > 0
    for name in ("file:", "cold start", "p50", "p99", "rows/s"):
        assert name in out


def test_a_port_that_is_taken_is_told_in_one_line(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as end:
            main(["serve", str(folder / "model.fsparse"), "--port", str(port)])
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fsparse serve: ")
    assert f"127.0.0.1:{port}; got: Address already in use" in line


@pytest.mark.parametrize("search", ["exact", "sparse"])
def test_what_was_exported_has_no_other_search(folder, capsys, tmp_path, search):
    path = tmp_path / "exported.fsparse"
    printed(capsys, "export", folder / "model.fsparse", path, "--k", 2)
    with pytest.raises(SystemExit):
        main(["serve", str(path), "--port", "0", "--search", search])
    assert "the search must be the one of the export" in capsys.readouterr().err


def test_bad_rows_can_be_left_out(folder, capsys):
    path = folder / "bad.csv"
    good = (folder / "train.csv").read_text()
    path.write_text(good + "too,few\n")
    train = ["train", path, "--target", "kind", "--epochs", 1, "--width", 4, "--quiet"]
    train += ["--out", folder / "third.fsparse"]
    with pytest.raises(SystemExit):
        printed(capsys, *train)
    error = capsys.readouterr().err
    assert "line 402" in error
    with pytest.warns(UserWarning, match="1"):
        printed(capsys, *train, "--skip-bad-rows")


def test_files_of_another_form(folder, capsys):
    tabs, model = folder / "tabs.csv", folder / "fourth.fsparse"
    text = (folder / "test.csv").read_text().replace(",", "\t").replace("red", "röd")
    tabs.write_text(text, encoding="latin-1")
    form = ["--delimiter", "tab", "--encoding", "latin-1"]
    schema = printed(capsys, "inspect", tabs, "--target", "kind", *form)
    assert set(json.loads(schema)["columns"]) == {"title", "price"}
    train = ["train", tabs, "--target", "kind", "--epochs", 1, "--width", 4, "--quiet"]
    printed(capsys, *train, "--out", model, *form, "--validation", tabs)
    assert printed(capsys, "evaluate", model, tabs, *form).startswith("loss: ")
    found = printed(capsys, "predict", model, tabs, *form)
    columns = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    expected = [best[0].label for best in Pipeline.load(model).predict(columns)]
    labels = [row["label"] for row in csv.DictReader(io.StringIO(found))]
    assert labels == expected
    with pytest.raises(SystemExit):
        main(["evaluate", str(model), str(tabs), "--delimiter", "\t"])
    assert "byte 0xf6" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(model), str(tabs), "--delimiter", "ab"])
    assert "must be one character; got 'ab'" in capsys.readouterr().err


def test_bad_rows_can_be_left_out_of_an_evaluation(folder, capsys):
    path = folder / "worse.csv"
    path.write_text((folder / "test.csv").read_text() + "too,few\nred mug,dear,mug\n")
    evaluate = ["evaluate", folder / "model.fsparse", path]
    with pytest.warns(UserWarning, match="1 malformed"):
        found = printed(capsys, *evaluate, "--skip-bad-rows")
    assert found == printed(capsys, *evaluate[:2], folder / "test.csv")


@pytest.mark.parametrize(
    ("rows", "k", "error"),
    [("test.csv", "9", "at most 3"), ("late.csv", "1", "line 20002: column 'price'")],
)
def test_a_prediction_that_fails_leaves_no_file(
    folder, tmp_path, capsys, rows, k, error
):
    good = "red old thing,3,mug\n" * 20_000
    (folder / "late.csv").write_text(f"title,price,kind\n{good}red,dear,mug\n")
    old = tmp_path / "old.csv"
    old.write_text("what was there\n")
    for out in (old, tmp_path / "new.csv"):
        with pytest.raises(SystemExit):
            printed(
                capsys,
                *["predict", folder / "model.fsparse", folder / rows],
                *["--k", k, "--out", out],
            )
        assert error in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert old.read_text() == "what was there\n"


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"  fsparse {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["evaluate", "none", "test.csv"], 1, "No such file"),
        (["evaluate", "test.csv", "test.csv"], 1, "not a whole checkpoint"),
        (["evaluate", "model.fsparse", "none.csv"], 1, "No such file"),
        (["predict", "model.fsparse", "test.csv", "--k", "9"], 1, "at most 3"),
        (["predict", "model.fsparse", "test.csv", "--k", "0"], 2, "positive integer"),
        (["train", "train.csv"], 1, "got neither"),
        (["train", "train.csv", "--target", "none"], 1, "none"),
        (["train", "train.csv", "--target", "kind", "--validation", "2"], 2, "[0, 1)"),
        (["inspect", "model.fsparse", "--explain", "{"], 1, "Expecting"),
        (["bench", "model.fsparse", "test.csv", "--search", "sparse"], 1, "Softmax"),
    ],
)
def test_errors_are_one_line(folder, monkeypatch, capsys, arguments, status, error):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == status
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"fsparse {arguments[0]}: ")
    assert error in last


def test_a_table_of_another_schema_is_refused(folder, tmp_path, capsys):
    path = tmp_path / "other.csv"
    path.write_text("color,kind\nred,mug\n")
    with pytest.raises(SystemExit):
        main(["evaluate", str(folder / "model.fsparse"), str(path)])
    error = capsys.readouterr().err
    assert "title" in error
    assert str(path) in error


def test_as_a_program(folder):
    command = [
        sys.executable,
        "-P",
        "-m",
        "fsparse",
        "inspect",
        folder / "model.fsparse",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 labels" in done.stdout
