"""Ranking metrics against a hand-computed example and brute force."""

import numpy as np
import pytest

from fsparse.metrics import (
    count_labels,
    hit_at,
    hits,
    inverse_propensities,
    ndcg_at,
    precision_at,
    propensity_gains,
    recall_at,
)

N = 20  # labels; N and anything out of range is padding
PREDICTED = np.array([[3, 1, 4, 0], [2, 7, 1, 8]], np.int32)
LABELS = np.array([[4, 3, N], [5, 6, N]], np.int32)


def test_hand_computed():
    is_hit = hits(PREDICTED, LABELS, num_labels=N)
    np.testing.assert_array_equal(is_hit, [[1, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(precision_at(1, is_hit), [1, 0])
    np.testing.assert_allclose(precision_at(3, is_hit), [2 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(precision_at(4, is_hit), [1 / 2, 0])
    np.testing.assert_array_equal(hit_at(1, is_hit), [1, 0])
    np.testing.assert_array_equal(hit_at(4, is_hit), [1, 0])


def test_hand_computed_propensities():
    """N = e**2 makes C = 2.5**.55, and 1/p = 1 + C (1 + 1.5)**-.55 = 2."""
    got = inverse_propensities(np.array([1]), np.e**2)
    np.testing.assert_allclose(got, 2, rtol=1e-6)
    assert got.dtype == np.float32


def test_hand_computed_gains():
    weights = np.arange(N, dtype=np.float32)
    gained, best = propensity_gains(2, PREDICTED, LABELS, weights)
    np.testing.assert_allclose(gained, [3 / 2, 0])
    np.testing.assert_allclose(best, [(4 + 3) / 2, (6 + 5) / 2])


def test_a_label_that_is_given_twice_counts_once():
    twice = np.array([[3, 4, 3, N, 4], [-1, 6, 6, 6, N]], np.int32)
    once = np.array([[3, 4], [6, N]], np.int32)
    np.testing.assert_array_equal(count_labels(twice, num_labels=N), [2, 1])
    assert count_labels(twice[:, :0], num_labels=N).tolist() == [0, 0]
    for metric in (recall_at, ndcg_at):
        found = [
            metric(
                2,
                hits(PREDICTED, labels, num_labels=N),
                count_labels(labels, num_labels=N),
            )
            for labels in (twice, once)
        ]
        np.testing.assert_array_equal(*found)
    is_hit = hits(PREDICTED, twice, num_labels=N)
    num_true = count_labels(twice, num_labels=N)
    np.testing.assert_allclose(recall_at(4, is_hit, num_true), [1, 0])
    weights = np.arange(N, dtype=np.float32)
    gains = [propensity_gains(3, PREDICTED, x, weights) for x in (twice, once)]
    np.testing.assert_array_equal(*gains)


def padded_sets(rng, b, width):
    """Distinct labels of each row, and the same as ids with padding between them."""
    ids = np.array([rng.permutation(N)[:width] for _ in range(b)], np.int32)
    padding = rng.choice([N, N + 5, -1, 2**31 - 1], ids.shape)
    ids = np.where(rng.random(ids.shape) < 0.3, padding, ids).astype(np.int32)
    return [{i for i in row.tolist() if 0 <= i < N} for row in ids], ids


@pytest.mark.parametrize("k", [1, 3, 5])
def test_brute_force(rng, k):
    b = 50
    sets, labels = padded_sets(rng, b, 6)
    predicted = np.array([rng.permutation(N)[:5] for _ in range(b)], np.int32)
    tops = predicted[:, :k].tolist()
    true = [[p in own for p in top] for top, own in zip(tops, sets, strict=True)]
    is_hit = hits(predicted, labels, num_labels=N)
    np.testing.assert_array_equal(is_hit[:, :k], true)
    np.testing.assert_allclose(precision_at(k, is_hit), np.mean(true, 1), rtol=1e-6)
    np.testing.assert_array_equal(hit_at(k, is_hit), np.any(true, 1))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_brute_force_propensities(rng, k):
    sets, labels = padded_sets(rng, 50, 6)
    predicted = np.array([rng.permutation(N)[:5] for _ in range(50)], np.int32)
    counts = rng.integers(0, 100, N)
    weights = inverse_propensities(counts, 1000, a=0.6, b=2.6)
    scale = (np.log(1000) - 1) * 3.6**0.6
    np.testing.assert_allclose(weights, 1 + scale / (counts + 2.6) ** 0.6, rtol=1e-6)
    gained, best = propensity_gains(k, predicted, labels, weights)
    for i, own in enumerate(sets):
        mine = sum(weights[p] for p in predicted[i, :k] if p in own)
        ideal = sum(sorted((weights[p] for p in own), reverse=True)[:k])
        np.testing.assert_allclose([gained[i], best[i]], [mine / k, ideal / k], 1e-6)


def test_padding_predicted_beside_padding_is_no_hit():
    """Top-k fills up with n; labels are padded with n too."""
    padding = np.array([[N, -1, N + 1]], np.int32)
    assert not np.any(hits(padding, padding, num_labels=N))
    gained, best = propensity_gains(3, padding, padding, np.ones(N, np.float32))
    np.testing.assert_array_equal([gained, best], 0)
