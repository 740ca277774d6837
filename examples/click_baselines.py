"""What a model of clicks has to beat: functions of training to scores of examples.

Examples are rows of hashed ids, ``i32[m, fields]``, with labels 0 and 1; scores are log
odds, ``f64[m]``.
"""

import numpy as np

from fsparse import metrics
from fsparse.data import DenseDataset

_BATCH = 4096


def logistic_regression(
    train: DenseDataset,
    test: np.ndarray,
    num_features: int,
    *,
    epochs: int = 2,
    rate: float = 0.05,
    seed: int = 0,
) -> np.ndarray:
    """A weight for each id, and a bias: Adagrad, on batches of 4,096."""
    rng = np.random.default_rng(seed)
    bias, weights = log_odds(train.labels), np.zeros(num_features)
    squares = np.full(num_features, 1e-4)
    m, fields = train.features.shape
    for _ in range(epochs):
        for part in np.array_split(rng.permutation(m), -(-m // _BATCH)):
            ids = train.features[part]
            p = _sigmoid(bias + weights[ids].sum(axis=1))
            error = np.repeat(p - train.labels[part], fields)
            gradient = np.bincount(ids.ravel(), error, num_features)
            squares += gradient**2
            weights -= rate * gradient / np.sqrt(squares)
    return np.asarray(bias + weights[test].sum(axis=1))


def log_odds(labels: np.ndarray) -> float:
    """Of the share of ones; the score of all examples alike."""
    share = labels.mean()
    return float(np.log(share / (1 - share)))


def judge(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The AUC, and the mean of ``softplus(s) - y s`` in nats."""
    losses = np.logaddexp(0, scores) - labels * scores
    return {"auc": metrics.auc(scores, labels), "log_loss": float(losses.mean())}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))
