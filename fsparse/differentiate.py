"""Gradients in which tables have row gradients: ``value_and_grad`` and ``grad``.

A loss reads a table through the ops of fsparse, each of which is linear in it. So the
gradient follows from the cotangents of what the reads gave::

    read        y = sampled(x, w, ids)    y = gather(v, w, ids)
    gradient    ids, dy and x             ids, v and dy

A table's gradient is a sum over the reads, whose factors are known without it. How the
cotangents are had, without a dense gradient on the way, is told in ``_taps.py``.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax

from fsparse import _checks, _taps
from fsparse.table import Table

Loss = Callable[..., Any]


def value_and_grad(
    fun: Loss, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """``jax.value_and_grad``, with row gradients in the place of tables.

    Where the gradient of a :class:`fsparse.Table` would be dense, ``f32[n, d]``, it is
    a :class:`fsparse.RowGrad`, whose memory follows the rows that the loss read;
    ``to_dense()`` of it equals JAX's gradient. All other leaves have JAX's gradients.

    A table may be read any number of times, by :func:`fsparse.take_rows`,
    :func:`fsparse.embedding_bag`, :func:`fsparse.sampled_matmul`,
    :func:`fsparse.gather_matmul`, :func:`fsparse.dense_top_k` and
    :func:`fsparse.sampled_top_k`; under ``vmap`` and ``jit``, and as a constant of
    ``scan``, ``cond`` and ``checkpoint``. A read in ``shard_map`` of a table that all
    shards share has the row gradients of all shards.

    Args:
      fun: a function to a scalar, or with ``has_aux`` to a scalar and anything else.
        It is traced, even outside of ``jit``: Python sees no values in it.
      argnums: which arguments to differentiate in, one or several.
      has_aux: whether ``fun`` returns a pair.

    Returns:
      A function of the same arguments that returns ``(value, grads)``, or
      ``((value, aux), grads)``.

    Raises:
      TypeError: as ``jax.value_and_grad``; or if something that would need a dense
        gradient reads a table, with what to do instead.
      ValueError: if a table has not two axes, or ``argnums`` names no argument.

    Nothing aliases. Temporaries: ``12`` bytes for each id read, and the inputs and
    cotangents of each read; with ids shared by ``b`` examples, the rows' gradients.
    All gradients wait for all reads, those of ``aux`` too, so that an update in the
    same program overwrites a donated table without a copy.

    The results are differentiable, and the functions returned compose with ``jit``,
    ``vmap``, ``scan``, ``grad`` and ``shard_map``.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import Table, take_rows, value_and_grad
      >>> loss = lambda params, ids: take_rows(params["t"], ids).sum()
      >>> params = {"t": Table(jnp.ones((3, 1)))}
      >>> value, grads = value_and_grad(loss)(params, jnp.array([1, 1]))
      >>> grads["t"].to_dense()
      Array([[0.],
             [2.],
             [0.]], dtype=float32)
    """

    @wraps(fun)
    def value_and_grad_fun(*args: Any, **kwargs: Any) -> Any:
        where = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        chosen = {i: args[i] for i in _in_range(where, len(args))}
        leaves, tree = jax.tree.flatten_with_path(chosen, is_leaf=is_table)
        names = [f"args{jax.tree_util.keystr(path)}" for path, _ in leaves]
        tables = {i: names[i] for i, (_, leaf) in enumerate(leaves) if is_table(leaf)}
        for name, leaf in zip(names, (leaf for _, leaf in leaves), strict=True):
            _check_leaf(name, leaf)

        def of_values(values: list[Any]) -> Any:
            filled = [Table(v) if i in tables else v for i, v in enumerate(values)]
            new = dict(enumerate(args)) | jax.tree.unflatten(tree, filled)
            return _pair(fun(*new.values(), **kwargs), has_aux)

        values = [leaf.value if is_table(leaf) else leaf for _, leaf in leaves]
        (value, aux), grads = _taps.value_and_grad(of_values, values, tables)
        by_argument = jax.tree.unflatten(tree, grads)
        chosen_grads = tuple(by_argument[i] for i in where)
        return (
            (value, aux) if has_aux else value,
            chosen_grads[0] if isinstance(argnums, int) else chosen_grads,
        )

    return value_and_grad_fun


def grad(
    fun: Loss, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """``jax.grad``, with row gradients in the place of tables.

    :func:`fsparse.value_and_grad` without the value: see there.

    Args:
      fun: a function to a scalar, or with ``has_aux`` to a scalar and anything else.
      argnums: which arguments to differentiate in, one or several.
      has_aux: whether ``fun`` returns a pair.

    Returns:
      A function of the same arguments that returns the gradients, or
      ``(grads, aux)``.

    Raises:
      TypeError: as :func:`fsparse.value_and_grad`.
      ValueError: as :func:`fsparse.value_and_grad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import Table, take_rows
      >>> loss = lambda table, ids: take_rows(table, ids).sum()
      >>> grads = grad(loss)(Table(jnp.ones((2, 1))), jnp.array([1, 1]))
      >>> grads.ids, grads.shape
      (Array([1, 1], dtype=int32), (2, 1))
    """

    @wraps(fun)
    def grad_fun(*args: Any, **kwargs: Any) -> Any:
        value, grads = value_and_grad(fun, argnums, has_aux)(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return grad_fun


def is_table(x: Any) -> bool:
    """Whether a node of a tree of parameters is a table."""
    return isinstance(x, Table)


def _in_range(argnums: tuple[int, ...], num_args: int) -> tuple[int, ...]:
    for i in argnums:
        if not 0 <= i < num_args:
            raise ValueError(
                "value_and_grad: argnums must name positional arguments, and there "
                f"are {num_args}; got {i}."
            )
    return argnums


def _check_leaf(name: str, leaf: Any) -> None:
    if not is_table(leaf):
        return
    _checks.require_rank("value_and_grad", 2, **{f"the table {name}": leaf.value})
    _checks.require_table("value_and_grad", **{f"the table {name}": leaf.value})


def _pair(out: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return out, ()
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(
            "value_and_grad: with has_aux the function must return a pair (value, aux);"
            f" got {type(out).__name__}."
        )
    return out
