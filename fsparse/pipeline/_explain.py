"""Which columns of a row speak for a label."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from fsparse.data.rows import SparseRows, clip, concatenate
from fsparse.pipeline._rows import padded
from fsparse.tabular._bags import add_rows

if TYPE_CHECKING:
    from fsparse.pipeline._pipeline import Pipeline

Array = jax.Array


class Reason(NamedTuple):
    """A column, its value, and what it adds to the logit of the label."""

    column: str
    value: Any
    weight: float


def explain(
    pipeline: "Pipeline", row: dict[str, Any], label: str | None
) -> list[Reason]:
    """The logit of the row, less that of the row without each column."""
    schema = pipeline.schema
    label_id = _label_id(pipeline, row, label)
    whole, parts = schema.encode_parts([row])
    rows = concatenate([whole, *_without_each(list(parts.values()))])
    rows, _ = clip(rows, schema.feature_capacity)
    batch = padded(rows, np.arange(rows.num_rows), schema.feature_capacity)
    logits = _logits(pipeline.model, pipeline.params, pipeline.state, batch, label_id)
    lost = np.asarray(logits[0] - logits[1:])
    reasons = [
        Reason(name, row.get(name), float(weight))
        for name, weight in zip(parts, lost, strict=False)
    ]
    return sorted(reasons, key=lambda reason: -abs(reason.weight))


def _without_each(parts: list[SparseRows]) -> list[SparseRows]:
    n = parts[0].num_columns
    return [add_rows(parts[:i] + parts[i + 1 :], 1, n) for i in range(len(parts))]


def _label_id(pipeline: "Pipeline", row: dict[str, Any], label: str | None) -> int:
    names = pipeline.schema.label_names
    if label is None:
        return int(pipeline.predict_ids([row])[1][0, 0])
    if label not in names:
        raise ValueError(
            f"Pipeline.explain: label must be one of the {len(names)} that the schema "
            f"was fitted on; got {label!r}."
        )
    return names.index(label)


@partial(jax.jit, static_argnums=0)
def _logits(model: Any, params: Any, state: Any, batch: Any, label_id: int) -> Array:
    """``f32[b]``, of one label."""
    h, _ = model.encode(params, state, batch)
    logits, _ = model.head.apply(params["head"], state["head"], h)
    return logits[:, label_id]
