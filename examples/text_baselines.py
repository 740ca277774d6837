"""What a classifier of texts has to beat, as weights for :func:`baselines.best`."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from baselines import matrix

from fsparse.data import Dataset


class Weights(NamedTuple):
    """Of linear scores, ``features @ weights + prior``."""

    weights: np.ndarray  # [num_features, num_labels]
    prior: np.ndarray  # [num_labels]


def naive_bayes(train: Dataset, smoothing: float = 0.1) -> Weights:
    """Multinomial: a label's log share of examples, and that of its features' counts.

    ``weights[i, l] = log((smoothing + n_il) / (n smoothing + sum_i n_il))``.
    """
    y = matrix(train.labels)
    counts = smoothing + sp.csr_matrix(matrix(train.features).T @ y).toarray()
    share = np.asarray(y.sum(axis=0)).ravel() / y.sum()
    return Weights(np.log(counts / counts.sum(axis=0)), np.log(share))


def judge(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The accuracy, and the mean over labels of F1, ``2 hits / (true + predicted)``.

    Of examples with one label each; labels that are neither true nor predicted do not
    count.
    """
    size = int(max(predicted.max(), labels.max())) + 1
    hits, true, said = (
        np.bincount(x, minlength=size)
        for x in (labels[predicted == labels], labels, predicted)
    )
    counted = true + said > 0
    f1 = 2 * hits[counted] / (true + said)[counted]
    accuracy = float(np.mean(predicted == labels))
    return {"accuracy": accuracy, "macro-F1": float(f1.mean())}
