"""The pure-JAX twins of the ops on sketches: specification, oracle, fallback.

``g`` counts sketches that know nothing of each other, each of ``R`` rows; ``b`` the
examples that fall into them.
"""

import jax
import jax.numpy as jnp

from fsparse.reference import valid

Array = jax.Array


def update(cells: Array, values: Array, factor: Array, table: Array) -> tuple[Array]:
    """``factor table``, with ``values[e]`` added in cell ``cells[e, r]`` of row ``r``.

    The rows of all sketches follow each other.

    Args:
      cells: ``i32[g, b, R]``; one outside ``[0, n)`` adds nothing.
      values: ``f32[g, b, 1 + m]``.
      factor: ``f32[g]``.
      table: ``f32[g R, n, 1 + m]``.
    """
    g, _, r = cells.shape
    scaled = table.reshape(g, r, *table.shape[1:]) * factor[:, None, None, None]
    each = values[:, :, None, :]
    added = scaled.at[_places(cells, table.shape[1])].add(each, mode="drop")
    return (added.reshape(table.shape),)


def query(
    cells: Array, centre: Array, table: Array, *, num_groups: int
) -> tuple[Array, Array]:
    """What the rows of a sketch hold at each example, summed in two ways.

    A row holds ``c``, a count, and ``t = s - centre c``, of a sum ``s`` of values: of
    all blocks of its cell together.

    Args:
      cells: ``i32[g, b, R]``; one outside ``[0, n)`` holds zeros.
      centre: ``f32[g, b, m]``.
      table: ``f32[g, R, n, blocks, 1 + m]``.
      num_groups: of rows that follow each other; divides ``R``.

    Returns:
      ``sums``: ``f32[g, b, num_groups, 1 + m]``, ``(c, t)`` summed over each group.
      ``moments``: ``f32[g, b, 1 + 2 m]``, summed over all rows: the squares of ``c``,
      the products of ``c`` and ``t``, and the squares of ``t``, of the deviations from
      their means over rows.
    """
    g, b, r = cells.shape
    places = _places(cells, table.shape[2])
    held = table.at[places].get(mode="fill", fill_value=0).sum(axis=3)
    count = held[..., :1]
    rows = jnp.concatenate([count, held[..., 1:] - centre[:, :, None] * count], axis=3)
    sums = rows.reshape(g, b, num_groups, r // num_groups, rows.shape[3]).sum(axis=3)
    off = rows - rows.mean(axis=2, keepdims=True)
    dc, dt = off[..., :1], off[..., 1:]
    products = jnp.concatenate([dc * dc, dc * dt, dt * dt], axis=3)
    return sums, products.sum(axis=2)


def _places(cells: Array, num_cells: int) -> tuple[Array, Array, Array]:
    """Indices of ``[g, b, R]`` cells; what is none lies beyond the last."""
    g, _, r = cells.shape
    cell = jnp.where(valid(cells, num_cells), cells, num_cells)
    of_sketch = jnp.arange(g, dtype=jnp.int32)[:, None, None]
    return of_sketch, jnp.arange(r, dtype=jnp.int32)[None, None, :], cell
