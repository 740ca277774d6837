"""Retrieval: queries and items as vectors, near where they belong together."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import _checks, samplers
from fsparse._queries import Query
from fsparse.active_sets import ActiveSet, active_set
from fsparse.data.batches import Batch
from fsparse.losses import sampled_softmax_loss
from fsparse.nn._norms import unit
from fsparse.nn._popularity import popularity_state
from fsparse.nn._products import product
from fsparse.nn._spec import (
    Key,
    Layer,
    Spec,
    labels_of,
    part_key,
    require_part,
    training_key,
)
from fsparse.reference import valid
from fsparse.topk import dense_top_k

Array = jax.Array
ITEMS_A_BLOCK = 1024


@dataclass(frozen=True)
class TwoTower(Spec):
    """Two networks, of queries and of items, trained to agree on what belongs together.

    ``loss[i]`` is the cross-entropy of the items of query ``i`` among all items of the
    batch, and a few random ones, with logits ``scale * cosine(left, right)``. Items
    are the labels of a :class:`fsparse.data.Batch`, queries its features.

    Args:
      left: of queries, ``(ids, weights)`` to ``f32[b, d]``.
      right: of items, likewise; it may be ``left``'s equal, but has parameters of its
        own.
      num_items: ``n``; ids outside ``[0, n)`` are padding.
      item_capacity: features of an item. At first each item has one, its own number:
        :meth:`with_items` gives it others.
      num_negatives: uniform items beside those of the batch.
      scale: of the cosines, the inverse of a temperature.
      normalize: whether vectors are made unit vectors; else their products count.
      log_q: whether logits are corrected for how often an item is in a batch, once
        :meth:`with_label_counts` tells.

    ``params`` are dicts of ``left`` and ``right``; ``state`` has the items beside
    theirs.

    Raises:
      TypeError: if the towers are no layers, or a size is no integer.
      ValueError: if a number is out of range, or the towers differ in width.

    Source: Yi et al., RecSys 2019 (in-batch softmax with a correction for popularity);
    Yang et al., WWW 2020 (with uniform items beside).

    Example:
      >>> import fsparse
      >>> from fsparse.nn import EmbeddingBag
      >>> towers = TwoTower(EmbeddingBag(100, 8), EmbeddingBag(30, 8), num_items=30)
      >>> params, state = towers.init(jax.random.key(0))
      >>> ids, ones = np.array([[3, 7]], np.int32), np.ones((1, 2), np.float32)
      >>> batch = fsparse.data.Batch(ids, ones, np.array([[4]], np.int32))
      >>> losses, state = towers.loss(params, state, batch, key=jax.random.key(1))
      >>> towers.predict(params, state, batch, k=3)[1].shape
      (1, 3)
    """

    left: Layer
    right: Layer
    num_items: int
    item_capacity: int = 1
    num_negatives: int = 0
    scale: float = 20.0
    normalize: bool = True
    log_q: bool = True

    def __post_init__(self) -> None:
        fn = "nn.TwoTower"
        require_part(fn, Layer, left=self.left, right=self.right)
        sizes = {"num_items": self.num_items, "item_capacity": self.item_capacity}
        _checks.require_count(fn, 1, **sizes)
        _checks.require_count(fn, 0, num_negatives=self.num_negatives)
        _checks.require_rows_fit(fn, self.num_items)
        _checks.require_between(fn, 0, 1e6, scale=self.scale)

    @property
    def num_labels(self) -> int:
        """The items."""
        return self.num_items

    def children(self) -> dict[Any, Spec]:
        """The towers."""
        return {"left": self.left, "right": self.right}

    def init(self, key: Key) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of the towers, items that are their own feature, and equal counts.

        ``state["vectors"]`` is None until :meth:`with_item_vectors`.
        """
        left, left_state = self.left.init(part_key(key, 0))
        right, right_state = self.right.init(part_key(key, 1))
        n, capacity = self.num_items, self.item_capacity
        own = jnp.arange(n, dtype=jnp.int32)[:, None]
        state = {
            "left": left_state,
            "right": right_state,
            "item_ids": jnp.broadcast_to(own, (n, capacity)),
            "item_weights": jnp.zeros((n, capacity)).at[:, 0].set(1.0),
            "popularity": popularity_state(np.ones(n), 1.0),
            "vectors": None,
        }
        return {"left": left, "right": right}, state

    def with_items(self, state: dict[str, Any], ids: Any, weights: Any) -> Any:
        """The state with the features of each item.

        Args:
          state: of this model.
          ids: ``i32[num_items, item_capacity]``, such as the first result of
            :func:`fsparse.data.to_padded`.
          weights: ``f32`` of that shape.
        """
        fn, shape = "nn.TwoTower", (self.num_items, self.item_capacity)
        ids, weights = _checks.as_arrays(fn, ids=ids, weights=weights)
        _checks.require_ids(fn, ids=ids)
        _checks.require_f32(fn, weights=weights)
        _checks.require(
            fn,
            ids.shape == weights.shape == shape,
            f"ids and weights must be [num_items, item_capacity], {list(shape)}",
            ids=ids,
            weights=weights,
        )
        return {**state, "item_ids": ids, "item_weights": weights}

    def with_label_counts(self, state: dict[str, Any], counts: Any) -> dict[str, Any]:
        """The state with how often each item is seen in training: ``[num_items]``."""
        if jnp.shape(counts) != (self.num_items,):
            raise ValueError(
                f"nn.TwoTower: counts must have {self.num_items} entries, one for each "
                f"item; got shape {jnp.shape(counts)}."
            )
        return {**state, "popularity": popularity_state(counts, 1.0)}

    def with_item_vectors(
        self, params: dict[str, Any], state: dict[str, Any]
    ) -> dict[str, Any]:
        """The state with the vectors of all items, so that predictions need not.

        They are those of ``params`` as they are: for inference, not for training on.
        """
        return {**state, "vectors": self.encode_items(params, state)}

    def encode(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """``f32[b, d]``, the queries' vectors, and the state of the left tower."""
        x, new = self.left.apply(
            params["left"],
            state["left"],
            batch.feature_ids,
            batch.feature_weights,
            key=key,
            train=train,
        )
        return (unit(x) if self.normalize else x), new

    def encode_items(self, params: dict[str, Any], state: dict[str, Any]) -> Array:
        """``f32[num_items, d]``, the vectors of all items, 1,024 at a time."""
        n, size = self.num_items, min(ITEMS_A_BLOCK, self.num_items)
        ids = jnp.arange(-(-n // size) * size, dtype=jnp.int32).reshape(-1, size)

        def of_block(block: Array) -> Array:
            return self._items(params, state, jnp.minimum(block, n - 1))[0]

        vectors = jax.lax.map(of_block, ids)
        return vectors.reshape(ids.size, -1)[:n]

    def loss(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = True,
    ) -> tuple[Array, dict[str, Any]]:
        """``f32[b]`` in nats, 0 for a query without items; and the state."""
        key = training_key("nn.TwoTower", key, train)
        keys = {"left": part_key(key, 0), "right": part_key(key, 1)}
        x, left = self.encode(params, state, batch, key=keys["left"], train=train)
        label_ids = labels_of("nn.TwoTower", batch.label_ids, x)
        active = self._active(part_key(key, 2), label_ids)
        items, right = self._items(params, state, active.ids, keys["right"], train)
        _checks.require(
            "nn.TwoTower",
            x.shape[1:] == items.shape[1:],
            "left and right must have outputs of one width",
            left=x,
            right=items,
        )
        logits = self.scale * product(x, items)
        if self.log_q and active.ids.size < self.num_items:
            logits -= self._log_q(state, active.ids, label_ids)
        losses = sampled_softmax_loss(logits, active.targets, active.is_active)
        return losses, {**state, "left": left, "right": right}

    def predict(
        self, params: dict[str, Any], state: dict[str, Any], batch: Batch, k: int
    ) -> tuple[Array, Array]:
        """The best cosines, or products, ``f32[b, k]`` and their items ``i32[b, k]``.

        Without :meth:`with_item_vectors`, each call encodes all items.
        """
        x, _ = self.encode(params, state, batch)
        vectors = state["vectors"]
        if vectors is None:
            vectors = self.encode_items(params, state)
        return dense_top_k(x, vectors, k)

    def _items(
        self, params: Any, state: Any, ids: Array, key: Any = None, train: bool = False
    ) -> tuple[Array, Any]:
        """``f32[m, d]``, zeros or what a tower makes of nothing for padding."""
        own = jnp.minimum(ids, self.num_items - 1)
        features = state["item_ids"][own], state["item_weights"][own]
        y, new = self.right.apply(
            params["right"], state["right"], *features, key=key, train=train
        )
        return (unit(y) if self.normalize else y), new

    def _active(self, key: Key, label_ids: Array) -> ActiveSet:
        n, rest = self.num_items, []
        if self.num_negatives:
            uniform, query = samplers.uniform(n), Query(label_ids)
            rest = [uniform.sample(key, query, self.num_negatives, False)]
        size = min(label_ids.size + self.num_negatives, n)
        return active_set(label_ids, *rest, num_rows=n, size=size)

    def _log_q(self, state: dict[str, Any], ids: Array, label_ids: Array) -> Array:
        """Of being in the batch, or among the uniform items; 0 for padding."""
        n = self.num_items
        num_labels = jnp.maximum(jnp.sum(valid(label_ids, n)), 1)
        log_miss = num_labels * state["popularity"]["log_miss"]
        log_miss += math.log1p(-min(self.num_negatives / n, 1 - 1e-6))
        log_q = jnp.log(-jnp.expm1(log_miss))
        return jnp.where(valid(ids, n), log_q[jnp.minimum(ids, n - 1)], 0)
