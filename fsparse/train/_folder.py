"""The files of a run: the checkpoint to go on from, and the best parameters.

Each is written all or nothing. The best parameters may be newer than the checkpoint, if
a run is killed between the two: then it comes to the same ones again.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp

from fsparse import checkpoint

_CHECKPOINT, _BEST, _LOCK = "checkpoint.npz", "best.npz", ".lock"
Meta = dict[str, Any]


class Folder:
    """A folder that one run at a time may use.

    Args:
      path: made if there is none.
      settings: of the run, which those of a checkpoint must equal.

    Raises:
      OSError: if the folder cannot be written.
      RuntimeError: if another run uses it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]):
        self._path, self._settings = Path(path), dict(settings)
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._path / _LOCK)
        for name in (_CHECKPOINT, _BEST):  # what kills have left half written
            for left in self._path.glob(f".{name}.*"):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets another run use it."""
        self._lock.close()

    @property
    def checkpoint(self) -> Path:
        """Where a run goes on from."""
        return self._path / _CHECKPOINT

    @property
    def best(self) -> Path:
        """Parameters and state of the model, of the best validation."""
        return self._path / _BEST

    def clear(self) -> None:
        """Starts anew."""
        for path in (self.checkpoint, self.best):
            path.unlink(missing_ok=True)

    def save(self, state: Any, progress: Meta) -> None:
        """A checkpoint."""
        meta = {"settings": self._settings, "progress": progress}
        _save(self.checkpoint, state, meta)

    def load(self, like: Any) -> tuple[Any, Meta]:
        """The state and the progress that were saved.

        Raises:
          CheckpointError: if the settings were others, which it names, or the file is
            damaged or of something else.
        """
        meta = checkpoint.load_metadata(self.checkpoint)
        _require_same(self.checkpoint, self._settings, meta.get("settings", {}))
        return _load(self.checkpoint, like), meta["progress"]

    def save_best(self, model: Any, value: float) -> None:
        """Parameters and state, with what was measured of them."""
        _save(self.best, model, {"value": value})

    def best_value(self) -> float | None:
        """What was measured of the best; None if there is none yet."""
        if not self.best.exists():
            return None
        return float(checkpoint.load_metadata(self.best)["value"])

    def load_best(self, like: Any) -> Any:
        """The parameters and state."""
        return _load(self.best, like)


def _require_same(path: Path, ours: Meta, saved: Meta) -> None:
    other = [
        f"{name}={value!r} (saved: {saved.get(name)!r})"
        for name, value in ours.items()
        if saved.get(name) != value
    ]
    if other:
        raise checkpoint.CheckpointError(
            f"fit: {path} must be of a run with the same settings; got "
            f"{', '.join(other)}. Pass the same, another folder, or resume=False to "
            "start anew and lose it."
        )


def _save(path: Path, tree: Any, meta: Meta) -> None:
    try:
        checkpoint.save(path, jax.tree.map(_plain, tree), meta)
    except OSError as e:
        e.add_note(
            f"fit: {path} could not be written; the one before, if there was one, is "
            "whole. Make room and call fit again to go on from it."
        )
        raise


def _load(path: Path, like: Any) -> Any:
    plain, _ = checkpoint.load(path, jax.eval_shape(_all_plain, like))
    return jax.tree.map(_typed, plain, like)


def _all_plain(tree: Any) -> Any:
    return jax.tree.map(_plain, tree)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _plain(leaf: Any) -> Any:
    """Numbers: files know no typed keys."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _typed(leaf: Any, like: Any) -> Any:
    if not _is_key(like):
        return leaf
    impls: list[Any] = []
    jax.eval_shape(lambda key: impls.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(leaf, impl=impls[0])


def _locked(path: Path) -> IO[str]:
    """A file that is locked until it is closed, or the process ends in any way."""
    file = open(path, "w")  # noqa: SIM115
    with contextlib.suppress(ImportError):  # where there are no such locks
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.close()
            raise RuntimeError(
                f"fit: folder must be used by one run at a time; {path.parent} is in "
                "use. Wait for the other run, or pass another folder."
            ) from e
    return file
