"""Predicting clicks: logistic regression, and the program on promotions made here."""

import json

import numpy as np
import pytest
from example_cases import example

from fsparse.data import DenseDataset, DenseSplits

predict_clicks = example("predict_clicks")
click_baselines = example("click_baselines")
PNG = b"\x89PNG\r\n\x1a\n"


def draw(rng, m):
    """Sold where the store sold lately: the first of the history; the rest is noise."""
    columns = [rng.integers(0, 50, m) for _ in predict_clicks.FIELDS]
    at = predict_clicks.FIELDS.index("sold_here_since")
    chance = np.where(columns[at] < 10, 0.6, 0.02)
    ids = np.stack([50 * i + column for i, column in enumerate(columns)], axis=1)
    labels = (rng.random(m) < chance).astype(np.int32)
    return DenseDataset(ids.astype(np.int32), labels)


def test_logistic_regression_finds_the_odds(rng):
    ids = rng.integers(0, 4, (40_000, 1)).astype(np.int32)
    chance = np.array([0.1, 0.3, 0.5, 0.8])
    labels = (rng.random(40_000) < chance[ids[:, 0]]).astype(np.int32)
    train = DenseDataset(ids, labels)
    scores = click_baselines.logistic_regression(
        train, np.arange(4)[:, None], 4, epochs=200
    )
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), chance, atol=0.03)


def test_without_fields_the_odds_are_the_same_for_all(rng):
    labels = np.array([0, 0, 0, 1], np.int32)
    train = DenseDataset(np.zeros((4, 0), np.int32), labels)
    scores = click_baselines.logistic_regression(train, np.zeros((3, 0), int), 8)
    np.testing.assert_allclose(scores, np.log(1 / 3))


def test_figures_of_scores():
    scores, labels = np.array([-2.0, 0.0, 3.0]), np.array([0, 1, 1])
    found = click_baselines.judge(scores, labels)
    p = 1 / (1 + np.exp(-scores))
    wanted = -np.mean(np.log(np.where(labels == 1, p, 1 - p)))
    assert found == pytest.approx({"auc": 1.0, "log_loss": wanted})


def test_sales_are_predicted(tmp_path, monkeypatch, rng):
    asked = {}

    def load_dense(name, **options):
        asked.update(options, name=name)
        parts = draw(rng, 20_000), draw(rng, 3_000)
        return DenseSplits(*parts, 2, options["num_features"], name)

    monkeypatch.setattr(predict_clicks.data, "load_dense", load_dense)
    table, plot = tmp_path / "rows.json", tmp_path / "bars.png"
    argv = ["--quick", "--epochs", "2", "--json", str(table), "--plot", str(plot)]
    rows = predict_clicks.main(argv)
    assert asked["name"] == "ctr"
    assert asked["history"]
    assert json.loads(table.read_text()) == rows
    assert plot.read_bytes().startswith(PNG)
    found = {row["model"]: row for row in rows}
    assert found["the same odds"]["auc"] == 0.5
    assert found["logistic regression"]["auc"] < 0.6  # it has no history
    assert found["the same, history"]["auc"] > 0.7
    assert found["fsparse"]["auc"] > 0.8
    assert found["fsparse"]["log_loss"] < found["the same odds"]["log_loss"] - 0.05


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit) as ended:
        predict_clicks.main(["--help"])
    assert ended.value.code == 0
    assert "python examples/predict_clicks.py" in capsys.readouterr().out
