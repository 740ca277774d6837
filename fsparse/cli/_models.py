"""Models of either kind of file."""

from pathlib import Path
from typing import Any

from fsparse import checkpoint
from fsparse.pipeline import Exported, Pipeline, load_exported


def load(path: Path) -> Any:
    """A :class:`Pipeline`, or what was exported of one."""
    kind = checkpoint.load_metadata(path).get("kind")
    return load_exported(path) if kind == "fsparse-exported" else Pipeline.load(path)


def max_k(model: Any) -> int:
    """The most predictions of a row that it gives."""
    return model.k if isinstance(model, Exported) else model.schema.num_labels
