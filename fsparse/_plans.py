"""Ways to train a wide layer, as values that can be compared."""

from typing import NamedTuple

from fsparse import _checks
from fsparse._bolt import bolt_autotune
from fsparse.lsh._default import default_bits, tables_that_fit

SCOPES = "dense", "shared", "per_example"
_MOST_SHARED = 2  # of the rows one in so many: beyond, a product with all is as fast
_MOST_PER_EXAMPLE = 50  # rows read one by one cost more than rows in order


class Plan(NamedTuple):
    """A way to train a wide layer. ``Plan()`` is the softmax over all rows.

    The user's own training function reads it; nothing else does. Fields that a sampler
    has no use for are 0.
    """

    scope: str = "dense"  # or "shared" by the batch, or "per_example"
    sampler: str = ""  # of negatives: "uniform", "lsh", "mix" of both, or any other
    size: int = 0  # rows of an active set, labels among them
    num_tables: int = 0  # of the index
    num_bits: int = 0  # of its codes
    refresh_every: int = 0  # steps between refreshes of the rows that have moved

    def __str__(self) -> str:
        parts = [self.scope, self.sampler, f"{self.size:,} rows" if self.size else ""]
        if self.num_tables:
            parts.append(f"{self.num_tables} x {self.num_bits} bits")
        if self.refresh_every:
            parts.append(f"every {self.refresh_every} steps")
        return ", ".join(filter(None, parts))


def default_plans(num_rows: int, dim: int, batch_size: int) -> list[Plan]:
    """A few plans that differ in what matters: scope, sampler, and rows computed.

    The dense layer first; sets of 4 and 16 rows for each example, shared by the batch,
    of uniform rows and of those mixed with hard ones from an index, and the smaller
    set of hard ones alone; and for each example the rows that :func:`bolt_autotune`
    counts, hard and mixed. A shared set has at most half of the rows, those of each
    example at most a fiftieth: with more, the dense layer is as fast.

    Args:
      num_rows: ``n``, rows of the table.
      dim: width of a row.
      batch_size: examples of a step.

    Returns:
      At most 8 plans. Indexes are of the sizes of :func:`fsparse.lsh.default_family`,
      and are refreshed so seldom that hashing the rows of a shared set takes at most an
      eighth of the arithmetic of the steps between.

    Raises:
      TypeError: if an argument is no integer.
      ValueError: if one is less than 1, or there are more rows than ids.

    Example:
      >>> plans = default_plans(218_590, 128, batch_size=512)
      >>> print(*plans[:3], sep="; ")
      dense; shared, uniform, 2,048 rows; shared, uniform, 8,192 rows
    """
    fn = "default_plans"
    _checks.require_count(fn, 1, num_rows=num_rows, dim=dim, batch_size=batch_size)
    _checks.require_rows_fit(fn, num_rows)
    small, large = 4 * batch_size, 16 * batch_size
    index = _index(num_rows, dim, batch_size)
    each = bolt_autotune(num_rows, dim).num_active
    plans = [
        Plan("shared", "uniform", small),
        Plan("shared", "uniform", large),
        Plan("shared", "mix", small, *index),
        Plan("shared", "mix", large, *index),
        Plan("shared", "lsh", small, *index),
        Plan("per_example", "mix", each, *index),
        Plan("per_example", "lsh", each, *index),
    ]
    parts = {"shared": _MOST_SHARED, "per_example": _MOST_PER_EXAMPLE}
    return [Plan(), *(p for p in plans if parts[p.scope] * p.size <= num_rows)]


def _index(num_rows: int, dim: int, batch_size: int) -> tuple[int, int, int]:
    """Tables, bits, and steps between refreshes.

    A row of a set is hashed by ``num_tables * num_bits`` products, and trained by three
    for each example: forward, and both gradients.
    """
    num_bits = default_bits(num_rows)
    num_tables = tables_that_fit(num_rows, dim, num_bits)
    return num_tables, num_bits, -(-8 * num_tables * num_bits // (3 * batch_size))
