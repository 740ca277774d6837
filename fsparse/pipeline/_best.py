"""The best labels of a batch, as pipelines and what is exported of them give them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fsparse.data.batches import Batch
from fsparse.nn import Classifier, Softmax

Array = jax.Array


@partial(jax.jit, static_argnums=(0, 1))
def best_labels(
    model: Classifier, k: int, params: Any, state: Any, batch: Batch
) -> tuple[Array, Array]:
    """Scores ``f32[b, k]``, the largest first, and ids ``i32[b, k]``.

    Scores are probabilities where all labels are computed anyway, else logits.
    """
    head = model.head
    if not isinstance(head, Softmax):
        return model.predict(params, state, batch, k)
    scores, ids = model.predict(params, state, batch, head.num_labels)
    is_each = head.objective == "sigmoid" or head.num_labels == 1
    of_all = jax.nn.sigmoid if is_each else _softmax
    return of_all(scores)[:, :k], ids[:, :k]


def _softmax(scores: Array) -> Array:
    return jax.nn.softmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores), axis=1)
