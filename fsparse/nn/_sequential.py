"""Layers one after the other, and around each other."""

from dataclasses import dataclass
from typing import Any

import jax

from fsparse import _checks
from fsparse.nn._spec import Key, Layer, Spec, part_key, require_part

Array = jax.Array


@dataclass(frozen=True)
class Sequential(Layer):
    """Layers one after the other: the output of each is the input of the next.

    ``apply(params, state, *inputs)``: the first layer takes all inputs.

    Args:
      layers: one or more.

    ``params`` and ``state`` are tuples, with an entry for each layer, which gets
    ``jax.random.fold_in(key, i)``.

    Raises:
      TypeError: if ``layers`` has anything but layers.
      ValueError: if it is empty.

    Example:
      >>> from fsparse.nn import Activation, EmbeddingBag, Linear
      >>> net = Sequential([EmbeddingBag(100, 8), Activation("relu"), Linear(8, 2)])
      >>> params, state = net.init(jax.random.key(0))
      >>> net.apply(params, state, jax.numpy.array([[3, 7]]))[0].shape
      (1, 2)
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError(
                "nn.Sequential: layers must be one or more; got none. Pass "
                "[nn.Linear(128, 128), ...]."
            )
        named = {f"layers[{i}]": layer for i, layer in enumerate(self.layers)}
        require_part("nn.Sequential", Layer, **named)

    def children(self) -> dict[Any, Spec]:
        """The layers, by number."""
        return dict(enumerate(self.layers))

    def init(self, key: Key) -> tuple[Any, Any]:
        """A tuple of the layers' parameters, and one of their states."""
        made = [layer.init(part_key(key, i)) for i, layer in enumerate(self.layers)]
        params, state = zip(*made, strict=True)
        return params, state

    def apply(
        self,
        params: Any,
        state: Any,
        *inputs: Any,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Any, Any]:
        """The output of the last layer."""
        x, new = inputs, list[Any]()
        for i, layer in enumerate(self.layers):
            options = {"key": part_key(key, i), "train": train}
            out, own = layer.apply(params[i], state[i], *x, **options)
            x, new = (out,), [*new, own]
        return x[0], tuple(new)


@dataclass(frozen=True)
class Residual(Layer):
    """The input and what a layer makes of it: ``x + layer(x)``.

    Args:
      layer: with an output of the shape of its input.

    ``params["layer"]`` are those of the layer.

    Raises:
      TypeError: if ``layer`` is none.
      ValueError: when applied, if the shapes differ.

    Source: He et al., CVPR 2016.

    Example:
      >>> from fsparse.nn import Activation
      >>> layer = Residual(Activation("relu"))
      >>> layer.apply(*layer.init(jax.random.key(0)), jax.numpy.ones(2))[0]
      Array([2., 2.], dtype=float32)
    """

    layer: Layer

    def __post_init__(self) -> None:
        require_part("nn.Residual", Layer, layer=self.layer)

    def children(self) -> dict[Any, Spec]:
        """The layer."""
        return {"layer": self.layer}

    def init(self, key: Key) -> tuple[Any, Any]:
        """Those of the layer."""
        params, state = self.layer.init(key)
        return {"layer": params}, {"layer": state}

    def apply(
        self,
        params: Any,
        state: Any,
        x: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """Of the shape of ``x``."""
        (x,) = _checks.as_arrays("nn.Residual", x=x)
        y, new = self.layer.apply(
            params["layer"], state["layer"], x, key=key, train=train
        )
        _checks.require(
            "nn.Residual",
            x.shape == y.shape,
            "the output of the layer must have the shape of its input",
            x=x,
            output=y,
        )
        return x + y, {"layer": new}
