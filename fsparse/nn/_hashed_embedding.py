"""Embeddings of more features than there is memory for."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.matmul import embedding_bag
from fsparse.nn._hashing import hashed
from fsparse.nn._spec import Key, Layer, require_dtype_name
from fsparse.reference import valid
from fsparse.table import Table

Array = jax.Array


@dataclass(frozen=True)
class HashedEmbedding(Layer):
    """An embedding bag whose rows are made of blocks of one shared memory.

    Row ``i`` is ``width / block`` blocks of the memory, ``memory[h_c(i)]`` for
    ``c = 0, 1, ...``, with hash functions ``h_c``: two features share a row with the
    chance of sharing all of its blocks. ``apply`` is that of
    :class:`fsparse.nn.EmbeddingBag`.

    Args:
      num_features: ids outside ``[0, num_features)`` are padding.
      width: ``d``, of a row.
      memory: floats in all, a multiple of ``block``: what ``num_features * width`` is
        for an embedding bag.
      block: floats that are read together; divides ``width``.
      seed: of the hash functions, which are no parameters.
      dtype: of the memory, "float32" or "bfloat16".

    ``params["memory"]`` is a :class:`fsparse.Table`, ``[memory / block, block]``. Its
    gradients are row gradients.

    Raises:
      TypeError: if a size is no integer.
      ValueError: if a size is less than 1, or ``block`` does not divide ``width`` and
        ``memory``; and, when applied, as :func:`fsparse.embedding_bag`.

    Source: ROBE (Desai, Chou, Shrivastava, MLSys 2022, section 3), whose blocks may
    start anywhere; here they start at multiples of ``block``, so that each is a row of
    a table, read and updated by the ops that all tables have.

    Example:
      >>> layer = HashedEmbedding(10**9, 8, memory=4096, block=4)
      >>> params, state = layer.init(jax.random.key(0))
      >>> params["memory"].shape
      (1024, 4)
      >>> layer.apply(params, state, jax.numpy.array([[3, 999_999_999]]))[0].shape
      (1, 8)
    """

    num_features: int
    width: int
    memory: int
    block: int = 16
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        fn = "nn.HashedEmbedding"
        sizes = {
            "num_features": self.num_features,
            "width": self.width,
            "memory": self.memory,
            "block": self.block,
        }
        _checks.require_count(fn, 1, **sizes)
        _checks.require_count(fn, 0, seed=self.seed)
        _checks.require_rows_fit(fn, self.num_features)
        _checks.require_rows_fit(fn, self.memory // self.block)
        require_dtype_name(fn, self.dtype)
        if self.width % self.block or self.memory % self.block:
            raise ValueError(
                f"{fn}: block must divide width and memory; got block {self.block}, "
                f"width {self.width} and memory {self.memory}."
            )

    def init(self, key: Key) -> tuple[dict[str, Any], tuple[()]]:
        """Normal floats of variance ``1 / width``."""
        shape = self.memory // self.block, self.block
        memory = jax.random.normal(key, shape) / self.width**0.5
        return {"memory": Table(memory.astype(self.dtype))}, ()

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
        """``f32[b, width]``: bags of blocks, ``width / block`` of each example."""
        del key, train
        fn = "nn.HashedEmbedding"
        (ids,) = _checks.as_arrays(fn, ids=ids)
        _checks.require_ids(fn, ids=ids)
        _checks.require_rank(fn, 2, ids=ids)
        blocks = self.blocks(ids)
        if weights is not None:
            (weights,) = _checks.as_arrays(fn, weights=weights)
            _checks.require(
                fn,
                weights.shape == ids.shape,
                "weights and ids must have one shape",
                weights=weights,
                ids=ids,
            )
            weights = jnp.repeat(weights, self.width // self.block, axis=0)
        out = embedding_bag(params["memory"], blocks, weights)
        return out.reshape(ids.shape[0], self.width), state

    def blocks(self, ids: Array) -> Array:
        """``i32[b * width / block, k]``, rows of the memory; padding stays padding."""
        num_rows, each = self.memory // self.block, self.width // self.block
        rows = hashed(ids, each, num_rows, self.seed)
        is_feature = valid(ids, self.num_features)[..., None]
        rows = jnp.where(is_feature, rows, num_rows)
        return jnp.swapaxes(rows, 1, 2).reshape(-1, ids.shape[1])

    def active_fraction(self) -> None:
        """The batch decides."""
        return
