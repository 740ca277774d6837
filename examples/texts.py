"""Texts as rows of weights, and an order to hold some out by."""

import numpy as np

from fsparse import data
from fsparse.data import Dataset, SparseRows, Splits


def weigh(splits: Splits, room: int) -> list[SparseRows]:
    """Features of both parts: logarithms of counts, by tf-idf, in rows of length 1.

    Those of a single training text count nothing, and each text keeps the ``room``
    largest.
    """
    is_repeated = data.column_counts(splits.train.features) > 1

    def counted(part: Dataset) -> Dataset:
        rows = data.scale_columns(part.features, is_repeated)
        return part._replace(features=rows._replace(values=np.log1p(rows.values)))

    train, test, name = splits
    weighted = data.tfidf(Splits(counted(train), counted(test), name))
    return [data.normalize(data.clip(p.features, room)[0]) for p in weighted[:2]]


def in_time(labels: np.ndarray) -> np.ndarray:
    """An order of examples by their places among those of their label.

    Where each label's come in the order of their dates, its end has the latest of all.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        place[own] = np.arange(len(own)) / len(own)
    return np.argsort(place, kind="stable")
