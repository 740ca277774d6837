"""Insertion: counts and sums are only ever added to, in place."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_together
from fsparse.lsh import SparseRows
from fsparse.sketch import _inputs, _ops
from fsparse.sketch._state import NWSketch

Array = jax.Array
AxisName: TypeAlias = str | Sequence[str]

MOST_COUNTS = 2.0**24  # beyond, float32 cannot add 1
LARGEST_UNIT = 2.0**20


def nw_update(
    sketch: NWSketch,
    x: Array | SparseRows,
    y: Array,
    labels: Array | None = None,
    *,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
) -> NWSketch:
    """Adds examples: ``w_i`` to a count and ``w_i y_i`` to sums, in a cell of each row.

    An example whose weight is 0 is masked out, whatever the rest of it is. One with a
    value that is NaN, infinite or beyond ``2**60``, with a weight that is negative, NaN
    or more than ``2**24``, with a negative label or a code out of range is ignored and
    counted in ``num_ignored``. Rows ``x`` that are not finite have the codes of a row
    of zeros, as in :func:`fsparse.lsh.codes`.

    Counts are exact as long as f32 can add 1 to them: when a slice and block would hold
    more than ``2**24`` units, all that was inserted before is halved first, and
    ``num_rescaled`` goes up by one. The past then counts half.

    Args:
      sketch: from :func:`nw_init`.
      x: rows as for :func:`fsparse.lsh.codes`, or their codes ``i32[b, R]``.
      y: ``f32[b]`` values, or ``f32[b, m]``.
      labels: ``i32[b]``; needed if there are slices.
      weights: ``f32[b]``, 1 by default.
      axis_name: inside ``shard_map`` or ``pmap``: the examples of all devices along
        this axis are gathered (as codes and values) and added on each, in order.
        So the sketches stay equal to each other, and to one of the whole batch.

    Returns:
      The sketch with the examples in it. It overwrites ``sketch``, if that is donated.
      Same bits for any number of threads.

    Raises:
      TypeError: if ``sketch`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, or labels are missing.

    No gradients: a sketch is a constant.

    Source: arXiv:2311.13583; slices, weights and units are our own.

    Example:
      >>> from fsparse import lsh
      >>> from fsparse.sketch import nw_init
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=4)
      >>> sketch = nw_update(nw_init(family), jnp.eye(3), jnp.arange(3.0))
      >>> sketch.totals.ravel().tolist()
      [3.0, 3.0]
    """
    fn = "nw_update"
    _checks.require_type(fn, NWSketch, sketch=sketch)
    codes = _inputs.codes_of(fn, sketch.family, x)
    labels = _inputs.labels_of(fn, labels, codes, sketch.num_slices)
    values = _inputs.values_of(fn, y, codes, sketch.num_outputs)
    weights = _inputs.weights_of(fn, weights, codes)
    batch = vary_together(*jax.lax.stop_gradient((codes, labels, values, weights)))
    if axis_name is not None:
        batch = tuple(_gathered(x, axis_name) for x in batch)
    return _add(jax.lax.stop_gradient(sketch), *batch)


def _gathered(x: Array, axis_name: AxisName) -> Array:
    """``[devices * b, ...]``, by a sum of zeros: every device knows it is the same."""
    here = jax.lax.axis_index(axis_name)
    size = jax.lax.axis_size(axis_name)
    of_all = jnp.zeros((size, *x.shape), x.dtype)
    of_all = jax.lax.psum(of_all.at[here].set(x), axis_name)
    return of_all.reshape(size * x.shape[0], *x.shape[1:])


def _add(
    sketch: NWSketch, codes: Array, labels: Array, values: Array, weights: Array
) -> NWSketch:
    is_fit = _inputs.is_fit(values, labels, weights)
    is_fit &= jnp.all(_inputs.valid(codes, sketch.family.num_buckets), axis=1)
    is_taken = is_fit & (weights != 0)
    added = _inputs.weighted(values, weights, is_taken)
    slices = labels % sketch.num_slices
    of_slices = jnp.zeros_like(sketch.totals[:, 0]).at[slices].add(added)
    past, is_halved = _factor(sketch, of_slices)
    unit = sketch.unit * past / jnp.where(is_halved, 0.5, 1)
    cells = _inputs.cells_of(sketch, codes, labels, is_taken)
    cells = cells * sketch.num_blocks + sketch.block
    return replace(
        sketch,
        table=_ops.update(cells, unit * added, past, sketch.table),
        totals=(past * sketch.totals).at[:, sketch.block].add(unit * of_slices),
        unit=unit,
        num_ignored=sketch.num_ignored
        + jnp.sum(~is_fit & (weights != 0), dtype=jnp.int32),
        num_rescaled=sketch.num_rescaled + is_halved.astype(jnp.int32),
    )


def _factor(sketch: NWSketch, of_slices: Array) -> tuple[Array, Array]:
    """What the past is multiplied by, a power of two; whether it counts half."""
    unit, new = sketch.unit, of_slices[:, 0]
    counts = sketch.totals[..., 0].at[:, sketch.block].add(unit * new)
    is_halved = jnp.max(counts) > MOST_COUNTS * unit
    _, exponent = jnp.frexp(unit)
    back = jnp.ldexp(jnp.float32(1), -exponent)
    back = jnp.where(unit > LARGEST_UNIT, back, 1)
    return back * jnp.where(is_halved, 0.5, 1), is_halved
