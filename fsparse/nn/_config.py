"""Specifications as JSON, by names; nothing of what a file holds is run."""

from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from fsparse import _checks
from fsparse.nn._spec import Spec, registry

_TYPE = "type"


def to_config(model: Any) -> dict[str, Any]:
    """A specification as a dict that JSON can hold.

    Args:
      model: a layer, a head or a model of :mod:`fsparse.nn`, or a class derived from
        :class:`Layer`.

    Returns:
      The name of its class as ``"type"``, and its fields.

    Raises:
      TypeError: if it is no such thing, or a field is neither one, nor a number, text,
        None or a sequence of these.

    Example:
      >>> from fsparse.nn import Activation, Linear, Sequential
      >>> to_config(Sequential([Linear(3, 2), Activation("relu")]))["layers"][1]
      {'type': 'Activation', 'name': 'relu'}
    """
    _checks.require_type("nn.to_config", Spec, model=model)
    return _written(model, type(model).__name__)


def from_config(config: Any) -> Any:
    """The specification that :func:`to_config` wrote.

    Args:
      config: the dict, such as ``json.load`` gives. Only classes derived from
        :class:`Layer`, by their names, are made of it: your own ones must be imported.

    Returns:
      A specification equal to the one written.

    Raises:
      TypeError: if it is no dict.
      ValueError: if it names a class that there is not, or a field that a class has
        not, or lacks one; the message says where, and which there are. And what the
        classes raise of values out of range.

    Example:
      >>> from_config({"type": "Linear", "in_width": 3, "width": 2})
      Linear(in_width=3, width=2, bias=True, init_scale=1.0)
    """
    if not isinstance(config, dict):
        raise TypeError(
            f"nn.from_config: config must be a dict; got {type(config).__name__}."
        )
    return _read(config, "config")


def _written(x: Any, where: str) -> Any:
    if isinstance(x, Spec) and is_dataclass(x):
        own = {f.name: getattr(x, f.name) for f in fields(x) if f.init}
        parts = {name: _written(y, f"{where}.{name}") for name, y in own.items()}
        return {_TYPE: type(x).__name__, **parts}
    if isinstance(x, tuple | list):
        return [_written(y, f"{where}[{i}]") for i, y in enumerate(x)]
    if x is None or isinstance(x, bool | int | float | str):
        return x
    raise TypeError(
        f"nn.to_config: {where} must be a layer, a number, text, None or a sequence of "
        f"these, for JSON to hold it; got {type(x).__name__}."
    )


def _read(x: Any, where: str) -> Any:
    if isinstance(x, list):
        return tuple(_read(y, f"{where}[{i}]") for i, y in enumerate(x))
    if not isinstance(x, dict):
        return x
    cls = _class(x, where)
    own = {name: _read(y, f"{where}.{name}") for name, y in x.items() if name != _TYPE}
    known = [f for f in fields(cls) if f.init]
    _require_fields(where, cls.__name__, own, [f.name for f in known])
    needed = {f.name for f in known if f.default is f.default_factory is MISSING}
    missing = sorted(needed - set(own))
    if missing:
        raise ValueError(
            f"nn.from_config: {where} must have all fields of {cls.__name__}; got none "
            f"named {', '.join(missing)}."
        )
    return cls(**own)


def _class(x: dict[str, Any], where: str) -> Any:
    name = x.get(_TYPE)
    cls = registry().get(name) if isinstance(name, str) else None
    if cls is None or not is_dataclass(cls):
        known = sorted(name for name, c in registry().items() if is_dataclass(c))
        raise ValueError(
            f"nn.from_config: the type of {where} must be one of {', '.join(known)}; "
            f"got {name!r}. Import the module that defines it, if it is your own."
        )
    return cls


def _require_fields(where: str, cls: str, own: Iterable[str], known: list[str]) -> None:
    for name in own:
        if name not in known:
            raise ValueError(
                f"nn.from_config: the fields of {where}, a {cls}, must be among "
                f"{', '.join(known)}; got {name!r}. The file may be of another version."
            )
