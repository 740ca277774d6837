"""A network that finds the labels of examples."""

from dataclasses import dataclass
from typing import Any

import jax

from fsparse.data.batches import Batch
from fsparse.nn._spec import Head, Key, Layer, Spec, part_key, require_part

Array = jax.Array


@dataclass(frozen=True)
class Classifier(Spec):
    """A body that turns features into a hidden vector, and a head that has the labels.

    ``loss(params, state, batch, key=key)`` and ``predict(params, state, batch, k)``
    take a :class:`fsparse.data.Batch`.

    Args:
      body: of ``(feature_ids, feature_weights)`` to ``f32[b, width]``.
      head: a :class:`SparseLinear`, :class:`Mach` or :class:`Softmax` of that width.

    ``params`` and ``state`` are dicts of ``body`` and ``head``.

    Raises:
      TypeError: if they are none.
      ValueError: when applied, as the layers.

    Example:
      >>> import numpy as np
      >>> import fsparse
      >>> from fsparse.nn import Activation, EmbeddingBag, Sequential, Softmax
      >>> body = Sequential([EmbeddingBag(100, 8), Activation("relu")])
      >>> model = Classifier(body, Softmax(8, num_labels=2))
      >>> params, state = model.init(jax.random.key(0))
      >>> batch = fsparse.data.Batch(
      ...     np.array([[3, 7]], np.int32), np.ones((1, 2), np.float32), np.array([[1]])
      ... )
      >>> losses, state = model.loss(params, state, batch, key=jax.random.key(1))
      >>> scores, ids = model.predict(params, state, batch, k=1)
      >>> losses.shape, ids.shape
      ((1,), (1, 1))
    """

    body: Layer
    head: Head

    def __post_init__(self) -> None:
        require_part("nn.Classifier", Layer, body=self.body)
        require_part("nn.Classifier", Head, head=self.head)

    def children(self) -> dict[Any, Spec]:
        """Body and head."""
        return {"body": self.body, "head": self.head}

    @property
    def num_labels(self) -> int:
        """Those of the head."""
        return self.head.num_labels

    def init(self, key: Key) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of body and head."""
        body, body_state = self.body.init(part_key(key, 0))
        head, head_state = self.head.init(part_key(key, 1))
        return {"body": body, "head": head}, {"body": body_state, "head": head_state}

    def encode(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """``f32[b, width]``, what the head is given, and the body's state."""
        features = batch.feature_ids, batch.feature_weights
        return self.body.apply(
            params["body"], state["body"], *features, key=key, train=train
        )

    def loss(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = True,
    ) -> tuple[Array, dict[str, Any]]:
        """``f32[b]`` in nats, 0 for an example without labels; and the state."""
        of_body, of_head = part_key(key, 0), part_key(key, 1)
        h, body = self.encode(params, state, batch, key=of_body, train=train)
        losses, head = self.head.loss(
            params["head"], state["head"], h, batch.label_ids, key=of_head, train=train
        )
        return losses, {"body": body, "head": head}

    def predict(
        self, params: dict[str, Any], state: dict[str, Any], batch: Batch, k: int
    ) -> tuple[Array, Array]:
        """The scores ``f32[b, k]`` and the ids ``i32[b, k]`` of the best labels."""
        h, _ = self.encode(params, state, batch)
        return self.head.top_k(params["head"], state["head"], h, k)

    def with_label_counts(self, state: dict[str, Any], counts: Any) -> dict[str, Any]:
        """The state, once the head knows how often each label is seen in training."""
        return {**state, "head": self.head.with_label_counts(state["head"], counts)}
