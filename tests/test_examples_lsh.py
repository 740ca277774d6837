"""The programs that show what hash tables are worth, on data that is learnt at once."""

import json
import re

import pytest
from example_cases import example, finish, launch, write_examples

compare_samplers = example("compare_samplers")
sparse_inference = example("sparse_inference")
PNG = b"\x89PNG\r\n\x1a\n"
NUM_LABELS = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lsh")
    write_examples(folder / "tiny.txt", 600)
    return folder


def test_samplers_are_compared(folder):
    names = ["dense", "uniform", "lsh"]
    argv = ["--data", "tiny.txt", "--budgets", 0.9, "--seeds", 2, "--seconds", 60]
    argv += ["--examples", 6000, "--samplers", *names, "--json", "rows.json"]
    status, out, err = finish(launch("compare_samplers.py", *argv, cwd=folder))
    assert status == 0, err
    rows = json.loads((folder / "rows.json").read_text())
    assert {row["sampler"] for row in rows} == set(names)
    assert {row["scope"] for row in rows} == {"dense", "shared", "per_example"}
    assert {row["seed"] for row in rows} == {0, 1}
    assert all(name in out for name in names)
    ends = [row for row in rows if row["examples"] >= 6000]
    assert len(ends) == 2 * 5
    assert min(row["p_at_1"] for row in ends) > 0.5  # chance is 0.03
    argv = ["--rows", "rows.json", "--plot", "samplers.png"]
    status, _, err = finish(launch("compare_samplers.py", *argv, cwd=folder))
    assert status == 0, err
    assert (folder / "samplers.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("insert", ["never", "always"])
def test_sparse_inference_is_compared(folder, insert):
    argv = ["--data", "tiny.txt", "--most", 0.5, "--queries", 5, "--insert", insert]
    argv += ["--json", "sparse.json"]
    status, out, err = finish(launch("sparse_inference.py", *argv, cwd=folder))
    assert status == 0, err
    found = json.loads((folder / "sparse.json").read_text())
    assert found["p_at_1_dense"] > 0.5
    assert found["p_at_1_sparse"] > found["p_at_1_dense"] - 0.1
    assert 0 < found["scored_fraction"] <= 0.5
    assert found["p50_dense_seconds"] > 0 < found["p50_sparse_seconds"]
    assert 0 < found["recall_at_10"] <= 1
    assert (found["num_inserted"] > 0) == (insert == "always")
    assert "p_at_1_sparse" in out


@pytest.mark.parametrize(
    ("module", "argv", "words"),
    [
        (compare_samplers, ["--budgets", "2"], "--budgets must be in (0, 1]"),
        (compare_samplers, ["--samplers", "best"], "--samplers must be"),
        (sparse_inference, ["--most", "0"], "--most must be in (0, 1]"),
    ],
)
def test_mistakes(module, argv, words, capsys):
    with pytest.raises(SystemExit) as ended:
        module.main(argv)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["compare_samplers", "sparse_inference", "tune_training"]
)
def test_help_shows_a_command(name, capsys):
    with pytest.raises(SystemExit) as ended:
        example(name).main(["--help"])
    assert ended.value.code == 0
    assert f"python examples/{name}.py --data" in capsys.readouterr().out


def test_training_is_tuned(folder):
    argv = ["--data", "tiny.txt", "--examples", 3000, "--json", "plan.json"]
    status, out, err = finish(launch("tune_training.py", *argv, cwd=folder))
    assert status == 0, err
    found = json.loads((folder / "plan.json").read_text())
    assert found["why"] in " ".join(out.split())
    assert found["plan"]["scope"] in ("dense", "shared", "per_example")


def test_hard_negatives_learns(tmp_path):
    status, out, err = finish(launch("hard_negatives.py", cwd=tmp_path))
    assert status == 0, err
    dense, sparse = [float(x) for x in re.findall(r"^P@1 .*: ([\d.]+)$", out, re.M)]
    assert dense > 0.95
    assert dense - 0.1 < sparse <= dense
