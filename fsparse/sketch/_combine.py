"""Forgetting and merging: sketches are sums, so both are arithmetic on whole tables."""

from dataclasses import replace
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.sketch._state import NWSketch
from fsparse.sketch._update import AxisName

Array = jax.Array

SMALLEST_DECAY = 2.0**-100


def nw_decay(sketch: NWSketch, gamma: float | Array) -> NWSketch:
    """Lets all that was inserted count ``gamma`` times as much as it does.

    No cell is touched: from here on a new example counts ``1 / gamma`` times as much,
    and :func:`nw_update` brings the table back to a small unit when that grows large.

    Args:
      sketch: from :func:`nw_init`.
      gamma: in ``(0, 1]``; a traced one is brought to ``[2**-100, 1]``, and NaN makes
        every later estimate NaN.

    Returns:
      The sketch, sharing every array but one number.

    Raises:
      TypeError: if ``sketch`` is none, or ``gamma`` no number.
      ValueError: if ``gamma`` is not in ``(0, 1]``.

    Example:
      >>> from fsparse import lsh
      >>> from fsparse.sketch import nw_init, nw_query, nw_update
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=4)
      >>> sketch = nw_update(nw_init(family), jnp.eye(3), jnp.arange(3.0))
      >>> nw_query(nw_decay(sketch, 0.5), jnp.eye(3)[:1]).count < 1
      Array([ True], dtype=bool)
    """
    fn = "nw_decay"
    _checks.require_type(fn, NWSketch, sketch=sketch)
    if isinstance(gamma, Real) and not 0 < float(gamma) <= 1:
        raise ValueError(f"{fn}: gamma must be in (0, 1]; got {gamma}.")
    (gamma,) = _checks.as_arrays(fn, gamma=gamma)
    _checks.require_rank(fn, 0, gamma=gamma)
    gamma = jnp.clip(gamma.astype(jnp.float32), SMALLEST_DECAY, 1)
    return replace(sketch, unit=jnp.minimum(sketch.unit / gamma, 1 / SMALLEST_DECAY))


def nw_rotate(sketch: NWSketch) -> NWSketch:
    """Moves on to the next block of the ring, and empties it.

    What was inserted since ``num_blocks`` rotations ago is known to the sketch: a
    window that slides by whole blocks. With one block, everything is forgotten.

    Args:
      sketch: from :func:`nw_init`.

    Returns:
      The sketch.

    Raises:
      TypeError: if ``sketch`` is none.

    Example:
      >>> from fsparse import lsh
      >>> from fsparse.sketch import nw_init, nw_query, nw_update
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=4)
      >>> sketch = nw_update(nw_init(family), jnp.eye(3), jnp.arange(3.0))
      >>> nw_rotate(sketch).totals.ravel().tolist()
      [0.0, 0.0]
    """
    _checks.require_type("nw_rotate", NWSketch, sketch=sketch)
    block = (sketch.block + 1) % sketch.num_blocks
    table = _by_block(sketch).at[:, :, block].set(0)
    return replace(
        sketch,
        table=table.reshape(sketch.table.shape),
        totals=sketch.totals.at[:, block].set(0),
        block=block,
    )


def _by_block(sketch: NWSketch) -> Array:
    """``f32[R, W * num_slices, num_blocks, 1 + m]``."""
    r, _, width = sketch.table.shape
    return sketch.table.reshape(r, -1, sketch.num_blocks, width)


def nw_merge(a: NWSketch, b: NWSketch) -> NWSketch:
    """The sketch of the examples of both.

    Counts are brought to one unit, blocks of a ring to one age: the newest to the
    newest.

    Args:
      a: a sketch.
      b: another, with the same hash functions.

    Returns:
      A sketch in the smaller of both units; ``num_ignored`` and ``num_rescaled`` are
      sums. If hash functions turn out to differ only when the program runs, under
      ``jit``, its cells are NaN, and so is every estimate.

    Raises:
      TypeError: if one is no sketch.
      ValueError: if sizes differ, or the hash functions do.

    Nothing aliases.

    Example:
      >>> from fsparse import lsh
      >>> from fsparse.sketch import nw_init, nw_query, nw_update
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=4)
      >>> sketch = nw_update(nw_init(family), jnp.eye(3), jnp.arange(3.0))
      >>> nw_merge(sketch, sketch).totals.ravel().tolist()
      [6.0, 6.0]
    """
    fn = "nw_merge"
    _checks.require_type(fn, NWSketch, a=a, b=b)
    _require_same_sizes(fn, a, b)
    is_same = _same_family(fn, a, b)
    unit = jnp.minimum(a.unit, b.unit)
    a, b = _scaled(a, unit), _scaled(_turned(b, a.block), unit)
    table = a.table + b.table
    return replace(
        a,
        table=table if is_same is None else jnp.where(is_same, table, jnp.nan),
        totals=a.totals + b.totals,
        num_ignored=a.num_ignored + b.num_ignored,
        num_rescaled=a.num_rescaled + b.num_rescaled,
    )


