"""Which columns of a row speak for a label."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsparse.data.rows import SparseRows
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
    """Gradient times input, summed over the features of each column."""
    schema = pipeline.schema
    label_id = _label_id(pipeline, row, label)
    features, parts = schema.encode_parts([row])
    batch = padded(features, np.arange(1), schema.feature_capacity)
    slope = _slope(pipeline.model, pipeline.params, pipeline.state, batch, label_id)
    of_id = dict(zip(batch.feature_ids[0].tolist(), np.asarray(slope[0]), strict=True))
    reasons = [
        Reason(name, row.get(name), _weight(of_id, part))
        for name, part in parts.items()
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


def _weight(slope_of_id: dict[int, float], part: SparseRows) -> float:
    pairs = zip(part.ids.tolist(), part.values.tolist(), strict=True)
    return float(sum(slope_of_id.get(i, 0.0) * value for i, value in pairs))


@partial(jax.jit, static_argnums=0)
def _slope(model: Any, params: Any, state: Any, batch: Any, label_id: int) -> Array:
    """``f32[1, k]``, the gradient of the label's logit in the features."""

    def logit(weights: Array) -> Array:
        changed = batch._replace(feature_weights=weights)
        h, _ = model.encode(params, state, changed)
        logits, _ = model.head.apply(params["head"], state["head"], h)
        return logits[0, label_id]

    return jax.grad(logit)(jnp.asarray(batch.feature_weights))
