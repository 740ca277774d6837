"""A pytree of arrays in one file, written so that the previous file survives.

The file is numpy's ``.npz`` (a zip, whose CRCs are checked on reading) with one more
member that names the format, the leaves and the caller's metadata. It is written beside
its destination, flushed to the disk, then renamed over it: a full disk or a kill at any
moment leaves the old checkpoint or the new one, never half of one.
"""

import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from fsparse import _checks

_FORMAT = "fsparse-checkpoint"
_VERSION = 1
_MANIFEST = "manifest.json"

Tree = TypeVar("Tree")


class CheckpointError(ValueError):
    """The file is no checkpoint, is damaged, or belongs to something else."""


def save(path: str | os.PathLike[str], tree: Any, metadata: Mapping[str, Any]) -> None:
    """Writes a pytree and metadata to ``path``, all or nothing.

    Args:
      path: destination file; an existing one is replaced only when all is written, and
        hands on its permissions. A new one has those that the umask leaves.
      tree: a pytree of arrays. Each leaf is copied to the host and freed in turn.
      metadata: anything that JSON can hold.

    Raises:
      OSError: if the disk is full or the folder cannot be written; ``path`` is then
        what it was.
      TypeError: if the metadata is not JSON, or a leaf is no array of numbers.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/run", {"w": jax.numpy.ones(2)}, {"step": 3})
      ...     load_metadata(f"{folder}/run")
      {'step': 3}
    """
    path = Path(path)
    leaves = _named_leaves("save", tree)
    manifest = {
        "format": _FORMAT,
        "version": _VERSION,
        "leaves": _types(leaves),
        "metadata": dict(metadata),
    }
    text = json.dumps(manifest, allow_nan=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            if path.exists():
                shutil.copymode(path, temporary)
            _write(file, text, leaves)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def load(path: str | os.PathLike[str], like: Tree) -> tuple[Tree, dict[str, Any]]:
    """Reads what :func:`save` wrote.

    Args:
      path: the file.
      like: a pytree of arrays or ``jax.ShapeDtypeStruct`` with the structure, shapes
        and dtypes that the file must have.

    Returns:
      The tree, bit for bit, as arrays of their own, and the metadata. A leaf is a
      numpy array if JAX has no such dtype (64 bits without ``jax_enable_x64``).

    Raises:
      FileNotFoundError: if there is no such file.
      CheckpointError: if it is truncated, damaged, of another format or version, or
        its leaves differ from those of ``like``; the message names the first that does.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/run", {"w": jax.numpy.ones(2)}, {"step": 3})
      ...     load(f"{folder}/run", {"w": jax.numpy.zeros(2)})
      ({'w': Array([1., 1.], dtype=float32)}, {'step': 3})
    """
    wanted = _named_leaves("load", like)
    with _reading(path) as archive:
        manifest = _read_manifest(path, archive)
        _compare(path, manifest["leaves"], _types(wanted))
        leaves = [
            _read_leaf(archive, i, leaf.dtype) for i, (_, leaf) in enumerate(wanted)
        ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), manifest["metadata"]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata alone, without reading the leaves.

    Raises:
      FileNotFoundError: if there is no such file.
      CheckpointError: if it is truncated, damaged, or of another format or version.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/run", (), {"step": 3})
      ...     load_metadata(f"{folder}/run")
      {'step': 3}
    """
    with _reading(path) as archive:
        return dict(_read_manifest(path, archive)["metadata"])


def _named_leaves(fn: str, tree: Any) -> list[tuple[str, Any]]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = [(jax.tree_util.keystr(path) or "leaf", leaf) for path, leaf in paths]
    for name, leaf in leaves:
        if not hasattr(leaf, "dtype"):
            raise TypeError(
                f"{fn}: leaf {name} must be an array; got {type(leaf).__name__}."
            )
    return leaves


def _types(leaves: list[tuple[str, Any]]) -> list[list[str]]:
    return [[name, _checks.aval(leaf)] for name, leaf in leaves]


def _write(file: Any, manifest: str, leaves: list[tuple[str, Any]]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(_MANIFEST, manifest)
        for i, (_, leaf) in enumerate(leaves):
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(leaf), allow_pickle=False)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except (CheckpointError, MemoryError):
            raise
        except Exception as e:  # zipfile has many ways to stumble over damage
            raise CheckpointError(
                f"{path}: not a whole checkpoint ({e}); it may be truncated or "
                "foreign. Use another checkpoint, or start anew."
            ) from e


def _read_manifest(path: Any, archive: zipfile.ZipFile) -> dict[str, Any]:
    if _MANIFEST not in archive.namelist():
        raise CheckpointError(f"{path}: a zip file, but no {_FORMAT}.")
    manifest = json.loads(archive.read(_MANIFEST))
    if manifest.get("format") != _FORMAT or manifest.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: expected {_FORMAT} version {_VERSION}; got "
            f"{manifest.get('format')} version {manifest.get('version')}."
        )
    return manifest


def _compare(path: Any, found: list[list[str]], wanted: list[list[str]]) -> None:
    for mine, its in zip_longest(wanted, found, fillvalue=["nothing", ""]):
        if mine != its:
            raise CheckpointError(
                f"{path}: expected leaf {' '.join(mine)}; got {' '.join(its)}. It was "
                "saved from another model or optimizer, or with other sizes."
            )


def _read_leaf(archive: zipfile.ZipFile, index: int, dtype: Any) -> Any:
    with archive.open(f"{index}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
    if array.dtype != dtype:  # numpy files do not know bfloat16 and its kin
        array = array.view(dtype)
    leaf = jax.numpy.array(array)
    return leaf if leaf.dtype == dtype else array
