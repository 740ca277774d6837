"""The ops on the table of a sketch, for one sketch."""

import jax

from fsparse._call import vary_together
from fsparse.sketch import _reference

Array = jax.Array


def update(cells: Array, values: Array, factor: Array, table: Array) -> Array:
    """``f32[R, n, 1 + m]``, in place: see `_reference.update`."""
    operands = vary_together(cells, values, factor, table)
    return _reference.update(*(x[None] for x in operands))[0][0]


def query(
    cells: Array, centre: Array, table: Array, num_groups: int
) -> tuple[Array, Array]:
    """Sums over groups of rows, and moments over rows: see `_reference.query`."""
    operands = (x[None] for x in vary_together(cells, centre, table))
    sums, moments = _reference.query(*operands, num_groups=num_groups)
    return sums[0], moments[0]
