"""The estimate at a row, and how far off it is likely to be."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.lsh import SparseRows
from fsparse.lsh._collision import require_rehashed
from fsparse.sketch import _inputs, _ops
from fsparse.sketch._state import NWSketch

Array = jax.Array


class Estimate(NamedTuple):
    """What :func:`nw_query` knows of each row.

    NaN only of a sketch that was merged with other hash functions, or decayed by NaN.
    """

    mean: Array  # f32[b] or f32[b, m], of values near it
    stderr: Array  # likewise, of mean as an estimate of the exact kernel regression
    # f32[b], of examples near it, a recent one of weight 1 being 1
    count: Array  # type: ignore[assignment]
    density: Array  # f32[b], count as a share of all in the slice


class Prior(NamedTuple):
    """What a row is taken to be before its cells are looked at."""

    mean: Array  # f32[b, m]
    number: Array  # f32[b], of all in its slice
    excess: Array  # f32[b, m], their sums beyond number * mean


def nw_query(
    sketch: NWSketch,
    x: Array | SparseRows,
    labels: Array | None = None,
    *,
    prior: float = 1.0,
    num_groups: int = 1,
    rehash_correction: bool = False,
) -> Estimate:
    """The kernel regression of the values at each row.

    With ``C`` and ``S`` the means over rows of the counts and sums in its cells::

        mean = (S + prior * mu) / (C + prior)

    where ``mu`` is the mean of its slice, itself drawn to the mean of all by ``prior``
    counts. A ratio of means has a bias of ``O(1 / R)``; a mean of ratios would keep
    one. Where nothing is known, ``mean`` is ``mu``; of an empty sketch it is 0.

    Args:
      sketch: from :func:`nw_update`.
      x: rows as for :func:`fsparse.lsh.codes`, or their codes ``i32[b, R]``.
      labels: ``i32[b]``; needed if there are slices. A negative one is in no slice: its
        estimate is the mean of all.
      prior: pseudo-counts, at least 0, in units of recent examples.
      num_groups: if more than 1, rows are split evenly into so many groups, and the
        median of the groups' estimates is taken: its chance of a large error falls
        exponentially in the number of groups, at the cost of up to 25 % more error.
      rehash_correction: for families whose buckets are a rehash (``l2``, ``minhash``):
        takes out what others are expected to leave in a cell by chance, ``C' = max((W C
        - n) / (W - 1), 0)`` for ``W`` buckets and ``n`` examples, and sums alike.

    Returns:
      An :class:`Estimate`. ``stderr`` is from the spread between rows of the
      linearised error ``(s_r - mean * c_r) / (C + prior)``: of the hash functions, not
      of values; infinite if there is but one row, and 0 where all rows agree, also on
      nothing: ``count`` tells how much is known. ``density`` is the estimate of RACE.
      Where ``minhash`` has more bins than a set has members, bins borrow from each
      other and rows are alike: errors are larger then, and ``stderr`` does not see it.

    Raises:
      TypeError: if ``sketch`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, labels are missing, ``prior`` is negative, the
        groups do not divide the rows, or a family without rehash is to be corrected.

    No gradients: a sketch is a constant. Nothing aliases.

    Source: arXiv:2311.13583 (ratio of means); RACE (WWW 2020), section 4 (medians).

    Example:
      >>> from fsparse import lsh
      >>> from fsparse.sketch import nw_init, nw_update
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=4)
      >>> sketch = nw_update(nw_init(family), jnp.eye(3), jnp.arange(3.0))
      >>> estimate = nw_query(sketch, jnp.eye(3), prior=0.0)
      >>> bool(estimate.mean[0] < estimate.mean[1] < estimate.mean[2])
      True
    """
    fn = "nw_query"
    _checks.require_type(fn, NWSketch, sketch=sketch)
    _checks.require_between(fn, 0, _inputs.LARGEST_WEIGHT, prior=prior)
    _require_groups(fn, sketch.family.num_tables, num_groups)
    if rehash_correction:
        require_rehashed(fn, sketch.family)
    codes = _inputs.codes_of(fn, sketch.family, x)
    labels = _inputs.labels_of(fn, labels, codes, sketch.num_slices)
    sketch, codes = jax.lax.stop_gradient((sketch, codes))
    before = _prior(sketch, labels, float(prior))
    shape = *sketch.table.shape[:1], -1, sketch.num_blocks, sketch.table.shape[2]
    cells = _inputs.cells_of(sketch, codes, labels, labels >= 0)
    sums, moments = _ops.query(
        cells, before.mean, sketch.table.reshape(shape), int(num_groups)
    )
    num_others = sketch.family.num_buckets - 1 if rehash_correction else math.inf
    estimate = _estimate(sketch, sums, moments, before, float(prior), num_others)
    if sketch.num_outputs is None:
        return estimate._replace(mean=estimate.mean[:, 0], stderr=estimate.stderr[:, 0])
    return estimate


def _require_groups(fn: str, num_rows: int, num_groups: int) -> None:
    _checks.require_count(fn, 1, num_groups=num_groups)
    if num_rows % num_groups:
        raise ValueError(
            f"{fn}: num_groups must divide the rows of the sketch; got {num_groups} "
            f"for {num_rows} rows. Choose a divisor."
        )


def _prior(sketch: NWSketch, labels: Array, prior: float) -> Prior:
    """Of the slice of each row; of all, for a row in none."""
    slices = jnp.sum(sketch.totals, axis=1) / sketch.unit
    every = jnp.sum(slices, axis=0, keepdims=True)
    mean_of_all = ratio(every[:, 1:], every[:, :1])
    means = ratio(slices[:, 1:] + prior * mean_of_all, slices[:, :1] + prior)
    means = jnp.where(slices[:, :1] + prior <= 0, mean_of_all, means)
    of_slice = labels % sketch.num_slices
    mean = jnp.where((labels >= 0)[:, None], means[of_slice], mean_of_all)
    own = slices[of_slice]
    return Prior(mean, own[:, 0], own[:, 1:] - mean * own[:, :1])


def ratio(a: Array, b: Array) -> Array:
    """``a / b``, and 0 where ``b <= 0``; NaN stays NaN."""
    return jnp.where(b <= 0, 0, a / jnp.where(b <= 0, 1, b))


def _estimate(
    sketch: NWSketch,
    sums: Array,
    moments: Array,
    before: Prior,
    prior: float,
    num_others: float,
) -> Estimate:
    """From sums ``f32[b, g, 1 + m]`` of groups, and moments ``f32[b, 1 + 2 m]``.

    Without correction, ``num_others`` is infinite: nothing is taken out.
    """
    r, groups = sketch.table.shape[0], sums.shape[1]
    scale = (1 + 1 / num_others) / sketch.unit

    def corrected(means: Array, axes: int) -> tuple[Array, Array]:
        """Counts ``[..., 1]``, and sums beyond ``mean`` times them."""
        wide = lambda x: x.reshape(x.shape[0], *[1] * (axes - 2), -1)  # noqa: E731
        count = scale * means[..., :1] - wide(before.number) / num_others
        more = scale * means[..., 1:] - wide(before.excess) / num_others
        return jnp.maximum(count, 0), jnp.where(count <= 0, 0, more)

    count, more = corrected(sums * (groups / r), 3)
    shifts = ratio(more, count + prior)
    shift = shifts[:, 0] if groups == 1 else jnp.median(shifts, axis=1)
    count, _ = corrected(jnp.sum(sums, axis=1) / r, 2)
    spread = _spread(moments, shift) * scale * _loss_of_median(groups)
    stderr = (
        ratio(spread / math.sqrt(r * (r - 1)), count + prior)
        if r > 1
        else (jnp.full_like(shift, jnp.inf))
    )
    density = ratio(count[:, 0], before.number)
    return Estimate(before.mean + shift, stderr, count[:, 0], density)


def _spread(moments: Array, shift: Array) -> Array:
    """The root of ``sum_r (dt_r - shift dc_r)**2``, of deviations from their means."""
    m = shift.shape[1]
    cc, ct, tt = jnp.split(moments, (1, 1 + m), axis=1)
    return jnp.sqrt(jnp.maximum(tt - shift * (2 * ct - shift * cc), 0))


def _loss_of_median(n: int) -> float:
    """Its standard deviation, a mean of as many having 1, if they are Gaussian."""
    return math.sqrt(math.pi / 2 / (1 + (math.pi / 2 - 1) / n)) if n > 2 else 1.0
