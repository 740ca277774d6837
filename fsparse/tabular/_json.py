"""Schemas as JSON: plain text that people edit, and a sealed one that models carry."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

_FORMAT, _VERSION = "fsparse-schema", 2


def seal(body: Mapping[str, Any]) -> str:
    """The body with format, version and checksum around it."""
    head = {"format": _FORMAT, "version": _VERSION, "sha256": checksum(body)}
    return json.dumps({**head, "body": body})


def unseal(text: str) -> dict[str, Any]:
    """The body of what :func:`seal` wrote.

    Raises:
      ValueError: if it is something else, of another version, or was changed.
    """
    sealed = parse("FittedSchema.from_json", text)
    found = sealed.get("format"), sealed.get("version")
    if found != (_FORMAT, _VERSION):
        raise ValueError(
            f"FittedSchema.from_json: format and version must be {_FORMAT!r} and "
            f"{_VERSION}; got {found[0]!r} and {found[1]!r}. Read it with the release "
            "of fsparse that wrote it."
        )
    body = sealed.get("body")
    if not isinstance(body, dict) or sealed.get("sha256") != checksum(body):
        raise ValueError(
            "FittedSchema.from_json: the checksum must be that of the body; got "
            "another one. The text was changed or cut: take it from the model anew."
        )
    return body


def checksum(body: Mapping[str, Any]) -> str:
    """Of the body in a canonical form."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse(function: str, text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ValueError: in the name of ``function``, if it is something else.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{function}: the text must be JSON; got: {e}.") from e
    if not isinstance(found, dict):
        raise ValueError(
            f"{function}: the text must be a JSON object; got {type(found).__name__}."
        )
    return found


def kind_to_dict(kind: Any) -> dict[str, Any]:
    """A column kind or a target kind by its name and its fields."""
    return {"kind": type(kind).__name__, **dataclasses.asdict(kind)}


def kind_from_dict(where: str, found: Any, kinds: Mapping[str, Any]) -> Any:
    """The column kind or target kind that a dict describes.

    Raises:
      ValueError: if there is no such kind, or it has other fields.
    """
    given = dict(found) if isinstance(found, dict) else {"kind": found}
    name = given.pop("kind", None)
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(
            f"Schema.from_json: the kind of {where} must be one of "
            f"{', '.join(kinds)}; got {name!r}."
        )
    require_fields(f"{where} ({name})", given, kinds[name])
    return kinds[name](*given.pop("names", ()), **given)


def require_fields(where: str, given: Mapping[str, Any], kind: Any) -> None:
    """Nothing, if a dataclass can be made of these fields.

    Raises:
      ValueError: with the first key that is unknown, missing or of another type.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in given.items():
        if name not in known:
            allowed = f"one of {', '.join(map(repr, known))}" if known else "left out"
            raise ValueError(
                f"Schema.from_json: a key of {where} must be {allowed}; got {name!r}."
            )
        if not _is_a(value, known[name].type):
            raise ValueError(
                f"Schema.from_json: the key {name!r} of {where} must be "
                f"{_described(known[name].type)}; got {json.dumps(value)}."
            )
    for name, field in known.items():
        is_needed = field.default is field.default_factory is dataclasses.MISSING
        if is_needed and name not in given:
            raise ValueError(
                f"Schema.from_json: {where} must have the key {name!r}; got "
                f"{', '.join(map(repr, given)) or 'none'}."
            )


_TYPES = {
    int: "a whole number",
    str: "a string",
    bool: "true or false",
    NoneType: "null",
}


def _is_a(value: Any, type_: Any) -> bool:
    """Whether a value of JSON is one of a field of this type."""
    parts = get_args(type_)
    if get_origin(type_) is Literal:
        return value in parts
    if get_origin(type_) is tuple:
        is_list = isinstance(value, list | tuple)
        return is_list and all(isinstance(x, str) for x in value)
    if isinstance(type_, UnionType):
        return any(_is_a(value, part) for part in parts)
    return type(value) is (dict if get_origin(type_) is Mapping else type_)


def _described(type_: Any) -> str:
    parts = get_args(type_)
    if get_origin(type_) is Literal:
        return " or ".join(map(json.dumps, parts))
    if get_origin(type_) is tuple:
        return "a list of strings"
    if isinstance(type_, UnionType):
        return " or ".join(map(_described, parts))
    return _TYPES[type_]


def array_to_text(array: NDArray[Any]) -> str:
    """Little-endian bytes in base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).data).decode()


def array_from_text(text: str, dtype: Any) -> NDArray[Any]:
    """The array that :func:`array_to_text` wrote."""
    stored = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(base64.b64decode(text), stored).astype(dtype)
