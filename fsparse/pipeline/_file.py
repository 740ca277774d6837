"""Model files: a checkpoint whose metadata say how to make the model."""

import json
import os
from typing import TYPE_CHECKING, Any

import jax

from fsparse import checkpoint, nn
from fsparse.checkpoint import CheckpointError
from fsparse.tabular import FittedSchema

if TYPE_CHECKING:
    from fsparse.pipeline._pipeline import Pipeline

_KIND, _VERSION = "fsparse-model", 1


def save(pipeline: "Pipeline", path: str | os.PathLike[str]) -> None:
    """Parameters and state as arrays; schema, model and search as JSON."""
    exact = pipeline.with_search(None)  # hash tables are built anew from their seed
    tree = {"params": exact.params, "state": exact.state}
    search = pipeline.search
    metadata = {
        "kind": _KIND,
        "version": _VERSION,
        "schema": pipeline.schema.to_json(),
        "model": nn.to_config(pipeline.model),
        "search": None if search is None else list(search),
        "figures": pipeline.figures,
    }
    checkpoint.save(path, tree, metadata)


def load(path: str | os.PathLike[str]) -> "Pipeline":
    """Reads the metadata first, which tell the shapes of the arrays."""
    from fsparse.pipeline._pipeline import Pipeline, Search

    metadata = _metadata(path)
    try:
        schema = FittedSchema.from_json(metadata["schema"])
        model = nn.from_config(metadata["model"])
        params, state = jax.eval_shape(model.init, jax.random.key(0))
    except (KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{os.fspath(path)}: {e}") from e
    tree, _ = checkpoint.load(path, {"params": params, "state": state})
    pipeline = Pipeline(
        schema, model, tree["params"], tree["state"], None, metadata["figures"]
    )
    search = metadata["search"]
    return pipeline if search is None else pipeline.with_search(Search(*search))


def _metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    metadata = checkpoint.load_metadata(path)
    found = metadata.get("kind"), metadata.get("version")
    if found != (_KIND, _VERSION):
        raise CheckpointError(
            f"{os.fspath(path)}: expected {_KIND} version {_VERSION}; got "
            f"{json.dumps(found[0])} version {found[1]}. Pass what Pipeline.save wrote."
        )
    return metadata
