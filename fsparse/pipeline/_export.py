"""One file for inference: compiled functions and numbers, without the model's code.

The functions are StableHLO of :mod:`jax.export`, which keeps running in later versions
of JAX; they call fsparse's custom calls, so that the package must be there.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import checkpoint
from fsparse._call import TARGETS
from fsparse.checkpoint import CheckpointError
from fsparse.data.batches import Batch
from fsparse.pipeline._best import best_labels
from fsparse.pipeline._rows import padded
from fsparse.tabular import FittedSchema, Report
from fsparse.tabular._rows import Table

if TYPE_CHECKING:
    from fsparse.pipeline._pipeline import Pipeline, Prediction

_KIND, _VERSION = "fsparse-exported", 1


def export(
    pipeline: "Pipeline",
    path: str | os.PathLike[str],
    *,
    k: int = 10,
    batch_sizes: Sequence[int] = (1, 16, 256),
) -> None:
    """Writes a pipeline as compiled functions of its numbers, for CPUs.

    Args:
      pipeline: with its search, whose hash tables are written, too.
      path: of the file, written all or nothing.
      k: predictions of each row, at most as many as there are labels.
      batch_sizes: a function for each; rows are filled up to the next size.

    Returns:
      None; the file is there, or what was there before.

    Raises:
      ValueError: if ``k`` or a size is out of range.
      OSError: if the file cannot be written.

    Example:
      >>> export(pipeline, "served.fsparse", k=3)  # doctest: +SKIP
      >>> load_exported("served.fsparse").predict(rows, 3)  # doctest: +SKIP
    """
    n = pipeline.schema.num_labels
    if not 1 <= k <= n:
        raise ValueError(f"export: k must be from 1 to {n}; got {k}.")
    sizes = sorted(set(batch_sizes))
    if not sizes or sizes[0] < 1:
        raise ValueError(f"export: batch_sizes must be positive; got {batch_sizes}.")
    leaves = jax.tree.leaves((pipeline.params, pipeline.state))
    metadata = {
        "kind": _KIND,
        "version": _VERSION,
        "schema": pipeline.schema.to_json(),
        "k": k,
        "leaves": [[list(x.shape), str(x.dtype)] for x in leaves],
        "programs": {str(b): _program(pipeline, k, b) for b in sizes},
    }
    checkpoint.save(path, leaves, metadata)


def load_exported(path: str | os.PathLike[str]) -> "Exported":
    """What :func:`export` wrote.

    Args:
      path: of the file.

    Returns:
      An :class:`Exported`, whose functions are compiled at their first call.

    Raises:
      FileNotFoundError: if there is no such file.
      CheckpointError: if it is something else, damaged, or of another version.

    Example:
      >>> exported = load_exported("served.fsparse")  # doctest: +SKIP
      >>> exported.predict([{"title": "blue mug"}], k=3)  # doctest: +SKIP
    """
    metadata = checkpoint.load_metadata(path)
    found = metadata.get("kind"), metadata.get("version")
    if found != (_KIND, _VERSION):
        raise CheckpointError(
            f"{os.fspath(path)}: expected {_KIND} version {_VERSION}; got {found[0]} "
            f"version {found[1]}. Pass what export wrote."
        )
    like = [jax.ShapeDtypeStruct(s, jnp.dtype(t)) for s, t in metadata["leaves"]]
    leaves, _ = checkpoint.load(path, like)
    return Exported(
        FittedSchema.from_json(metadata["schema"]),
        leaves,
        metadata["k"],
        {int(b): text for b, text in metadata["programs"].items()},
    )


@dataclass(frozen=True, eq=False)
class Exported:
    """A file of :func:`export`, ready to predict."""

    schema: FittedSchema
    leaves: list[Any]
    k: int
    programs: dict[int, str]
    _calls: dict[int, Any] = field(default_factory=dict, repr=False)

    def predict(self, rows: Table, k: int = 1) -> "list[list[Prediction]]":
        """As :meth:`Pipeline.predict`, for ``k`` up to that of the export."""
        from fsparse.pipeline._pipeline import Prediction

        names, found = self.schema.label_names, self.predict_ids(rows, k)
        pairs = [zip(*row, strict=True) for row in zip(*found, strict=True)]
        return [
            [Prediction(names[i], float(s)) for s, i in row if i < len(names)]
            for row in pairs
        ]

    def predict_ids(
        self, rows: Table, k: int = 1, *, report: Report | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`Pipeline.predict_ids`, for ``k`` up to that of the export."""
        if not 1 <= k <= self.k:
            raise ValueError(
                f"Exported.predict: k must be from 1 to {self.k}; got {k}. Export "
                "again for more."
            )
        features = self.schema.encode_features(rows, report=report)
        largest, m = max(self.programs), features.num_rows
        found = [(np.zeros((0, self.k), np.float32), np.zeros((0, self.k), np.int32))]
        for start in range(0, m, largest):
            index = np.arange(start, min(start + largest, m))
            batch = padded(features, index, self.schema.feature_capacity)
            found.append(self._call(batch, len(index)))
        scores, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return scores[:, :k], ids[:, :k]

    def with_search(self, search: Any) -> "Exported":
        """Refuses: how labels are found is a part of the compiled functions."""
        raise ValueError(
            f"Exported.with_search: the search must be the one of the export; got "
            f"{search}. Export the model with it."
        )

    def _call(self, batch: Batch, count: int) -> tuple[np.ndarray, np.ndarray]:
        size = min(b for b in self.programs if b >= count)
        if size not in self._calls:
            text = base64.b64decode(self.programs[size])
            self._calls[size] = jax.jit(jax.export.deserialize(bytearray(text)).call)
        n = self.schema.num_features
        ids = _sized(batch.feature_ids, size, n)
        weights = _sized(batch.feature_weights, size, 0)
        scores, best = self._calls[size](self.leaves, ids, weights)
        return np.asarray(scores)[:count], np.asarray(best)[:count]


def _sized(x: np.ndarray, size: int, padding: int) -> np.ndarray:
    missing = max(size - len(x), 0)
    return np.pad(x[:size], ((0, missing), (0, 0)), constant_values=padding)


def _program(pipeline: "Pipeline", k: int, b: int) -> str:
    """StableHLO of prediction for ``b`` rows, as text."""
    given = pipeline.params, pipeline.state
    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(given)

    def call(numbers: list[Any], ids: Any, weights: Any) -> Any:
        labels: Any = jnp.full((b, 1), pipeline.schema.num_labels, jnp.int32)
        params, state = structure.unflatten(numbers)
        return best_labels(
            pipeline.model, k, params, state, Batch(ids, weights, labels)
        )

    room = pipeline.schema.feature_capacity
    allow = [jax.export.DisabledSafetyCheck.custom_call(target) for target in TARGETS]
    exported = jax.export.export(
        jax.jit(call), platforms=["cpu"], disabled_checks=allow
    )(
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves],
        jax.ShapeDtypeStruct((b, room), jnp.int32),
        jax.ShapeDtypeStruct((b, room), jnp.float32),
    )
    return base64.b64encode(exported.serialize()).decode()
