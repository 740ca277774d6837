"""What a sampler may look at, and how it opens it."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from fsparse import _checks
from fsparse.table import Table

Array = jax.Array


class Query(NamedTuple):
    """A batch at a wide layer. Most samplers need no more of it than the labels."""

    labels: Array  # i32[b, l]; ids outside [0, n) are padding
    x: Array | None = None  # f32[b, d], inputs of the layer
    table: Array | Table | None = None  # f32[n, d] or bf16[n, d], its rows


def shape_of_sample(
    fn: str, query: Query, size: int, per_example: bool, num_rows: int | None = None
) -> tuple[int, ...]:
    """``(size,)`` or ``(b, size)``, once the labels and the table are checked."""
    _checks.require_type(fn, Query, query=query)
    _checks.require_count(fn, 1, size=size)
    (labels,) = _checks.as_arrays(fn, labels=query.labels)
    _checks.require_ids(fn, labels=labels)
    _checks.require_rank(fn, 2, labels=labels)
    if num_rows is not None and query.table is not None:
        (table,) = _checks.as_arrays(fn, table=query.table)
        _checks.require(
            fn,
            table.shape[:1] == (num_rows,),
            f"table must have the {num_rows} rows that the sampler was made for",
            table=table,
        )
    return (labels.shape[0], size) if per_example else (size,)


def labels_of(fn: str, query: Query) -> tuple[Array, int]:
    """The labels, and the number of rows of the table."""
    (labels,) = _checks.as_arrays(fn, labels=query.labels)
    return labels, num_rows_of_table(fn, query)


def inputs_of(fn: str, query: Query) -> tuple[Array, Array]:
    """``x`` and the table, as constants: nobody learns from where a sampler looked."""
    num_rows_of_table(fn, query)
    if query.x is None:
        raise ValueError(
            f"{fn}: query.x must be given; got None. Pass Query(labels, x, table)."
        )
    x, table, labels = _checks.as_arrays(
        fn, x=query.x, table=query.table, labels=query.labels
    )
    _checks.require(
        fn,
        x.shape[:1] == labels.shape[:1],
        "x and labels must have a row for each example",
        x=x,
        labels=labels,
    )
    return jax.lax.stop_gradient(x), jax.lax.stop_gradient(table)


def num_rows_of_table(fn: str, query: Query) -> int:
    """``n``, where only the table says it."""
    if query.table is None:
        raise ValueError(
            f"{fn}: query.table must be given, since it has the rows; got None. Pass "
            "Query(labels, table=table)."
        )
    return query.table.shape[0]


def known_rows(fn: str, num_rows: int) -> int:
    """``n``, where the sampler is made for it."""
    _checks.require_count(fn, 1, num_rows=num_rows)
    _checks.require_rows_fit(fn, num_rows)
    return int(num_rows)


def ids_of(fn: str, ids: Array, size: int) -> Array:
    """The ids whose ``log_q`` is asked for."""
    (ids,) = _checks.as_arrays(fn, ids=ids)
    _checks.require_ids(fn, ids=ids)
    _checks.require_count(fn, 1, size=size)
    return ids


def unknown_log_q(fn: str) -> Callable[[Array, int], Array]:
    """The ``log_q`` of a sampler that has none."""

    def log_q(ids: Array, size: int) -> Array:
        raise ValueError(
            f"{fn}: log_q must come from a sampler of known probabilities; got {fn}. "
            "Such are uniform, popularity, and mix of these; or leave the logits as "
            "they are."
        )

    return log_q
