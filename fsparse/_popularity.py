"""Counts of rows as parts of ``2**32`` draws."""

import sys

import jax
import numpy as np

from fsparse import _checks

Array = jax.Array


def weights_of(fn: str, counts: Array, power: float, smoothing: float) -> np.ndarray:
    """``f64[n]``, positive where a row may be drawn."""
    most = sys.float_info.max
    _checks.require_between(fn, 0, most, power=power, smoothing=smoothing)
    try:
        known = np.asarray(counts)
    except jax.errors.TracerArrayConversionError as e:
        raise TypeError(
            f"{fn}: counts must be known at trace time; got a traced array. Make the "
            "sampler outside of jit."
        ) from e
    if known.dtype.kind not in "iuf":
        raise TypeError(f"{fn}: counts must be numbers; got dtype {known.dtype}.")
    _checks.require_rank(fn, 1, counts=known)
    if not (np.isfinite(known).all() and (known >= 0).all() and (known > 0).any()):
        raise ValueError(
            f"{fn}: counts must be finite and at least 0, and one of them positive; "
            f"got {known}."
        )
    known = known.astype(np.float64) + smoothing
    weights = (known / known.max()) ** power
    return np.where(known > 0, np.maximum(weights, np.finfo(np.float64).tiny), 0)


def widths_of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that may be drawn, and how many of ``2**32`` draws have each: at least 1."""
    rows = np.flatnonzero(weights).astype(np.int32)
    share = np.cumsum(weights[rows])
    ends = np.floor((2.0**32 - len(rows)) * (share / share[-1])).astype(np.int64)
    return rows, np.diff(ends, prepend=0) + 1