def nw_psum(sketch: NWSketch, axis_name: AxisName) -> NWSketch:
    """The merge of the sketches of all devices, each of which began empty.

    Inside ``shard_map`` or ``pmap``. A sketch that is already the sum must not be
    summed again: keep the new examples of each device in a sketch of their own.

    Args:
      sketch: of this device, with the same hash functions as on the others.
      axis_name: the axis of the devices.

    Returns:
      A sketch that all devices have in common, as :func:`nw_merge` of all of them.

    Raises:
      TypeError: if ``sketch`` is none.

    Example:
      >>> from functools import partial
      >>> from fsparse import lsh
      >>> from fsparse.sketch import nw_init, nw_query, nw_update
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=8, num_bits=4)
      >>> add = lambda x, y: nw_psum(nw_update(nw_init(family), x, y), "i")
      >>> x, y = jnp.eye(3)[:, None], jnp.arange(3.0)[:, None]
      >>> jax.vmap(add, axis_name="i", out_axes=None)(x, y).totals.ravel().tolist()
      [3.0, 3.0]
    """
    _checks.require_type("nw_psum", NWSketch, sketch=sketch)
    total = lambda x: jax.lax.psum(x, axis_name)  # noqa: E731
    block = jax.lax.pmax(sketch.block, axis_name)
    unit = jax.lax.pmin(sketch.unit, axis_name)
    sketch = _scaled(_turned(sketch, block), unit)
    return replace(
        sketch,
        table=total(sketch.table),
        totals=total(sketch.totals),
        num_ignored=total(sketch.num_ignored),
        num_rescaled=total(sketch.num_rescaled),
    )


def _scaled(sketch: NWSketch, unit: Array) -> NWSketch:
    """In a unit that is no larger."""
    factor = unit / sketch.unit
    table, totals = factor * sketch.table, factor * sketch.totals
    return replace(sketch, table=table, totals=totals, unit=unit)


def _turned(sketch: NWSketch, block: Array) -> NWSketch:
    """The ring turned so that new examples go to ``block``."""
    if sketch.num_blocks == 1:
        return replace(sketch, block=block)
    by = block - sketch.block
    table = jnp.roll(_by_block(sketch), by, axis=2).reshape(sketch.table.shape)
    return replace(
        sketch, table=table, totals=jnp.roll(sketch.totals, by, axis=1), block=block
    )


# ---- what can be merged -------------------------------------------------------------


def _require_same_sizes(fn: str, a: NWSketch, b: NWSketch) -> None:
    def types(sketch: NWSketch) -> Any:
        return jax.tree.structure(sketch), [x.shape for x in jax.tree.leaves(sketch)]

    if types(a) != types(b):
        raise ValueError(
            f"{fn}: sketches must have one size and kind of family; got "
            f"{_described(a)} and {_described(b)}. Make both by nw_init alike."
        )


def _described(sketch: NWSketch) -> str:
    family = sketch.family
    return (
        f"{type(family).__name__}(dim={family.dim}, num_tables={family.num_tables}, "
        f"num_buckets={family.num_buckets}), num_outputs={sketch.num_outputs}, "
        f"num_slices={sketch.num_slices}, num_blocks={sketch.num_blocks}"
    )


def _same_family(fn: str, a: NWSketch, b: NWSketch) -> Array | None:
    """None for certainly; raises if certainly not."""
    leaves = zip(jax.tree.leaves(a.family), jax.tree.leaves(b.family), strict=True)
    equal = [jnp.all(x == y) for x, y in leaves if x is not y]
    if not equal:
        return None
    is_same = jnp.all(jnp.stack(equal))
    if isinstance(is_same, jax.core.Tracer):
        return is_same
    if not is_same:
        raise ValueError(
            f"{fn}: sketches must share their hash functions; got two families "
            f"{type(a.family).__name__} of different random choices. Pass one family "
            "to nw_init for both."
        )
    return None
