"""The benchmark of what a sketch costs, at tiny sizes."""

import json

import pytest
from example_cases import finish, launch

PARTS = {"hash_ms", "query_ms", "update_ms", "all_ms", "train_ms"}


def test_the_cost_of_a_sketch_is_measured(tmp_path):
    argv = ["--widths", 5, 7, "--batches", 3, "--rows", 2, "--bits", 2, "--hidden", 4]
    argv += ["--layers", 1, "--rounds", 2, "--json", "cost.json"]
    status, out, err = finish(launch("benchmarks/sketch.py", *argv, cwd=tmp_path))
    assert status == 0, err
    result = json.loads((tmp_path / "cost.json").read_text())
    assert {"cpu", "cores", "fsparse", "jaxlib"} <= {*result["machine"]}
    sizes = [(row["width"], row["batch"], row["candidates"]) for row in result["rows"]]
    assert sizes == [(5, 3, 1), (5, 3, 4), (7, 3, 1), (7, 3, 4)]
    for row in result["rows"]:
        assert {*row} >= PARTS
        assert all(row[part] > 0 for part in PARTS)
        assert row["all_share"] == row["all_ms"] / row["train_ms"]
    assert "share" in out


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["--help"], 0, "python examples/benchmarks/sketch.py --kind"),
        (["--rounds", 0], 2, "must be at least 1"),
    ],
)
def test_its_help_and_a_mistake(tmp_path, argv, status, words):
    got, out, err = finish(launch("benchmarks/sketch.py", *argv, cwd=tmp_path))
    assert got == status
    assert words in out + err
