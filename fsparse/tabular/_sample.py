"""A sample of a stream's numbers that does not depend on how the stream is parted."""

from typing import NamedTuple

import numpy as np

from fsparse.tabular._columns import NumericStats
from fsparse.tabular._hashing import U64, mix
from fsparse.tabular._values import F64

SAMPLE_ROWS = 2**16


class Sample(NamedTuple):
    """The numbers of the rows whose hashed row number is least."""

    priorities: U64  # rising
    values: F64  # NaN where missing


def no_sample() -> Sample:
    """Of no rows."""
    return Sample(np.zeros(0, np.uint64), np.zeros(0))


def extend(sample: Sample, values: F64, first_row: int, size: int) -> Sample:
    """The sample with the rows from ``first_row`` on."""
    rows = np.arange(first_row, first_row + len(values)).astype(np.uint64)
    priorities = np.concatenate([sample.priorities, mix(rows)])
    kept = np.argsort(priorities, kind="stable")[:size]
    return Sample(priorities[kept], np.concatenate([sample.values, values])[kept])


def statistics(sample: Sample, bins: int) -> NumericStats:
    """Mean, deviation and the edges of quantiles of the finite numbers.

    Numbers are scaled by the largest before they are added, lest their sum overflow.
    """
    values = np.sort(sample.values[np.isfinite(sample.values)])
    if not len(values):
        return NumericStats()
    unit = float(np.abs(values[[0, -1]]).max()) or 1.0
    mean, deviation = (values / unit).mean(), (values / unit).std()
    edges = tuple(_edges(values, bins).tolist())
    return NumericStats(float(mean * unit), float(deviation * unit) or 1.0, edges)


def _edges(values: F64, bins: int) -> F64:
    """Values of more than a bin's share, such as 0, and quantiles of all the others."""
    distinct, counts = np.unique(values, return_counts=True)
    heavy = distinct[counts * bins > len(values)][: max(0, bins - 1)]
    rest, room = values[~np.isin(values, heavy)], bins - 1 - len(heavy)
    if room < 1 or not len(rest):
        return heavy
    inner = np.arange(1, room + 1) / (room + 1)
    quantiles = np.quantile(rest, inner, method="inverted_cdf")
    return np.unique(np.concatenate([heavy, quantiles]))
