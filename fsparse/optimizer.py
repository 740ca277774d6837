"""One optimizer for tables and dense parameters, in place of a chain of calls.

optax turns gradients into updates, which are then added. For a table that would be two
passes over rows and an array of its size; so an optimizer here goes from parameters to
parameters::

    optimizer = multi_transform({"tables": rows.adam(1e-3), "dense": optax.adam(1e-4)})
    state = optimizer.init(params)
    params, state = optimizer.step(params, state, grads)

with ``grads`` from :func:`fsparse.value_and_grad`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fsparse.row_gradients import RowGrad
from fsparse.rows import RowOptimizer, sum_squares
from fsparse.table import Table

Array = jax.Array


class Optimizer(NamedTuple):
    """Pure functions that train a whole tree of parameters.

    ``init(params) -> state``; ``step(params, state, grads) -> (params, state)``; and
    ``catch_up(params, state, ids=None) -> (params, state)``, for
    :func:`fsparse.rows.exact_adam`, before a loss reads the rows ``ids``: a tree like
    the parameters, with ``i32[t]`` in the place of tables and None elsewhere. None for
    all rows. The last two overwrite what the caller's jit donates.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    catch_up: Callable[..., tuple[Any, Any]]


class _Elsewhere(NamedTuple):
    """Stands in a tree for a parameter of another transformation; has no leaves."""


def _kinds(params: Any) -> Any:
    label = lambda leaf: "tables" if isinstance(leaf, Table) else "dense"  # noqa: E731
    return jax.tree.map(label, params, is_leaf=_is_node)


def multi_transform(
    transforms: Mapping[str, Any], param_labels: Any = _kinds
) -> Optimizer:
    """Row optimizers for tables and optax transformations for all else, as one.

    As ``optax.multi_transform``: each parameter has a label, each label a
    transformation.

    Args:
      transforms: label -> a row optimizer, such as ``fsparse.rows.adam(1e-3)``, for
        tables; or an optax transformation, for arrays, which sees the tree of
        parameters with nothing in the place of those that have other labels.
      param_labels: a pytree of labels of the structure of the parameters or a prefix of
        it, or a function from parameters to it; by default ``"tables"`` for each
        :class:`fsparse.Table` and ``"dense"`` for all else.

    Returns:
      An :class:`Optimizer`. Its state holds, for each label, the state of the
      transformation; for a row optimizer one for each table, by its path.

    Raises:
      ValueError: if a label has no transformation, or a gradient belongs to another
        table, when ``init`` or ``step`` is called.
      TypeError: if a table has an optax transformation, an array a row optimizer, or a
        table's gradient is no :class:`fsparse.RowGrad`.

    Tables, their moments, arrays and their moments all alias. Differentiable as the
    transformations are.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import Table, rows, take_rows, value_and_grad
      >>> params = {"t": Table(jnp.ones((3, 1)))}
      >>> loss = lambda params: take_rows(params["t"], jnp.array([1])).sum()
      >>> optimizer = multi_transform({"tables": rows.sgd(0.5)})
      >>> state = optimizer.init(params)
      >>> _, grads = value_and_grad(loss)(params)
      >>> params, state = optimizer.step(params, state, grads)
      >>> params["t"].value
      Array([[1. ],
             [0.5],
             [1. ]], dtype=float32)
    """

    def init(params: Any) -> dict[str, Any]:
        tree = _label(transforms, param_labels, params)
        return {
            label: {name: transform.init(leaf.value) for name, leaf in tree.of(label)}
            if isinstance(transform, RowOptimizer)
            else transform.init(tree.only(label, tree.leaves))
            for label, transform in transforms.items()
        }

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, dict[str, Any]]:
        tree = _label(transforms, param_labels, params)
        grad_of = dict(
            zip(tree.names, tree.structure.flatten_up_to(grads), strict=True)
        )
        new = dict(zip(tree.names, tree.leaves, strict=True))
        new_state: dict[str, Any] = {}
        for label, transform in transforms.items():
            move = _move_tables if isinstance(transform, RowOptimizer) else _move_arrays
            moved, new_state[label] = move(
                tree, label, transform, grad_of, state[label]
            )
            new |= moved
        return tree.structure.unflatten(new.values()), new_state

    def catch_up(params: Any, state: Any, ids: Any = None) -> tuple[Any, Any]:
        tree = _label(transforms, param_labels, params)
        every = [None] * len(tree.names)
        own = every if ids is None else tree.structure.flatten_up_to(ids)
        ids_of = dict(zip(tree.names, own, strict=True))
        new, new_state = dict(zip(tree.names, tree.leaves, strict=True)), dict(state)
        for label, transform in transforms.items():
            if isinstance(transform, RowOptimizer):
                moved, new_state[label] = _catch_up(
                    tree, label, transform, ids_of, state[label], all_rows=ids is None
                )
                new |= moved
        return tree.structure.unflatten(new.values()), new_state

    return Optimizer(init, step, catch_up)


