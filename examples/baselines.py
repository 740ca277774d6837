"""Simple rules that a model has to beat: what is frequent, and what is near.

All are weights between features and labels, ``[num_features, num_labels]``, by which
:func:`best` ranks: ``scores = features @ weights + prior``.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from fsparse import metrics
from fsparse.data import Dataset, SparseRows, to_padded

_BLOCK = 256  # examples that are scored at a time


def cosine(items: SparseRows) -> sp.csr_matrix:
    """Between items, by the examples that have both: ``n_ij / sqrt(n_i n_j)``.

    An item says nothing of itself.
    """
    x = matrix(items)
    x.data[:] = 1
    together = sp.csr_matrix(x.T @ x)
    together.setdiag(0)
    inverse = sp.diags(_inverse(np.asarray(x.sum(axis=0)).ravel() ** 0.5))
    return (inverse @ together @ inverse).tocsr()


def ridge(
    items: SparseRows,
    num_kept: int,
    penalty: float,
    *,
    weights: np.ndarray | None = None,
    dropout: float = 0.0,
) -> sp.csr_matrix:
    """Each item's presence as a linear function of all others', by least squares.

    ``w_ij = -p_ij / p_jj`` for ``p = inverse(g + penalty + dropout / (1 - dropout) *
    diagonal(g))`` and ``g = x.T @ (weights * x)``, among the most frequent items, small
    weights left out: for sets of which a share is missing (EASE and EDLAE, Steck 2019
    and 2020).
    """
    x, n = matrix(items), items.num_columns
    if weights is not None:
        x = sp.csr_matrix(sp.diags(weights**0.5) @ x)
    squares = np.asarray(x.multiply(x).sum(axis=0)).ravel()
    kept = np.sort(np.argsort(-squares, kind="stable")[:num_kept])
    x = x[:, kept].astype(np.float32)
    gram = (x.T @ x).toarray()
    missing = dropout / (1 - dropout) * squares[kept]
    gram[np.diag_indices_from(gram)] += penalty + missing
    p = np.linalg.inv(gram)
    ratios = -p / np.diag(p)
    np.fill_diagonal(ratios, 0)
    row, column = np.nonzero(np.abs(ratios) > 1e-3)
    at = kept[row], kept[column]
    return sp.csr_matrix((ratios[row, column], at), shape=(n, n))


def centroids(features: SparseRows, labels: SparseRows) -> sp.csr_matrix:
    """The sum of each label's examples, of length 1: a column for each label."""
    sums = sp.csc_matrix(matrix(features).T @ matrix(labels))
    squares = np.asarray(sums.multiply(sums).sum(axis=0)).ravel()
    return (sums @ sp.diags(_inverse(squares**0.5))).tocsr()


def best(
    features: SparseRows,
    weights: sp.csr_matrix | None,
    k: int,
    *,
    prior: np.ndarray | sp.csr_matrix | None = None,
    exclude_inputs: bool = False,
) -> np.ndarray:
    """``i32[m, k]`` labels of the largest scores, best first; ties by the lower id.

    A prior is of all examples, ``[n]``, or a sparse matrix, ``[m, n]``, of each one's.
    With ``exclude_inputs``, features and labels are the same items: predict new ones.
    """
    x, parts = matrix(features), []
    for start in range(0, x.shape[0], _BLOCK):
        block = slice(start, start + _BLOCK)
        rows = x[block]
        scores = np.zeros((rows.shape[0], 1)) if weights is None else rows @ weights
        own = prior[block] if sp.issparse(prior) else prior
        scores = _dense(scores) + (0 if own is None else _dense(own))
        if exclude_inputs:
            scores[rows.nonzero()] = -np.inf
        parts.append(_largest(scores, k))
    return np.concatenate(parts).astype(np.int32)


def chances(scores: np.ndarray, ids: np.ndarray, num_labels: int) -> sp.csr_matrix:
    """``[m, num_labels]``: a model's chances of its candidates, 0 of other labels.

    The softmax is among the candidates; those beyond all labels are padding.
    """
    row, column = np.nonzero(ids < num_labels)
    values, at = _softmax(scores)[row, column], (row, ids[row, column])
    return sp.csr_matrix((values, at), shape=(len(ids), num_labels))


def rerank(
    features: SparseRows,
    weights: sp.csr_matrix,
    scores: np.ndarray,
    ids: np.ndarray,
    share: float,
) -> np.ndarray:
    """A model's candidates by ``share * softmax(scores) + features @ weights``.

    Those alone: :func:`best` ranks all labels, with ``share * chances(...)`` as the
    prior. Padding, beyond all labels, stays last.
    """
    x, columns, n = matrix(features), weights.tocsc(), weights.shape[1]
    total = share * _softmax(scores)
    for i, own in enumerate(ids):
        total[i] += (x[i] @ columns[:, np.minimum(own, n - 1)]).toarray().ravel()
    order = np.argsort(np.where(ids < n, -total, np.inf), axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)


def judge(ids: np.ndarray, labels: SparseRows, names: list[str]) -> dict[str, float]:
    """Means of metrics such as ``"p@1"`` and ``"hit@10"`` of ranked labels."""
    capacity = max(int(labels.lengths.max()), 1)
    label_ids, _ = to_padded(labels, np.arange(labels.num_rows), capacity)
    is_hit = metrics.hits(ids, label_ids, num_labels=labels.num_columns)
    means = {}
    for name in names:
        kind, k = name.split("@")
        rule = {"p": metrics.precision_at, "hit": metrics.hit_at}[kind]
        means[name] = float(np.mean(rule(int(k), is_hit)))
    return means


def row(
    model: str, rank: Callable[[], np.ndarray], labels: SparseRows, names: list[str]
) -> dict[str, Any]:
    """A row of a table of results: the metrics of a ranking, and its seconds."""
    began = time.perf_counter()
    ids = rank()
    seconds = time.perf_counter() - began
    return {"model": model, **judge(ids, labels, names), "seconds": seconds}


def nearest(
    model: str, train: Dataset, test: Dataset, names: list[str]
) -> dict[str, Any]:
    """A row of the nearest centroids, by the cosine."""
    k = max(int(name.split("@")[1]) for name in names)
    rank = partial(best, test.features, centroids(*train), k)
    return row(model, rank, test.labels, names)


def matrix(rows: SparseRows) -> sp.csr_matrix:
    """The same rows, for scipy."""
    shape = rows.num_rows, rows.num_columns
    return sp.csr_matrix((rows.values.copy(), rows.ids, rows.indptr), shape=shape)


def _inverse(x: np.ndarray) -> np.ndarray:
    """``1 / x``, and 0 for 0."""
    return np.divide(1, x, out=np.zeros_like(x, float), where=x > 0)


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Of each row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _dense(scores: np.ndarray | sp.csr_matrix) -> np.ndarray:
    return scores.toarray() if sp.issparse(scores) else scores


def _largest(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the ``k`` largest; all that tie with the last one are looked at."""
    least = np.partition(scores, -k, axis=1)[:, -k]
    rows = [np.flatnonzero(row >= t) for row, t in zip(scores, least, strict=True)]
    order = [
        np.argsort(-s[r], kind="stable")[:k] for s, r in zip(scores, rows, strict=True)
    ]
    return np.stack([r[o] for r, o in zip(rows, order, strict=True)])
