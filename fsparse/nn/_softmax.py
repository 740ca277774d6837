"""The head of few labels: all are computed."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.nn._objectives import OBJECTIVES
from fsparse.nn._products import product, with_one
from fsparse.nn._spec import Head, Key, hidden_of, labels_of, require_choice
from fsparse.topk import dense_top_k

Array = jax.Array


@dataclass(frozen=True)
class Softmax(Head):
    """A head of few labels, such as two for yes and no: ``logits = h @ w.T + bias``.

    Of a single label, the logit is that of having it: examples without it are negative
    ones, ``loss[i] = softplus(+-logits[i])``.

    ``params["kernel"]`` is ``f32[num_labels, width + 1]``, the bias in its last column.

    Args:
      width: of ``h``.
      num_labels: ``n``; ids outside ``[0, n)`` are padding.
      objective: "softmax", or "sigmoid" for labels that are independent of each other.

    Raises:
      TypeError: if a size is no integer, or ``h`` is not float32.
      ValueError: if a size or a name is out of range, or an array has another shape.

    Example:
      >>> head = Softmax(3, num_labels=2)
      >>> params, state = head.init(jax.random.key(0))
      >>> losses, state = head.loss(params, state, jnp.ones((1, 3)), jnp.array([[1]]))
      >>> losses  # before training, log 2
      Array([0.6931472], dtype=float32)
    """

    width: int
    num_labels: int
    objective: str = "softmax"

    def __post_init__(self) -> None:
        fn = "nn.Softmax"
        _checks.require_count(fn, 1, width=self.width, num_labels=self.num_labels)
        require_choice(fn, tuple(OBJECTIVES), objective=self.objective)

    def init(self, key: Key) -> tuple[dict[str, Array], tuple[()]]:
        """Zeros."""
        del key
        return {"kernel": jnp.zeros((self.num_labels, self.width + 1))}, ()

    def loss(
        self,
        params: dict[str, Array],
        state: Any,
        h: Array,
        label_ids: Array,
        *,
        key: Key | None = None,
        train: bool = True,
    ) -> tuple[Array, Any]:
        """``f32[b]`` in nats, 0 for an example without labels; and the state."""
        del key, train
        logits, state = self.apply(params, state, h)
        label_ids = labels_of("nn.Softmax", label_ids, logits)
        if self.num_labels == 1:
            has_it = jnp.any(label_ids == 0, axis=1)
            return jax.nn.softplus(jnp.where(has_it, -1, 1) * logits[:, 0]), state
        every = jnp.ones(self.num_labels, bool)
        return OBJECTIVES[self.objective](logits, label_ids, every), state

    def top_k(
        self, params: dict[str, Array], state: Any, h: Array, k: int
    ) -> tuple[Array, Array]:
        """The largest logits ``f32[b, k]`` and their ids ``i32[b, k]``, best first."""
        del state
        h = hidden_of("nn.Softmax", h, self.width)
        return dense_top_k(with_one(h, True), params["kernel"], k)

    def apply(
        self,
        params: dict[str, Array],
        state: Any,
        h: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """All logits, ``f32[b, num_labels]``."""
        del key, train
        h = hidden_of("nn.Softmax", h, self.width)
        return product(with_one(h, True), params["kernel"]), state
