"""Layers that several others feed and are fed by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsparse.nn._spec import Key, Layer, Spec, part_key, require_part

Node = tuple[str, Layer, tuple[str, ...]]


@dataclass(frozen=True)
class Graph(Layer):
    """A network of named layers, each with the inputs that it names.

    ``apply(params, state, *inputs)``: as many as there are names.

    Args:
      inputs: names of what ``apply`` takes.
      nodes: for each name a layer and the names of its inputs, ``{"h": (layer, "x")}``,
        in any order; or the same as ``("h", layer, ("x",))``, one by one.
      output: the name of the node, or of the input, that is the result.

    ``params`` and ``state`` are dicts by the names of the nodes.

    Raises:
      TypeError: if a node is no layer with its inputs.
      ValueError: if a name is given twice or not at all, a node is in a cycle, or a
        node or an input is not used.

    Example:
      >>> from fsparse.nn import DotProduct, Linear
      >>> towers = Graph(
      ...     inputs=["left", "right"],
      ...     nodes={
      ...         "a": (Linear(4, 2), "left"),
      ...         "b": (Linear(3, 2), "right"),
      ...         "cosine": (DotProduct(normalize=True), "a", "b"),
      ...     },
      ...     output="cosine",
      ... )
      >>> import jax
      >>> params, state = towers.init(jax.random.key(0))
      >>> x, y = jax.numpy.ones((5, 4)), jax.numpy.ones((5, 3))
      >>> towers.apply(params, state, x, y)[0].shape
      (5,)
    """

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        nodes = _in_order(self.inputs, [_node(x) for x in _items(self.nodes)])
        object.__setattr__(self, "nodes", tuple(nodes))
        _require_used(self.inputs, nodes, self.output)

    def children(self) -> dict[Any, Spec]:
        """The nodes, by name."""
        return {name: layer for name, layer, _ in self.nodes}

    def init(self, key: Key) -> tuple[Any, Any]:
        """Dicts of the nodes' parameters and states."""
        params, state = {}, {}
        for i, (name, layer, _) in enumerate(self.nodes):
            params[name], state[name] = layer.init(part_key(key, i))
        return params, state

    def apply(
        self,
        params: Any,
        state: Any,
        *inputs: Any,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Any, Any]:
        """The value of the output."""
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"nn.Graph: inputs must be {', '.join(self.inputs)}; got {len(inputs)}."
            )
        values, new = dict(zip(self.inputs, inputs, strict=True)), {}
        for i, (name, layer, sources) in enumerate(self.nodes):
            args = [values[source] for source in sources]
            options = {"key": part_key(key, i), "train": train}
            values[name], new[name] = layer.apply(
                params[name], state[name], *args, **options
            )
        return values[self.output], new


def _items(nodes: Any) -> Sequence[Any]:
    if isinstance(nodes, Mapping):
        return [(name, parts[0], parts[1:]) for name, parts in nodes.items()]
    return list(nodes)


def _node(node: Any) -> Node:
    name, layer, sources = node
    require_part("nn.Graph", Layer, **{f"the layer of {name!r}": layer})
    return str(name), layer, tuple(sources)


def _in_order(inputs: tuple[str, ...], nodes: list[Node]) -> list[Node]:
    """Each node after those that feed it."""
    _require_names(inputs, nodes)
    known, ordered, left = set(inputs), list[Node](), nodes
    while left:
        ready = [node for node in left if known.issuperset(node[2])]
        if not ready:
            raise ValueError(
                f"nn.Graph: nodes must have no cycle; got one among "
                f"{', '.join(name for name, _, _ in left)}."
            )
        ordered += ready
        known |= {name for name, _, _ in ready}
        left = [node for node in left if node[0] not in known]
    return ordered


def _require_names(inputs: tuple[str, ...], nodes: list[Node]) -> None:
    names = [*inputs, *(name for name, _, _ in nodes)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"nn.Graph: names must differ; got {', '.join(twice)} twice.")
    for name, _, sources in nodes:
        for source in sources:
            if source not in names:
                raise ValueError(
                    f"nn.Graph: the inputs of {name!r} must be among "
                    f"{', '.join(names)}; got {source!r}."
                )


def _require_used(inputs: tuple[str, ...], nodes: list[Node], output: str) -> None:
    names = [*inputs, *(name for name, _, _ in nodes)]
    if output not in names:
        raise ValueError(
            f"nn.Graph: output must be one of {', '.join(names)}; got {output!r}."
        )
    used = {output}
    for name, _, sources in reversed(nodes):
        used |= set(sources) if name in used else set()
    unused = [name for name in names if name not in used]
    if unused:
        raise ValueError(
            f"nn.Graph: every node and input must lead to the output {output!r}; got "
            f"{', '.join(unused)}, which do not. Leave them out, or use them."
        )
