"""What layers, heads and models have in common: they are values that say what to do.

A specification is a frozen, hashable dataclass of sizes and settings. It holds no
arrays, so it is a static argument of ``jit`` and a part of a JSON file; what is learnt
is in ``params``, and what is kept beside it (an index, label counts) in ``state``.
"""

from collections.abc import Sequence
from typing import Any

import jax

from fsparse import _checks

Array = jax.Array
Key = Any  # of jax.random; in the place of a parameter, of a part
_REGISTRY: dict[str, type["Spec"]] = {}


def _register(cls: type["Spec"]) -> None:
    other = _REGISTRY.get(cls.__name__)
    place = cls.__module__, cls.__qualname__
    if other is not None and (other.__module__, other.__qualname__) != place:
        raise TypeError(
            f"nn.Layer: the names of layers must differ, for files name them; got "
            f"{cls.__name__} of {cls.__module__} and of {other.__module__}. Rename one."
        )
    _REGISTRY[cls.__name__] = cls


class Spec:
    """Registers a subclass by its name, for :func:`fsparse.nn.from_config`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__name__.startswith("_"):
            _register(cls)

    def children(self) -> dict[Any, "Spec"]:
        """The parts, each by the key of its parameters in those of the whole."""
        return {}

    def active_fraction(self) -> float | None:
        """The share of the parameters of its own that a step reads, where known."""
        return 1.0

    def summary(self) -> str:
        """A table of the parts: see :func:`fsparse.nn.summary`."""
        from fsparse.nn._summary import summary

        return summary(self)


class Layer(Spec):
    """A part of a network, of inputs of one axis of examples to such an output.

    Derive from it, mark the class with ``@dataclass(frozen=True)``, and define
    ``apply``, and ``init`` where something is learnt or kept. Then it goes wherever the
    layers of this module go.

    Example:
      >>> from dataclasses import dataclass
      >>> @dataclass(frozen=True)
      ... class Scale(Layer):
      ...     factor: float
      ...
      ...     def apply(self, params, state, x, *, key=None, train=False):
      ...         return self.factor * x, state
      >>> Scale(3.0).apply(*Scale(3.0).init(None), 2.0)
      (6.0, ())
    """

    def init(self, key: Key) -> tuple[Any, Any]:
        """``(params, state)``; nothing of either by default."""
        del key
        return (), ()

    def apply(self, params: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        """``apply(params, state, *inputs, key=None, train=False)``.

        Returns ``(output, state)``.
        """
        raise NotImplementedError(f"nn.{type(self).__name__}: apply must be defined.")


class Head(Layer):
    """A last layer: ``f32[b, width]`` to labels, of which there are ``num_labels``.

    ``init(key) -> (params, state)``;
    ``loss(params, state, h, label_ids, *, key=None, train=True) -> (f32[b], state)``,
    which is 0 for an example without labels, unless there is but one;
    ``top_k(params, state, h, k) -> (scores f32[b, k], ids i32[b, k])``, best first;
    ``apply(params, state, h) -> (scores f32[b, num_labels], state)``; and
    ``scores(params, state, h, label_ids) -> f32[b, m]``, those of ``i32[m]`` alone.
    """

    num_labels: int

    def loss(self, params: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss of each example, and the next state."""
        raise NotImplementedError(f"nn.{type(self).__name__}: loss must be defined.")

    def top_k(self, params: Any, state: Any, h: Array, k: int) -> tuple[Array, Array]:
        """The best labels of each example, best first."""
        raise NotImplementedError(f"nn.{type(self).__name__}: top_k must be defined.")

    def scores(self, params: Any, state: Any, h: Array, label_ids: Array) -> Array:
        """The scores of some labels, as of ``apply``."""
        return self.apply(params, state, h)[0][:, label_ids]

    def with_label_counts(self, state: Any, counts: Any) -> Any:
        """The state, for labels of these counts; the same where they do not matter."""
        del counts
        return state


def registry() -> dict[str, type[Spec]]:
    """The specifications that there are, by name."""
    return _REGISTRY


# ---- keys ---------------------------------------------------------------------------


def part_key(key: Key | None, i: int) -> Key | None:
    """The key of the ``i``-th part; None stays None."""
    return None if key is None else jax.random.fold_in(key, i)


def training_key(fn: str, key: Key | None, train: bool) -> Key:
    """The key given; a loss that is measured, not trained by, draws as ever."""
    if key is None and train:
        raise ValueError(
            f"{fn}: key must be given to train; got None. Pass "
            "key=jax.random.fold_in(key, step), another one each step."
        )
    return jax.random.key(0) if key is None else key


# ---- checks -------------------------------------------------------------------------


def require_part(fn: str, wanted: type, **parts: Any) -> None:
    """Parts are specifications, not classes or functions."""
    for name, part in parts.items():
        if not isinstance(part, wanted):
            got = part.__name__ if isinstance(part, type) else type(part).__name__
            like = "SparseLinear" if wanted is Head else "Linear"
            raise TypeError(
                f"{fn}: {name} must be a {wanted.__name__.lower()} of fsparse.nn, such "
                f"as nn.{like}(128, 1000); got {got}."
            )


def require_choice(fn: str, choices: Sequence[str], **values: Any) -> None:
    """Settings that have names."""
    for name, x in values.items():
        if x not in choices:
            raise ValueError(
                f"{fn}: {name} must be one of {', '.join(choices)}; got {x!r}."
            )


def require_dtype_name(fn: str, dtype: Any) -> None:
    """Of a table, as text, so that a specification is JSON."""
    require_choice(fn, ("float32", "bfloat16"), dtype=dtype)


def features_of(fn: str, x: Any, width: int, field: str) -> Array:
    """``f32[..., width]``, or an error that names the field of the layer."""
    (x,) = _checks.as_arrays(fn, x=x)
    _checks.require_f32(fn, x=x)
    if x.ndim == 0 or x.shape[-1] != width:
        last = x.shape[-1] if x.ndim else 1
        raise ValueError(
            f"{fn}: x must be f32[..., {width}], since {field}={width}; got "
            f"{_checks.aval(x)}. Give this layer {field}={last}, or the layer before "
            f"it an output of {width}."
        )
    return x


def hidden_of(fn: str, h: Any, width: int) -> Array:
    """``f32[b, width]``, what a head takes."""
    h = features_of(fn, h, width, "width")
    _checks.require_rank(fn, 2, h=h)
    return h


def labels_of(fn: str, label_ids: Any, h: Array) -> Array:
    """``i32[b, l]``, a row for each example."""
    (label_ids,) = _checks.as_arrays(fn, label_ids=label_ids)
    _checks.require_ids(fn, label_ids=label_ids)
    _checks.require(
        fn,
        label_ids.ndim == 2 and label_ids.shape[0] == h.shape[0],
        "label_ids must be i32[b, l], with a row for each row of h",
        label_ids=label_ids,
        h=h,
    )
    return label_ids
