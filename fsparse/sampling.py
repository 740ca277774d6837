"""Which neurons of a wide layer a batch computes.

The active set is shared by the batch: all labels of its examples, so that each label is
also a negative of the other examples, and uniform negatives. Ids are distinct and
rising: rows are read in memory order, and no row is its own negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.reference import valid

Array = jax.Array


class ActiveSet(NamedTuple):
    """Active rows of a table of ``n`` rows, shared by a batch."""

    ids: Array  # i32[m], distinct and rising, then padding n
    targets: Array  # i32[b, l], where each label stands in ids; m for padding


def shared_active_set(
    key: Array, labels: Array, *, num_rows: int, num_negatives: int
) -> ActiveSet:
    """The labels of a batch and uniform negatives, as one set of rows.

    Args:
      key: PRNG key for the negatives.
      labels: ``i32[b, l]``; ids outside ``[0, num_rows)`` are padding.
      num_rows: ``n``, rows of the table.
      num_negatives: draws, with replacement, from ``[0, n)``. Draws that repeat, or
        that hit a label, leave padding behind.

    Returns:
      An :class:`ActiveSet` with ``m = b * l + num_negatives``: room for every label.

    Raises:
      TypeError: if ``labels`` are not int32.
      ValueError: if ``labels`` has not two axes, ``num_rows < 1`` or
        ``num_negatives < 0``.

    Nothing aliases, and ids have no gradients. Costs one sort of ``m`` ids.

    Example:
      >>> import jax
      >>> labels = jnp.array([[7, 2], [2, 10]])  # 10 is padding
      >>> key = jax.random.key(0)
      >>> shared_active_set(key, labels, num_rows=10, num_negatives=0)
      ActiveSet(ids=Array([ 2,  7, 10, 10], dtype=int32), targets=Array([[1, 0],
             [0, 4]], dtype=int32))
    """
    fn = "shared_active_set"
    (labels,) = _checks.as_arrays(fn, labels=labels)
    _checks.require_ids(fn, labels=labels)
    _checks.require_rank(fn, 2, labels=labels)
    _checks.require_count(fn, 1, num_rows=num_rows)
    _checks.require_count(fn, 0, num_negatives=num_negatives)
    _checks.require_rows_fit(fn, num_rows)
    is_label = valid(labels, num_rows)
    labels = jnp.where(is_label, labels, num_rows)
    negatives = jax.random.randint(key, (num_negatives,), 0, num_rows, jnp.int32)
    candidates = jnp.concatenate([labels.ravel(), negatives])
    ids = jnp.unique(candidates, size=candidates.size, fill_value=num_rows)
    targets = jnp.searchsorted(ids, labels).astype(jnp.int32)
    return ActiveSet(ids, jnp.where(is_label, targets, ids.size))
