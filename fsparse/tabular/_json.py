"""Schemas as JSON: plain text that people edit, and a sealed one that models carry."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FORMAT, _VERSION = "fsparse-schema", 1


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
    fields = dict(found) if isinstance(found, dict) else {"kind": found}
    name = fields.pop("kind", None)
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(
            f"Schema.from_json: the kind of {where} must be one of "
            f"{', '.join(kinds)}; got {name!r}."
        )
    try:
        return kinds[name](*fields.pop("names", ()), **fields)
    except TypeError as e:
        raise ValueError(f"Schema.from_json: {where} has wrong fields: {e}.") from e


def array_to_text(array: NDArray[Any]) -> str:
    """Little-endian bytes in base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).data).decode()


def array_from_text(text: str, dtype: Any) -> NDArray[Any]:
    """The array that :func:`array_to_text` wrote."""
    stored = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(base64.b64decode(text), stored).astype(dtype)
