"""Examples for a sketch, brought to cells and numbers that can be added up."""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks, lsh
from fsparse.lsh import Family
from fsparse.reference import valid
from fsparse.sketch._state import NWSketch

Array = jax.Array

# Bounds that keep every sum finite: 2**24 counts of 2**60 each, in units below 2**21.
LARGEST_VALUE, LARGEST_WEIGHT = 2.0**60, 2.0**24


def codes_of(fn: str, family: Family, x: Any) -> Array:
    """``i32[b, R]``: codes of rows, or as they are given."""
    if getattr(x, "dtype", None) != jnp.int32:
        return lsh.codes(family, x)
    (codes,) = _checks.as_arrays(fn, x=x)
    _checks.require(
        fn,
        codes.ndim == 2 and codes.shape[1] == family.num_tables,
        f"x must be rows, or codes i32[b, {family.num_tables}]",
        x=codes,
    )
    return codes


def labels_of(fn: str, labels: Any, like: Array, num_slices: int) -> Array:
    """``i32[b]``; of a sketch with one slice, labels may be left out."""
    if labels is None:
        if num_slices > 1:
            raise ValueError(
                f"{fn}: labels must be given, since the sketch has {num_slices} "
                "slices; got None. Pass i32[b]."
            )
        return jnp.zeros(like.shape[0], jnp.int32)
    (labels,) = _checks.as_arrays(fn, labels=labels)
    _checks.require_ids(fn, labels=labels)
    _require_one_each(fn, labels=labels, x=like)
    return labels


def values_of(fn: str, y: Any, like: Array, num_outputs: int | None) -> Array:
    """``f32[b, m]``."""
    (y,) = _checks.as_arrays(fn, y=y)
    _checks.require_f32(fn, y=y)
    shape = like.shape[:1] if num_outputs is None else (like.shape[0], num_outputs)
    _checks.require(fn, y.shape == shape, f"y must be of shape {shape}", y=y, x=like)
    return y.reshape(like.shape[0], -1 if like.shape[0] else (num_outputs or 1))


def weights_of(fn: str, weights: Any, like: Array) -> Array:
    """``f32[b]``, 1 by default."""
    if weights is None:
        return jnp.ones(like.shape[0], jnp.float32)
    (weights,) = _checks.as_arrays(fn, weights=weights)
    _checks.require_f32(fn, weights=weights)
    _require_one_each(fn, weights=weights, x=like)
    return weights


def _require_one_each(fn: str, **arrays: Array) -> None:
    (name, one), (_, like) = arrays.items()
    _checks.require(
        fn,
        one.shape == like.shape[:1],
        f"{name} must have one for each example",
        **arrays,
    )


def is_fit(values: Array, labels: Array, weights: Array) -> Array:
    """``bool[b]``: what may be added. NaN is in no interval."""
    has_values = jnp.all(jnp.abs(values) <= LARGEST_VALUE, axis=1)
    return has_values & (labels >= 0) & (weights >= 0) & (weights <= LARGEST_WEIGHT)


def weighted(values: Array, weights: Array, is_taken: Array) -> Array:
    """``f32[b, 1 + m]``: weights, and values times weights; zeros if not taken."""
    both = jnp.concatenate([jnp.ones_like(values[:, :1]), values], axis=1)
    return jnp.where(is_taken[:, None], both * weights[:, None], 0)


def cells_of(sketch: NWSketch, codes: Array, labels: Array, is_taken: Array) -> Array:
    """``i32[b, R]``: a cell for each slice and code, or one that does not exist."""
    num_buckets = sketch.family.num_buckets
    is_cell = is_taken[:, None] & valid(codes, num_buckets)
    cell = codes * sketch.num_slices + (labels % sketch.num_slices)[:, None]
    return jnp.where(is_cell, cell, num_buckets * sketch.num_slices)
