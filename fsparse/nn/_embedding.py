"""Sums of embeddings of the features that are present."""

from dataclasses import dataclass
from typing import Any

import jax

from fsparse import _checks
from fsparse.matmul import embedding_bag
from fsparse.nn._spec import Key, Layer, require_dtype_name
from fsparse.table import Table

Array = jax.Array


@dataclass(frozen=True)
class EmbeddingBag(Layer):
    """Weighted sums of the rows of a wide table: ``sum_j weights[j] table[ids[j]]``.

    ``apply(params, state, ids, weights=None)``: ids ``i32[b, k]``, weights
    ``f32[b, k]``, 1 by default; output ``f32[b, width]``. Ids outside
    ``[0, num_features)`` are padding.

    Args:
      num_features: ``n``, rows of the table.
      width: ``d``, of a row.
      dtype: of the table, "float32" or "bfloat16".

    ``params["table"]`` is a :class:`fsparse.Table`, whose rows start with a length of
    about 1, and whose gradients :func:`fsparse.value_and_grad` keeps by rows.

    Raises:
      TypeError: if a size is no integer.
      ValueError: if a size is less than 1, or there is no such dtype; and, when
        applied, as :func:`fsparse.embedding_bag`.

    Example:
      >>> layer = EmbeddingBag(1000, 8)
      >>> params, state = layer.init(jax.random.key(0))
      >>> ids = jax.numpy.array([[3, 7, 1000]])  # two features, and padding
      >>> layer.apply(params, state, ids)[0].shape
      (1, 8)
    """

    num_features: int
    width: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        fn = "nn.EmbeddingBag"
        sizes = {"num_features": self.num_features, "width": self.width}
        _checks.require_count(fn, 1, **sizes)
        _checks.require_rows_fit(fn, self.num_features)
        require_dtype_name(fn, self.dtype)

    def init(self, key: Key) -> tuple[dict[str, Any], tuple[()]]:
        """Normal rows of variance ``1 / width``."""
        shape = self.num_features, self.width
        table = jax.random.normal(key, shape) / self.width**0.5
        return {"table": Table(table.astype(self.dtype))}, ()

    def apply(
        self,
        params: dict[str, Any],
        state: tuple[()],
        ids: Array,
        weights: Array | None = None,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, tuple[()]]:
        """``f32[b, width]``."""
        del key, train
        return embedding_bag(params["table"], ids, weights), state

    def active_fraction(self) -> None:
        """The batch decides."""
        return
