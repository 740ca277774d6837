"""The sketch as a regressor and as a density, at tiny sizes."""

import json

import numpy as np
import pytest
from example_cases import example

regression = example("streaming_regression")
anomalies = example("density_and_anomalies")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("regression") / "rows.json"
    argv = ["--examples=2048", "--batch=256", "--rows=16", "--bits=6", "--dim=3"]
    rows = regression.main([*argv, f"--json={path}"])
    assert json.loads(path.read_text()) == rows
    return rows


def test_the_sketch_follows_the_exact_regression(rows):
    assert [row["examples"] for row in rows] == [256, 512, 1024, 2048]
    for row in rows:
        assert row["sketch"] < row["exact"] + 0.1
    spread = np.std(regression.draw(regression.jax.random.key(0), 500, 3)[1])
    assert rows[-1]["sketch"] < 0.7 * spread


def test_it_predicts_what_it_has_not_seen(rows):
    assert rows[0]["ahead"] > rows[-1]["ahead"]
    assert abs(rows[-1]["ahead"] - rows[-1]["sketch"]) < 0.15


def test_outliers_are_where_the_density_is_low(tmp_path):
    path = tmp_path / "figures.json"
    argv = ["--examples=3000", "--batch=500", "--rows=20", "--dim=6"]
    figures = anomalies.main([*argv, f"--json={path}"])
    assert json.loads(path.read_text()) == figures
    assert 30 < figures["num_outliers"] < 90
    assert figures["auc_exact"] > 0.9
    assert abs(figures["auc_sketch"] - figures["auc_exact"]) < 0.05
    assert figures["auc_ahead"] > 0.85
    assert figures["density_rmse"] < 0.5 * figures["density_mean"]


def test_auc_is_the_chance_of_a_higher_score():
    score, is_positive = np.array([3, 1, 2, 2, 0]), np.array([1, 0, 1, 0, 0]) == 1
    pairs = score[is_positive][:, None] - score[~is_positive]
    want = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    np.testing.assert_allclose(anomalies.auc(score, is_positive), want)


@pytest.mark.parametrize("program", [regression, anomalies])
def test_help_says_what_it_does(program, capsys):
    with pytest.raises(SystemExit, match="0"):
        program.main(["--help"])
    assert program.__doc__.splitlines()[0] in capsys.readouterr().out
