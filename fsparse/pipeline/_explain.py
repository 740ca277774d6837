"""Which columns of a row speak for a label."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsparse.pipeline._rows import padded

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
    label_id = jnp.array([_label_id(pipeline, row, label)], jnp.int32)
    names, rows = schema.encode_without_each(row)
    batch = padded(rows, np.arange(rows.num_rows), schema.feature_capacity)
    scores = _scores(pipeline.model, pipeline.params, pipeline.state, batch, label_id)
    lost = np.asarray(scores[0] - scores[1 : rows.num_rows])
    reasons = [
        Reason(name, row.get(name), float(weight))
        for name, weight in zip(names, lost, strict=True)
    ]
    return sorted(reasons, key=lambda reason: -abs(reason.weight))


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
def _scores(model: Any, params: Any, state: Any, batch: Any, label_id: Array) -> Array:
    """``f32[b]``, of one label."""
    h, _ = model.encode(params, state, batch)
    return model.head.scores(params["head"], state["head"], h, label_id)[:, 0]
