"""What a model is made of, as text."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fsparse import _checks
from fsparse._tables import plain
from fsparse.nn._spec import Spec

_NAMES = "layer", "shapes", "parameters", "bytes", "with Adam", "state", "active"


def summary(model: Any) -> str:
    """A table of the layers of a model: shapes, sizes, and what a step reads of them.

    Args:
      model: a layer, a head or a model of :mod:`fsparse.nn`.

    Returns:
      A line for each layer that has parameters or state, and one for all: shapes, the
      number of parameters, their bytes, those of the parameters and two moments of
      their type, and those of the state. ``active`` is the share of the rows that a
      step reads, beside the labels; empty where the batch decides. Nothing is computed.

    Raises:
      TypeError: if it is no such thing.

    Example:
      >>> from fsparse.nn import EmbeddingBag, Sequential, SparseLinear
      >>> net = Sequential([EmbeddingBag(1000, 8), SparseLinear(8, 5000, 500)])
      >>> print(summary(net).splitlines()[1])
      0 EmbeddingBag  table f32[1000,8]       8,000   32,000     96,000       0
    """
    _checks.require_type("nn.summary", Spec, model=model)
    init: Any = getattr(model, "init")  # noqa: B009
    params, state = jax.eval_shape(init, jax.random.key(0))
    rows = list(_rows(model, (), params, state))
    total = ["all", "", *_sizes(params, state), ""]
    return plain(_NAMES, [*rows, total])


def _rows(spec: Spec, path: tuple[Any, ...], params: Any, state: Any) -> Iterator[Any]:
    """Of a layer that has no parts, or of its parts."""
    parts = spec.children()
    if not parts and jax.tree.leaves((params, state)):
        yield [_name(spec, path), _shapes(params), *_sizes(params, state), _share(spec)]
    for key, part in parts.items():
        yield from _rows(part, (*path, key), params[key], state[key])


def _name(spec: Spec, path: tuple[Any, ...]) -> str:
    return " ".join([".".join(map(str, path)), type(spec).__name__]).strip()


def _shapes(params: Any) -> str:
    leaves, _ = jax.tree.flatten_with_path(params)
    return ", ".join(f"{path[0].key} {_checks.aval(leaf)}" for path, leaf in leaves)


def _sizes(params: Any, state: Any) -> list[str]:
    """Parameters, their bytes, with moments, and of the state."""
    count = sum(x.size for x in jax.tree.leaves(params))
    size = _num_bytes(params)
    return [f"{x:,}" for x in (count, size, 3 * size, _num_bytes(state))]


def _num_bytes(tree: Any) -> int:
    return sum(x.size * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def _share(spec: Spec) -> str:
    share = spec.active_fraction()
    return "" if share is None else f"{100 * share:.3g} %"
