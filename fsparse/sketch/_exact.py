"""What a sketch estimates, by a sum over all examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse import _checks, lsh
from fsparse.lsh import Family, SparseRows
from fsparse.lsh._collision import require_rehashed
from fsparse.lsh._inputs import Rows, open_rows
from fsparse.sketch import _inputs
from fsparse.sketch._query import ratio

Array = jax.Array
_BLOCK_FLOATS = 2**22


class Examples(NamedTuple):
    """What is summed over."""

    x: Array | SparseRows
    labels: Array  # i32[n]
    values: Array  # f32[n, 1 + m], weights, and values times weights


def exact_nw(
    family: Family,
    x: Array | SparseRows,
    y: Array,
    queries: Array | SparseRows,
    labels: Array | None = None,
    query_labels: Array | None = None,
    *,
    prior: float = 1.0,
    weights: Array | None = None,
    rehash_correction: bool = False,
) -> Array:
    """The estimate of :func:`nw_query` with infinitely many rows: the oracle.

    With ``k`` of :func:`fsparse.lsh.collision_probability` over the examples of the
    query's label, and ``mu`` their mean drawn to the mean of all by ``prior`` counts::

        (sum_i k(x_i, q) w_i y_i + prior * mu) / (sum_i k(x_i, q) w_i + prior)

    Args:
      family: the kernel, of any number of tables.
      x: ``n`` rows as for :func:`fsparse.lsh.codes`.
      y: ``f32[n]`` or ``f32[n, m]`` values.
      queries: ``q`` rows likewise.
      labels: ``i32[n]``; each is a slice of its own.
      query_labels: ``i32[q]``; to be given if ``labels`` are.
      prior: pseudo-counts, at least 0.
      weights: ``f32[n]``, 1 by default.
      rehash_correction: leaves out the ``1 / W`` that rehashing adds to ``k``.

    Returns:
      ``f32[q]`` or ``f32[q, m]``. Examples that :func:`nw_update` would ignore are
      ignored, and a negative query label gives the mean of all.

    Raises:
      TypeError: if ``family`` is none, or a dtype differs from the above.
      ValueError: if the shapes disagree, or the family has no known kernel.

    A block of queries at a time; rows are made dense. Nothing aliases.

    Source: Nadaraya 1964; Watson 1964.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 3, num_tables=1, num_bits=4)
      >>> exact_nw(family, jnp.eye(3), jnp.arange(3.0), jnp.eye(3)[1:2])
      Array([1.], dtype=float32)
    """
    fn = "exact_nw"
    _checks.require_type(fn, Family, family=family)
    _checks.require_between(fn, 0, _inputs.LARGEST_WEIGHT, prior=prior)
    if rehash_correction:
        require_rehashed(fn, family)
    examples = _examples(fn, family, x, y, labels, weights)
    queries = open_rows(fn, family.dim, queries)
    asked = _query_labels(fn, query_labels, queries, labels is not None)

    def estimate(block: tuple[Rows, Array]) -> Array:
        rows, label = block
        is_same = (label[:, None] == examples.labels[None]).astype(jnp.float32)
        kernel = lsh.collision_probability(
            family, rows, examples.x, rehash=not rehash_correction
        )
        mean = _mean(_sums(is_same, examples), label, examples, float(prior))
        sums = _sums(is_same * kernel, examples)
        more = sums[:, 1:] - mean * sums[:, :1]
        return mean + ratio(more, sums[:, :1] + float(prior))

    out = _by_blocks(estimate, (queries, asked), len(examples.labels))
    return out if jnp.ndim(y) == 2 else out[:, 0]


def _examples(
    fn: str, family: Family, x: Any, y: Any, labels: Any, weights: Any
) -> Examples:
    x = open_rows(fn, family.dim, x)
    like = jax.tree.leaves(x)[0]
    (y,) = _checks.as_arrays(fn, y=y)
    num_outputs = y.shape[1] if y.ndim == 2 else None
    values = _inputs.values_of(fn, y, like, num_outputs)
    labels = _inputs.labels_of(fn, labels, like, 1)
    weights = _inputs.weights_of(fn, weights, like)
    is_taken = _inputs.is_fit(values, labels, weights)
    return Examples(x, labels, _inputs.weighted(values, weights, is_taken))


def _query_labels(fn: str, labels: Any, queries: Rows, wanted: bool) -> Array:
    if (labels is not None) != wanted:
        raise ValueError(
            f"{fn}: labels and query_labels must both be given or neither; got only "
            f"{'labels' if wanted else 'query_labels'}. Pass i32[q] as query_labels."
        )
    return _inputs.labels_of(fn, labels, jax.tree.leaves(queries)[0], 1)


def _sums(weights: Array, examples: Examples) -> Array:
    """``f32[q, 1 + m]`` of weights ``f32[q, n]``."""
    return jnp.matmul(weights, examples.values, precision="highest")


def _mean(own: Array, label: Array, examples: Examples, prior: float) -> Array:
    """``f32[q, m]``: of the query's slice, drawn to that of all."""
    every = jnp.sum(examples.values, axis=0, keepdims=True)
    of_all = ratio(every[:, 1:], every[:, :1])
    mean = of_all + ratio(own[:, 1:] - of_all * own[:, :1], own[:, :1] + prior)
    return jnp.where((label >= 0)[:, None], mean, of_all)


def _by_blocks(fn: Callable[[Any], Array], queries: Any, num_examples: int) -> Array:
    """``fn`` of some queries at a time, the last of them padded."""
    q = jax.tree.leaves(queries)[0].shape[0]
    size = max(1, min(q, _BLOCK_FLOATS // max(num_examples, 1)))
    blocks = -(-q // size)

    def cut(x: Array) -> Array:
        fill = [(0, blocks * size - q)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, fill).reshape(blocks, size, *x.shape[1:])

    out = jax.lax.map(fn, jax.tree.map(cut, queries))
    return out.reshape(blocks * size, *out.shape[2:])[:q]
