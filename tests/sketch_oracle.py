"""A sketch in plain numpy and float64: every example is kept, with its weight."""

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """All that a sketch saw."""

    codes: np.ndarray  # [n, R]
    slices: np.ndarray  # [n]
    y: np.ndarray  # [n, m]
    weights: np.ndarray  # [n]


def by_codes(kept, codes, slices, *, prior=1.0, groups=1, num_buckets=None):
    """``(mean, count, density)`` of the definition; ``num_buckets``: correct rehash."""
    return tuple(
        np.stack(each)
        for each in zip(
            *[
                _estimate(kept, code, of, prior, groups, num_buckets)
                for code, of in zip(codes, slices, strict=True)
            ],
            strict=True,
        )
    )


def _estimate(kept, code, of, prior, groups, num_buckets):
    w, y = kept.weights.astype(np.float64), kept.y.astype(np.float64)
    own = (kept.slices == of) & (of >= 0)
    mean = _ratio(w @ y, w.sum())
    n, total = (w * own).sum(), (w * own) @ y
    if of >= 0:
        mean = _ratio(total + prior * mean, n + prior, mean)
    meets = (kept.codes == code) & own[:, None]
    counts, sums = (meets.T * w).sum(1), (meets.T * w) @ y
    ratios = []
    for rows in np.split(np.arange(len(code)), groups):
        c, s = _corrected(
            counts[rows].mean(), sums[rows].mean(0), n, total, num_buckets
        )
        ratios.append(_ratio(s + prior * mean, c + prior, mean))
    count, _ = _corrected(counts.mean(), sums.mean(0), n, total, num_buckets)
    return np.median(ratios, axis=0), count, _ratio(count, n)


def _corrected(count, sums, n, total, num_buckets):
    if num_buckets is None:
        return count, sums
    count = (num_buckets * count - n) / (num_buckets - 1)
    sums = (num_buckets * sums - total) / (num_buckets - 1)
    return (count, sums) if count > 0 else (0.0, np.zeros_like(sums))


def _ratio(a, b, otherwise=0.0):
    return a / b if b > 0 else np.zeros_like(a) + otherwise