def skip_nonfinite(optimizer: Optimizer) -> Optimizer:
    """Skips, and counts, the steps whose gradients hold NaN or infinity.

    A skipped step leaves every bit of the parameters and of the optimizer's state as it
    was, its counts too. What padding of a row gradient holds does not matter; rows
    whose squares overflow, beyond some 1e19, count as infinite.

    Args:
      optimizer: the one that takes the other steps.

    Returns:
      An :class:`Optimizer`. Its state is a :class:`SkipState`.

    Raises:
      What ``optimizer`` raises.

    Aliases as ``optimizer`` does. Under ``vmap`` over gradients both outcomes are
    computed and selected between, which copies the tables.

    Example:
      >>> import jax.numpy as jnp
      >>> from fsparse import Table, row_grad, rows
      >>> params = {"t": Table(jnp.ones((1, 1)))}
      >>> optimizer = skip_nonfinite(multi_transform({"tables": rows.sgd(0.5)}))
      >>> bad = row_grad(jnp.array([0]), jnp.array([[jnp.nan]]), num_rows=1)
      >>> state = optimizer.init(params)
      >>> params, state = optimizer.step(params, state, {"t": bad})
      >>> params["t"].value, state.skipped
      (Array([[1.]], dtype=float32), Array(1, dtype=int32))
    """

    def init(params: Any) -> SkipState:
        return SkipState(optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(params: Any, state: SkipState, grads: Any) -> tuple[Any, SkipState]:
        ok = _all_finite(grads)
        params, inner = jax.lax.cond(
            ok, optimizer.step, lambda p, s, g: (p, s), params, state.inner, grads
        )
        return params, SkipState(inner, state.skipped + ~ok)

    def catch_up(params: Any, state: SkipState, ids: Any = None) -> Any:
        params, inner = optimizer.catch_up(params, state.inner, ids)
        return params, state._replace(inner=inner)

    return Optimizer(init, step, catch_up)


class SkipState(NamedTuple):
    """State of :func:`skip_nonfinite`."""

    inner: Any  # of the optimizer
    skipped: Array  # i32[], steps so far that were skipped


def _all_finite(grads: Any) -> Array:
    leaves = jax.tree.leaves(grads, is_leaf=_is_node)
    finite = [_is_finite(leaf) for leaf in leaves]
    return jnp.all(jnp.stack(finite)) if finite else jnp.array(True)


def _is_finite(leaf: Any) -> Array:
    if not isinstance(leaf, RowGrad):
        return jnp.all(jnp.isfinite(leaf))
    return jnp.isfinite(sum_squares(leaf))


# ---- parameters by label ------------------------------------------------------------


class _Labelled(NamedTuple):
    """The leaves of a tree of parameters; a table is one."""

    names: list[str]  # their paths
    leaves: list[Any]
    labels: list[str]
    structure: Any

    def of(self, label: str) -> list[tuple[str, Any]]:
        """Names and leaves of a label."""
        every = zip(self.names, self.leaves, self.labels, strict=True)
        return [(name, leaf) for name, leaf, own in every if own == label]

    def only(self, label: str, leaves: list[Any]) -> Any:
        """The tree without the leaves of other labels."""
        pairs = zip(leaves, self.labels, strict=True)
        kept = [leaf if own == label else _Elsewhere() for leaf, own in pairs]
        return self.structure.unflatten(kept)


def _label(transforms: Mapping[str, Any], labels: Any, params: Any) -> _Labelled:
    with_paths, structure = jax.tree.flatten_with_path(params, is_leaf=_is_node)
    names = [jax.tree_util.keystr(path) or "params" for path, _ in with_paths]
    leaves = [leaf for _, leaf in with_paths]
    prefix = labels(params) if callable(labels) else labels
    every = jax.tree.broadcast(prefix, params, is_leaf=_is_node)
    tree = _Labelled(names, leaves, jax.tree.leaves(every), structure)
    for name, leaf, label in zip(names, leaves, tree.labels, strict=True):
        _check_label(transforms, name, leaf, label)
    return tree


def _check_label(
    transforms: Mapping[str, Any], name: str, leaf: Any, label: str
) -> None:
    if label not in transforms:
        raise ValueError(
            f"multi_transform: every label must have a transformation; {name} has the "
            f"label {label!r}, and there are {sorted(transforms)}."
        )
    takes_tables = isinstance(transforms[label], RowOptimizer)
    if takes_tables != isinstance(leaf, Table):
        raise TypeError(
            "multi_transform: tables must have a row optimizer and arrays an optax "
            f"transformation; {name} is a {type(leaf).__name__} with the label "
            f"{label!r}, a {type(transforms[label]).__name__}. Mark wide tables as "
            "fsparse.Table, or give it another label."
        )


def _move_tables(
    tree: _Labelled, label: str, transform: RowOptimizer, grads: Any, states: Any
) -> tuple[dict[str, Table], dict[str, Any]]:
    new: dict[str, Table] = {}
    new_states: dict[str, Any] = {}
    for name, table in tree.of(label):
        if not isinstance(grads[name], RowGrad):
            raise TypeError(
                f"multi_transform: the gradient of the table {name} must be a RowGrad; "
                f"got {type(grads[name]).__name__}. Use fsparse.value_and_grad."
            )
        value, new_states[name] = transform.update(
            table.value, states[name], grads[name]
        )
        new[name] = Table(value)
    return new, new_states


def _catch_up(
    tree: _Labelled,
    label: str,
    transform: RowOptimizer,
    ids: Mapping[str, Any],
    states: Any,
    *,
    all_rows: bool,
) -> tuple[dict[str, Table], dict[str, Any]]:
    new, new_states = {}, dict(states)
    for name, table in tree.of(label):
        if all_rows or ids[name] is not None:
            value, new_states[name] = transform.catch_up(
                table.value, states[name], ids[name]
            )
            new[name] = Table(value)
    return new, new_states


def _move_arrays(
    tree: _Labelled, label: str, transform: Any, grads: Any, state: Any
) -> tuple[dict[str, Array], Any]:
    params = tree.only(label, tree.leaves)
    grads = tree.only(label, list(grads.values()))
    updates, state = transform.update(grads, state, params)
    new = jax.tree.map(lambda p, u: jnp.asarray(p + u, p.dtype), params, updates)
    names = [name for name, _ in tree.of(label)]
    return dict(zip(names, jax.tree.leaves(new), strict=True)), state


def _is_node(x: Any) -> bool:
    return isinstance(x, Table | RowGrad)
