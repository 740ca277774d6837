"""Products with a few rows of a wide table.

Three ops, each the transpose of the others in one of its operands::

    sampled_matmul   y[i, j] = x[i] . w[ids[i, j]]             logits of active neurons
    gather_matmul    z[i]    = sum_j v[i, j] w[ids[i, j]]      embedding bag
    scatter_outer    g[ids[i, j]] += v[i, j] x[i]              gradient of the table

``ids`` are ``i32[b, k]``, a set for each example, or ``i32[m]``, one set shared by the
batch. An id outside ``[0, n)`` is padding (write ``n``): it yields 0, receives nothing,
and hides whatever stands beside it, NaN included.

Inside, both kinds of ids are one: ``g`` independent products of ``b`` examples and
``m`` ids each, with ``b == 1`` for per-example and ``g == 1`` for shared sets. The six
transposes below call the ops themselves, so forward and reverse mode work in any order.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _batching, _checks, reference
from fsparse._call import define, vary_over, varying_axes
from fsparse._precision import ALL_PARTS, num_parts

Array = jax.Array
_PARTS = {"num_parts": ALL_PARTS}


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# ---- the family, closed under transposition -----------------------------------------


def _batch_scatter(
    size: int,
    batched: list[bool],
    v: Array,
    x: Array,
    ids: Array,
    *,
    num_rows: int,
    **params: int,
) -> tuple[Array, Array]:
    v, x, ids = map(_batching.spread, [size] * 3, batched, (v, x, ids))
    ids = _batching.fold(_batching.shift_ids(ids, num_rows))
    every = {"num_rows": size * num_rows, **params}
    outs = scatter_op(_batching.fold(v), _batching.fold(x), ids, **every)
    out, products = (_batching.unfold(y, size) for y in outs)
    return out, products


def _scatter_types(
    v: Array, x: Array, ids: Array, *, num_rows: int, num_parts: int = ALL_PARTS
) -> list[Any]:
    del ids, num_parts
    d = x.shape[2]
    return [_f32(num_rows, d), _f32(reference.num_products(v), d)]


def _sampled(x: Array, w: Array, ids: Array, **params: int) -> Array:
    return sampled_op(x, w, ids, **params)[0]


def _gather(v: Array, w: Array, ids: Array, **params: int) -> Array:
    return gather_op(v, w, ids, **params)[0]


def _scatter(v: Array, x: Array, ids: Array, w: Any, **params: int) -> Array:
    """The gradient of a table like ``w``."""
    return scatter_op(v, x, ids, num_rows=w.shape[0], **params)[0].astype(w.dtype)


def _of_parts(op: Callable[..., Any]) -> Callable[..., Any]:
    """A transpose of ``scatter_op``, which has no ``num_rows``."""
    return lambda *args, num_rows, **params: op(*args, **params)


sampled_op: Callable[..., Any] = define(
    "fsparse_sampled_matmul",
    lambda x, w, ids, **_: [_f32(*x.shape[:2], ids.shape[1])],
    reference.sampled_matmul,
    batch=lambda *args, **p: _batching.row_products(sampled_op, *args, **p),
    transposes={
        0: lambda ct, x, w, ids, **p: _gather(ct, w, ids, **p),
        1: lambda ct, x, w, ids, **p: _scatter(ct, x, ids, w, **p),
    },
    attributes=_PARTS,
)
gather_op: Callable[..., Any] = define(
    "fsparse_gather_matmul",
    lambda v, w, ids, **_: [_f32(*v.shape[:2], w.shape[1])],
    reference.gather_matmul,
    batch=lambda *args, **p: _batching.row_products(gather_op, *args, **p),
    transposes={
        0: lambda ct, v, w, ids, **p: _sampled(ct, w, ids, **p),
        1: lambda ct, v, w, ids, **p: _scatter(v, ct, ids, w, **p),
    },
    attributes=_PARTS,
)
scatter_op = define(
    "fsparse_scatter_outer",
    _scatter_types,
    reference.scatter_outer,
    batch=_batch_scatter,
    transposes={
        0: _of_parts(lambda ct, v, x, ids, **p: _sampled(x, ct, ids, **p)),
        1: _of_parts(lambda ct, v, x, ids, **p: _gather(v, ct, ids, **p)),
    },
    attributes=_PARTS,
)
sum_examples_op: Callable[..., Any] = define(
    "fsparse_sum_examples",
    lambda v, x, **_: [_f32(v.shape[0], v.shape[2], x.shape[2])],
    reference.sum_examples,
    batch=lambda *args, **p: _batch_sum_examples(*args, **p),
    transposes={
        0: lambda ct, v, x, **p: _sampled(x, *_all_rows(ct), **p),
        1: lambda ct, v, x, **p: _gather(v, *_all_rows(ct), **p),
    },
    attributes=_PARTS,
)


def _batch_sum_examples(
    size: int, batched: list[bool], *operands: Array, **params: int
) -> Any:
    spread = map(_batching.spread, [size] * 2, batched, operands)
    (y,) = sum_examples_op(*map(_batching.fold, spread), **params)
    return (_batching.unfold(y, size),)


def _all_rows(w: Array) -> tuple[Array, Array]:
    """``f32[g, m, d]`` as a table, and the ids of each ``g``."""
    g, m, d = w.shape
    ids = jnp.arange(g * m, dtype=jnp.int32).reshape(g, m)
    return w.reshape(g * m, d), vary_over(ids, varying_axes(w))


# ---- public functions ---------------------------------------------------------------


def sampled_matmul(x: Array, w: Array, ids: Array) -> Array:
    """Dot products of examples with selected rows of a table.

    Computes ``y[i, j] = x[i] . w[ids[i, j]]``, or with shared ids
    ``y[i, j] = x[i] . w[ids[j]]``: what ``x @ w.T`` holds at ``ids``, without forming
    it. Padding gives 0.

    Args:
      x: ``f32[b, d]`` inputs.
      w: ``f32[n, d]`` or ``bf16[n, d]`` weights, a row for each neuron.
      ids: ``i32[b, k]`` active rows of each example, or ``i32[m]`` shared by all.

    Returns:
      ``f32[b, k]`` or ``f32[b, m]``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable to any order in ``x`` and ``w``, whose gradient is
    dense, of the type of ``w``, unless :func:`fsparse.value_and_grad` takes it. With
    shared ids, operands are rounded to bf16, and sums are not, if
    :func:`jax.default_matmul_precision` asks for "bfloat16", the CPU multiplies it, and
    there are several examples.

    The selection is SLIDE's and BOLT's (arXiv 2303.17727, section 3).

    Example:
      >>> import jax.numpy as jnp
      >>> sampled_matmul(jnp.ones((1, 2)), jnp.eye(3, 2), jnp.array([[0, 3]]))
      Array([[1., 0.]], dtype=float32)
    """
    fn = "sampled_matmul"
    x, w, ids = _checks.as_arrays(fn, x=x, w=w, ids=ids)
    _check_table(fn, ids, w=w)
    _checks.require_f32(fn, x=x)
    _checks.require_rank(fn, 2, x=x)
    _checks.require(
        fn, w.shape[1] == x.shape[1], "w.shape[1] must equal x.shape[1]", w=w, x=x
    )
    _check_one_set_each(fn, ids, x=x)
    if ids.ndim == 1:
        return _sampled(x[None], w, ids[None], num_parts=num_parts())[0]
    return _sampled(x[:, None], w, ids)[:, 0]


def gather_matmul(v: Array, w: Array, ids: Array) -> Array:
    """Weighted sums of selected rows of a table.

    Computes ``z[i] = sum_j v[i, j] * w[ids[i, j]]``, or with shared ids
    ``z = v @ w[ids]``. Padding adds nothing, whatever ``v`` holds there.

    Args:
      v: ``f32[b, k]`` weights of the rows, ``f32[b, m]`` with shared ids.
      w: ``f32[n, d]`` or ``bf16[n, d]`` table.
      ids: ``i32[b, k]`` rows of each example, or ``i32[m]`` shared by all.

    Returns:
      ``f32[b, d]``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable to any order in ``v`` and ``w``, whose gradient is
    dense, of the type of ``w``, unless :func:`fsparse.value_and_grad` takes it. As
    precise as :func:`sampled_matmul`.

    Example:
      >>> import jax.numpy as jnp
      >>> gather_matmul(jnp.array([[2., 5.]]), jnp.eye(3), jnp.array([[1, 3]]))
      Array([[0., 2., 0.]], dtype=float32)
    """
    fn = "gather_matmul"
    v, w, ids = _checks.as_arrays(fn, v=v, w=w, ids=ids)
    _check_table(fn, ids, w=w)
    _check_coefficients(fn, ids, v=v)
    if ids.ndim == 1:
        return _gather(v[None], w, ids[None], num_parts=num_parts())[0]
    return _gather(v[:, None], w, ids)[:, 0]


def scatter_outer(v: Array, x: Array, ids: Array, *, num_rows: int) -> Array:
    """Sums of outer products, added into the rows of a new table.

    Computes ``g[ids[i, j]] += v[i, j] * x[i]`` from zeros, or with shared ids
    ``g[ids[j]] += sum_i v[i, j] * x[i]``. Padding is left out. Occurrences of a row are
    added in the order of ``ids``, by one thread: the bits do not depend on threads.

    Args:
      v: ``f32[b, k]``, or ``f32[b, m]`` with shared ids.
      x: ``f32[b, d]``.
      ids: ``i32[b, k]`` rows of each example, or ``i32[m]`` shared by all.
      num_rows: ``n``, rows of the result.

    Returns:
      ``f32[n, d]``, newly allocated; with shared ids also ``f32[m, d]`` of scratch.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable to any order in ``v`` and ``x``; their gradients
    allocate no more than their own shapes. As precise as :func:`sampled_matmul`.

    Example:
      >>> import jax.numpy as jnp
      >>> v, x = jnp.array([[1., 2.]]), jnp.array([[3.]])
      >>> scatter_outer(v, x, jnp.array([[1, 1]]), num_rows=2)
      Array([[0.],
             [9.]], dtype=float32)
    """
    fn = "scatter_outer"
    v, x, ids = _checks.as_arrays(fn, v=v, x=x, ids=ids)
    _checks.require_f32(fn, x=x)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 2, x=x)
    _checks.require_rank(fn, (1, 2), ids=ids)
    _checks.require_count(fn, 0, num_rows=num_rows)
    _checks.require_rows_fit(fn, num_rows)
    _check_coefficients(fn, ids, v=v)
    _checks.require(
        fn, v.shape[0] == x.shape[0], "v.shape[0] must equal x.shape[0]", v=v, x=x
    )
    if ids.ndim == 1:
        params = {"num_rows": num_rows, "num_parts": num_parts()}
        return scatter_op(v[None], x[None], ids[None], **params)[0]
    return scatter_op(v[:, None], x[:, None], ids, num_rows=num_rows)[0]


def take_rows(w: Array, ids: Array) -> Array:
    """Selected rows of a table: ``y[j] = w[ids[j]]``, zeros for padding.

    Args:
      w: ``f32[n, d]`` or ``bf16[n, d]`` table.
      ids: ``i32[m]`` rows.

    Returns:
      ``f32[m, d]``, a copy. A gradient with respect to it is what
      :func:`fsparse.row_grad` takes.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable to any order in ``w``, whose gradient is dense, of
    the type of ``w``, unless :func:`fsparse.value_and_grad` takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> take_rows(jnp.eye(2), jnp.array([1, 2]))
      Array([[0., 1.],
             [0., 0.]], dtype=float32)
    """
    fn = "take_rows"
    w, ids = _checks.as_arrays(fn, w=w, ids=ids)
    _check_table(fn, ids, w=w)
    _checks.require_rank(fn, 1, ids=ids)
    ones = jnp.ones((ids.shape[0], 1), jnp.float32)
    return gather_matmul(ones, w, ids[:, None])


def embedding_bag(table: Array, ids: Array, weights: Array | None = None) -> Array:
    """Sums of embeddings of the features present in each example.

    ``h[i] = sum_j weights[i, j] * table[ids[i, j]]``: :func:`gather_matmul` under the
    name that models use, with weights of 1 by default.

    Args:
      table: ``f32[n, d]`` or ``bf16[n, d]`` embeddings.
      ids: ``i32[b, k]`` features; ``n`` marks padding.
      weights: ``f32[b, k]`` values of the features.

    Returns:
      ``f32[b, d]``.

    Raises:
      TypeError: if a dtype differs from the above.
      ValueError: if the shapes disagree.

    Nothing aliases. Differentiable to any order in ``weights`` and ``table``, whose
    gradient is dense, of its type, unless :func:`fsparse.value_and_grad` takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> embedding_bag(jnp.eye(3), jnp.array([[0, 2]]))
      Array([[1., 0., 1.]], dtype=float32)
    """
    fn = "embedding_bag"
    if weights is None:
        weights = jnp.ones(jnp.shape(ids), jnp.float32)
    table, ids, weights = _checks.as_arrays(fn, table=table, ids=ids, weights=weights)
    _check_table(fn, ids, table=table)
    _checks.require_rank(fn, 2, ids=ids)
    _check_coefficients(fn, ids, weights=weights)
    return _gather(weights[:, None], table, ids)[:, 0]


def _check_table(fn: str, ids: Array, **tables: Array) -> None:
    ((_, table),) = tables.items()
    _checks.require_table(fn, **tables)
    _checks.require_ids(fn, ids=ids)
    _checks.require_rank(fn, 2, **tables)
    _checks.require_rank(fn, (1, 2), ids=ids)
    _checks.require_rows_fit(fn, table.shape[0])


def _check_one_set_each(fn: str, ids: Array, **inputs: Array) -> None:
    ((name, x),) = inputs.items()
    _checks.require(
        fn,
        ids.ndim == 1 or ids.shape[0] == x.shape[0],
        f"ids.shape[0] must equal {name}.shape[0]",
        ids=ids,
        **inputs,
    )


def _check_coefficients(fn: str, ids: Array, **coefficients: Array) -> None:
    ((name, v),) = coefficients.items()
    _checks.require_f32(fn, **coefficients)
    _checks.require_rank(fn, 2, **coefficients)
    _check_one_set_each(fn, ids, **coefficients)
    _checks.require(
        fn,
        v.shape[1] == ids.shape[-1],
        f"{name}.shape[1] must equal ids.shape[-1]",
        **coefficients,
        ids=ids,
    )
