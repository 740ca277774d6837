"""Recommendation and search on made-up data that they can learn."""

import json
from argparse import Namespace

import jax
import matplotlib.image
import numpy as np
import pytest
from example_cases import EXAMPLES, example

from fsparse import data, nn
from fsparse.data import Dataset, Splits, Texts, WordNet, from_lists, halve

parts = example("parts")
NUM_ITEMS, GROUP = 60, 6


def lists(rows):
    return [row.tolist() for row in np.split(rows.ids, rows.indptr[1:-1])]


def make_baskets(m, seed):
    """Five items of one group of six, so that the rest is nearly known."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, NUM_ITEMS // GROUP, m)
    rows = [g * GROUP + rng.choice(GROUP, 5, replace=False) for g in groups]
    return halve(from_lists([row.tolist() for row in rows], NUM_ITEMS))


def make_texts(m, seed):
    """Compounds whose end is the kind, beside words that tell nothing."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 12, m)
    noise = rng.integers(0, 50, (m, 3))
    texts = [
        f"a{x} kind{k}; b{y} kind{k} | thing c{z} of x{x}"
        for k, (x, y, z) in zip(kinds, noise, strict=True)
    ]
    return Texts(texts, from_lists([[int(k)] for k in kinds], 12))


def finished(rows, json_file, picture):
    """Our row, once files and table are seen to agree."""
    assert json.loads(json_file.read_text()) == rows
    assert matplotlib.image.imread(picture).std() > 0
    assert [row["model"] for row in rows][-2] == "fsparse"
    assert all(0 <= row["p@1"] <= 1 and row["seconds"] >= 0 for row in rows)
    return rows[-1]


def test_recommend_baskets(monkeypatch, tmp_path, capsys):
    recommend = example("recommend_baskets")
    splits = Splits(make_baskets(3000, 0), make_baskets(300, 1), "baskets")
    monkeypatch.setattr(data, "load", lambda name: splits)
    files = tmp_path / "rows.json", tmp_path / "rows.png"
    argv = ["--epochs", "5", "--json", str(files[0]), "--plot", str(files[1])]
    rows = recommend.main(argv)
    ours = finished(rows, *files)
    assert ours["p@1"] > 0.7  # 3 of the 4 that are left, by chance
    assert ours["hit@10"] > 0.99
    assert rows[0]["p@1"] < 0.3  # popularity
    assert "item-item cosine" in capsys.readouterr().out


def test_recommender_predicts_new_products():
    recommend = example("recommend_baskets")
    body = nn.Sequential([nn.EmbeddingBag(NUM_ITEMS, 8)])
    model = recommend.Recommender(body, nn.SparseLinear(8, NUM_ITEMS))
    params, state = model.init(jax.random.key(0))
    ids = np.array([[3, 7, NUM_ITEMS], [59, 0, 1]], np.int32)
    batch = data.Batch(ids, np.ones((2, 3), np.float32), np.zeros((2, 1), np.int32))
    scores, got = model.predict(params, state, batch, 5)
    h, _ = model.encode(params, state, batch)
    logits = np.array(model.head.apply(params["head"], state["head"], h)[0])
    for row, own in zip(logits, ids, strict=True):
        row[own[own < NUM_ITEMS]] = -np.inf
    order = np.argsort(-logits, axis=1)[:, :5]
    np.testing.assert_array_equal(got, order)
    np.testing.assert_allclose(scores, np.take_along_axis(logits, order, 1), rtol=1e-4)


def test_search_glosses(monkeypatch, tmp_path, capsys):
    search = example("search_glosses")
    names = [f"kind{k} | one of twelve" for k in range(12)]
    wordnet = WordNet(make_texts(3000, 0), make_texts(300, 1), names)
    monkeypatch.setattr(data, "wordnet_texts", lambda: wordnet)
    files = tmp_path / "rows.json", tmp_path / "rows.png"
    argv = ["--epochs", "3", "--json", str(files[0]), "--plot", str(files[1])]
    rows = search.main([*argv, "--query", "other kind7", "--query", "?"])
    ours = finished(rows, *files)
    assert ours["p@1"] > 0.95
    answer = capsys.readouterr().out.split("other kind7\n")[1].splitlines()
    assert answer[5:] == ["?", "  (none)"]
    assert answer[0].split() == ["kind7", "|", "one", "of", "twelve"]


def test_features_of_a_text():
    """Case, and an empty side, make no difference; ends are those of compounds."""
    count = example("gloss_features").count
    one, other = (count([text]) for text in ("Red Fox | a wild", "red fox | A wild"))
    assert lists(one) == lists(other)
    num_words = len(lists(data.hash_words(["red fox | a wild"]))[0])
    firsts, end = 3, 1  # a, wild, a wild; fox
    assert one.lengths.tolist() == [num_words + firsts + end]
    assert count(["fox | a wild"]).lengths[0] == 3 + 2 + firsts
    assert count([""]).lengths.tolist() == [0]
    assert count(["fox"]).lengths.tolist() == [1]


def test_a_concept_as_its_kinds_name_it():
    as_kind = example("gloss_features").as_kind
    kind = as_kind("wild dog; dingo | lives in Australia | or elsewhere")
    assert kind == "a wild dog; a dingo | wild dog dingo"
    weights = np.ones(example("gloss_features").count(["a"]).num_columns)
    rows = example("gloss_features").encode([kind, ""], weights)
    assert np.linalg.norm(rows.values) == pytest.approx(1)


def test_features_seen_once_weigh_nothing():
    features = example("gloss_features")
    counts = features.count(["| one", "| one", "| two"])
    weights = features.weigh(counts)
    seen = data.column_counts(counts)
    assert not weights[seen < 2].any()
    idf = data.inverse_document_frequency(counts)
    np.testing.assert_array_equal(weights[seen > 1], idf[seen > 1])
    assert (seen > 1).sum() == 2  # among the words, and among the first ones


@pytest.mark.parametrize("name", ["recommend_baskets", "search_glosses"])
def test_programs_are_short_and_explain_themselves(name, capsys):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 100
    with pytest.raises(SystemExit) as ended:
        example(name).main(["--help"])
    assert ended.value.code == 0
    assert f"python examples/{name}.py --json" in capsys.readouterr().out


def test_parts(monkeypatch):
    monkeypatch.setattr(parts, "_QUICK", 20)
    train, test = make_texts(100, 0), make_texts(10, 1)

    def chosen(seed, **options):
        args = Namespace(**{"validate": False, "quick": False} | options)
        return parts.choose(args, train, test, seed)

    def assert_taken(part, index):
        assert part.texts == [train.texts[i] for i in index]
        assert lists(part.labels) == [lists(train.labels)[i] for i in index]

    assert chosen(None) == (train, test)
    shuffled = np.random.default_rng(7).permutation(100)
    for seed, order in ((None, np.arange(100)), (7, shuffled)):
        for options, end in (({"validate": True}, 100), ({"quick": True}, 20)):
            one, other = chosen(seed, **options)
            assert_taken(one, order[: end - end // 10])
            assert_taken(other, order[end - end // 10 : end])


def test_whole_baskets():
    features = from_lists([[], [3], [0, 4], []], 5)
    labels = from_lists([[1], [2], [3, 1], []], 5)
    sets = parts.whole(Dataset(features, labels))
    assert [sorted(row) for row in lists(sets)] == [[2, 3], [0, 1, 3, 4]]
    assert sets.num_columns == 5
    assert sets.indptr.dtype == np.int64
    assert sets.ids.dtype == np.int32
