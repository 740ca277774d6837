"""The baselines of the examples against loops over tiny data."""

import json

import matplotlib.image
import numpy as np
import pytest
from example_cases import example

from fsparse.data import from_lists

baselines = example("baselines")
results = example("results")
M, N, NUM_LABELS = 40, 12, 7


def make_dense(seed, columns):
    """Some zeros, a row of zeros, a column of zeros."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (M, columns)) * (rng.random((M, columns)) < 0.4)
    dense[3], dense[:, 5] = 0, 0
    return dense.astype(np.float32)


def as_rows(dense):
    ids = [np.flatnonzero(row).tolist() for row in dense]
    values = [row[i].tolist() for row, i in zip(dense, ids, strict=True)]
    return from_lists(ids, dense.shape[1], values)


def test_cosine():
    dense = make_dense(0, N)
    got = baselines.cosine(as_rows(dense)).toarray()
    has = [set(np.flatnonzero(dense[:, i])) for i in range(N)]
    for i in range(N):
        for j in range(N):
            both, size = len(has[i] & has[j]), np.sqrt(len(has[i]) * len(has[j]))
            want = both / size if both and i != j else 0
            assert got[i, j] == pytest.approx(want)


def test_ridge():
    """Each column solves a least-squares problem of the others, all but one item."""
    dense = (make_dense(5, N) > 0).astype(np.float32)
    got = baselines.ridge(as_rows(dense), N - 1, penalty=2.0).toarray()
    rare = int(np.argmin(dense.sum(axis=0)))
    kept = [i for i in range(N) if i != rare]
    assert not got[rare].any()
    assert not got[:, rare].any()
    for j in kept:
        others = [i for i in kept if i != j]
        x = dense[:, others]
        want = np.linalg.solve(x.T @ x + 2 * np.eye(N - 2), x.T @ dense[:, j])
        want[np.abs(want) < 1e-3] = 0
        np.testing.assert_allclose(got[others, j], want, atol=2e-5)
        assert got[j, j] == 0


def test_ridge_of_weighted_sets_with_dropout():
    """The same solution as the mean over many sets whose items are dropped at random.

    ``E[z.T @ z]`` of sets ``z`` that keep an item by a chance of ``1 - dropout``, for
    targets that are whole.
    """
    dense = (make_dense(8, N) > 0).astype(np.float64)
    chances = np.random.default_rng(9).random(len(dense))
    options = {"weights": chances, "dropout": 0.25}
    got = baselines.ridge(as_rows(dense), N, penalty=2.0, **options).toarray()
    for j in range(N):
        others = [i for i in range(N) if i != j]
        x, keep = dense[:, others], 0.75
        moments = keep**2 * (x.T * chances) @ x
        np.fill_diagonal(moments, keep * chances @ x**2)
        moments += keep**2 * 2 * np.eye(N - 1)
        want = keep * np.linalg.solve(moments, keep * (x.T * chances) @ dense[:, j])
        want[np.abs(want) < 1e-3] = 0
        np.testing.assert_allclose(got[others, j], want, atol=2e-5)


def test_rerank():
    dense, rng = make_dense(6, N), np.random.default_rng(7)
    weights = (rng.random((N, NUM_LABELS)) < 0.5) * rng.random((N, NUM_LABELS))
    ids = np.stack([rng.permutation(NUM_LABELS)[:4] for _ in range(M)])
    scores = rng.normal(size=ids.shape)
    weights = weights.astype(np.float32)
    sparse = baselines.matrix(as_rows(weights))
    padded = np.hstack([np.full((M, 1), NUM_LABELS), ids, np.full((M, 2), NUM_LABELS)])
    no_score = np.full((M, 1), -np.inf)
    padded_scores = np.hstack([no_score, scores, no_score, no_score])
    got = baselines.rerank(as_rows(dense), sparse, padded_scores, padded, 5.0)
    assert (got[:, 4:] == NUM_LABELS).all()
    got = got[:, :4]
    for row, one, own, order in zip(dense, scores, ids, got, strict=True):
        chance = np.exp(one) / np.exp(one).sum()
        total = dict(zip(own, 5 * chance + (row @ weights)[own], strict=True))
        assert order.tolist() == sorted(own, key=lambda j: -total[j])


def test_chances():
    rng = np.random.default_rng(10)
    ids = np.stack([rng.permutation(NUM_LABELS)[:4] for _ in range(M)])
    scores = 300 + 5 * rng.normal(size=ids.shape)
    ids[:, 3], scores[:, 3] = NUM_LABELS, -np.inf
    got = baselines.chances(scores, ids, NUM_LABELS).toarray()
    for row, one, own in zip(got, scores, ids, strict=True):
        total = np.exp(one[:3] - 300).sum()
        want = np.zeros(NUM_LABELS)
        for score, j in zip(one[:3], own[:3], strict=True):
            want[j] = np.exp(score - 300) / total
        np.testing.assert_allclose(row, want)


def test_centroids():
    dense, labels = make_dense(1, N), make_dense(2, NUM_LABELS) > 0
    labels = labels.astype(np.float32)
    got = baselines.centroids(as_rows(dense), as_rows(labels)).toarray()
    for j in range(NUM_LABELS):
        total = sum((dense[i] for i in range(M) if labels[i, j]), np.zeros(N))
        length = np.linalg.norm(total)
        want = total / length if length else total
        np.testing.assert_allclose(got[:, j], want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("exclude_inputs", [False, True])
def test_best(monkeypatch, exclude_inputs):
    """Many ties; the order of equal scores is that of the ids."""
    monkeypatch.setattr(baselines, "_BLOCK", 7)
    dense = make_dense(3, N)
    weights = np.random.default_rng(4).integers(0, 3, (N, N)).astype(np.float32)
    prior = np.arange(N) % 2
    got = baselines.best(
        as_rows(dense),
        baselines.matrix(as_rows(weights)),
        4,
        prior=prior,
        exclude_inputs=exclude_inputs,
    )
    for row, ids in zip(dense, got, strict=True):
        scores = row @ weights + prior
        if exclude_inputs:
            scores = np.where(row > 0, -np.inf, scores)
        want = sorted(range(N), key=lambda j: (-scores[j], j))[:4]
        assert ids.tolist() == want


@pytest.mark.parametrize("has_weights", [False, True])
def test_best_by_a_prior_of_each_example(monkeypatch, has_weights):
    """All labels are ranked: those of the prior, and those of the weights."""
    monkeypatch.setattr(baselines, "_BLOCK", 7)
    dense, own = make_dense(11, N), make_dense(12, N)
    weights = np.random.default_rng(13).normal(size=(N, N)).astype(np.float32)
    weights[:, ::2] = 0
    prior = baselines.matrix(as_rows(own))
    given = baselines.matrix(as_rows(weights)) if has_weights else None
    got = baselines.best(as_rows(dense), given, 4, prior=prior)
    for row, chance, ids in zip(dense, own, got, strict=True):
        scores = chance + (row @ weights if has_weights else 0)
        assert ids.tolist() == sorted(range(N), key=lambda j: (-scores[j], j))[:4]


def test_best_by_the_prior_alone():
    prior = np.array([0.0, 3, 1, 2])
    ids = baselines.best(
        from_lists([[], [1]], 4), None, 2, prior=prior, exclude_inputs=True
    )
    assert ids.tolist() == [[1, 3], [3, 2]]


def test_judge():
    labels = from_lists([[1], [0, 2], []], 4)
    ids = np.array([[1, 0], [1, 2], [0, 1]], np.int32)
    means = baselines.judge(ids, labels, ["p@1", "p@2", "hit@2"])
    assert means == pytest.approx({"p@1": 1 / 3, "p@2": 2 / 6, "hit@2": 2 / 3})


def test_report(tmp_path, capsys):
    rows = [{"model": "one", "p@1": 0.25}, {"model": "two", "p@1": 0.5, "seconds": 3}]
    made = results.parser("What it does.")
    json_file, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    argv = ["--json", str(json_file), "--plot", str(picture), "--quick"]
    args = made.parse_args(argv)
    assert args.quick
    results.report(args, "title", rows, ["p@1"])
    assert json.loads(json_file.read_text()) == rows
    assert matplotlib.image.imread(picture).std() > 0
    printed = capsys.readouterr().out
    for text in ("title", "one", "0.250", "0.500", "-"):
        assert text in printed
