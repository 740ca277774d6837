"""Merged-average classifiers via hashing: millions of labels by a few small heads."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse.matmul import embedding_bag
from fsparse.nn._hashing import hashed
from fsparse.nn._objectives import OBJECTIVES
from fsparse.nn._products import product, with_one
from fsparse.nn._spec import Head, Key, hidden_of, labels_of, require_choice
from fsparse.reference import valid

Array = jax.Array
LABELS_A_BLOCK = 4096


@dataclass(frozen=True)
class Mach(Head):
    """Hashes labels into buckets, several times, and learns to classify buckets.

    Classifier ``r`` has the probabilities ``p_r`` of ``num_buckets`` buckets, and a
    label the score ``mean_r p_r[h_r(label)]``, with hash functions ``h_r``. Memory and
    a step's time are those of ``num_hashes * num_buckets`` labels.

    Args:
      width: of ``h``.
      num_labels: ``n``; ids outside ``[0, n)`` are padding.
      num_hashes: classifiers: few labels may share the buckets of all of them.
      num_buckets: of each; BOLT takes ``n / 25`` where there are many labels.
      objective: "softmax" over the buckets of each classifier, or "sigmoid", for labels
        that are independent of each other: that of a bucket which holds any.
      seed: of the hash functions, which are no parameters.

    ``params["kernel"]`` is ``f32[num_hashes * num_buckets, width + 1]``, the bias in
    its last column: a dense array, since each step computes all of it.

    Raises:
      TypeError: if a size is no integer, or ``h`` is not float32.
      ValueError: if a size or a name is out of range, or an array has another shape.

    Source: MACH (Medini et al., NeurIPS 2019; Huang et al., arXiv:1810.04254), whose
    estimate ``B / (B - 1) (score - 1 / B)`` ranks as the score does.

    Example:
      >>> head = Mach(3, num_labels=1000, num_hashes=4, num_buckets=20)
      >>> params, state = head.init(jax.random.key(0))
      >>> h, label_ids = jnp.ones((1, 3)), jnp.array([[7]])
      >>> losses, state = head.loss(params, state, h, label_ids)
      >>> losses.round(3)  # before training, log 20
      Array([2.996], dtype=float32)
      >>> head.top_k(params, state, h, k=2)[0].round(3)
      Array([[0.05, 0.05]], dtype=float32)
    """

    width: int
    num_labels: int
    num_hashes: int
    num_buckets: int
    objective: str = "softmax"
    seed: int = 0

    def __post_init__(self) -> None:
        fn = "nn.Mach"
        sizes = {
            "width": self.width,
            "num_labels": self.num_labels,
            "num_hashes": self.num_hashes,
        }
        _checks.require_count(fn, 1, **sizes)
        _checks.require_count(fn, 2, num_buckets=self.num_buckets)
        _checks.require_count(fn, 0, seed=self.seed)
        _checks.require_rows_fit(fn, self.num_labels)
        _checks.require_rows_fit(fn, self.num_hashes * self.num_buckets)
        require_choice(fn, tuple(OBJECTIVES), objective=self.objective)

    def init(self, key: Key) -> tuple[dict[str, Array], tuple[()]]:
        """Zeros."""
        del key
        shape = self.num_hashes * self.num_buckets, self.width + 1
        return {"kernel": jnp.zeros(shape)}, ()

    def buckets(self, label_ids: Array) -> Array:
        """``i32[..., num_hashes]`` of labels; ``num_buckets`` for padding."""
        own = hashed(label_ids, self.num_hashes, self.num_buckets, self.seed)
        is_label = valid(label_ids, self.num_labels)[..., None]
        return jnp.where(is_label, own, self.num_buckets)

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
        """The mean loss of the classifiers, ``f32[b]`` in nats, and the state.

        It is 0 for an example without labels.
        """
        del key, train
        logits = self._logits(params, h)
        label_ids = labels_of("nn.Mach", label_ids, logits)
        targets = jnp.swapaxes(self.buckets(label_ids), 1, 2)
        losses = OBJECTIVES[self.objective](
            logits.reshape(-1, self.num_buckets),
            targets.reshape(-1, label_ids.shape[1]),
            jnp.ones(self.num_buckets, bool),
        )
        return jnp.mean(losses.reshape(-1, self.num_hashes), axis=1), state

    def top_k(
        self, params: dict[str, Array], state: Any, h: Array, k: int
    ) -> tuple[Array, Array]:
        """The largest scores ``f32[b, k]`` and their ids ``i32[b, k]``, best first.

        Equal scores rank by id. Where there are fewer than ``k`` labels, or scores are
        NaN, the rest are ``-inf`` with id ``num_labels``. All labels are scored, 4,096
        at a time, so memory does not grow with them.
        """
        del state
        _checks.require_count("nn.Mach", 1, k=k)
        table = self._probabilities(params, h).T
        n, size = self.num_labels, min(LABELS_A_BLOCK, self.num_labels)

        def step(best: Any, first: Array) -> tuple[Any, None]:
            ids = first + jnp.arange(size, dtype=jnp.int32)
            scores = self._scores(table, ids)
            comparable = valid(ids, n) & ~jnp.isnan(scores)
            scores = jnp.where(comparable, scores, -jnp.inf)
            ids = jnp.where(comparable, ids, n)
            scores = jnp.concatenate([best[0], scores], axis=1)
            ids = jnp.concatenate([best[1], ids], axis=1)
            scores, at = jax.lax.top_k(scores, k)
            return (scores, jnp.take_along_axis(ids, at, axis=1)), None

        shape = table.shape[1], k
        none = jnp.full(shape, -jnp.inf), jnp.full(shape, n, jnp.int32)
        firsts = jnp.arange(0, n, size, dtype=jnp.int32)
        best, _ = jax.lax.scan(step, none, firsts)
        return best

    def apply(
        self,
        params: dict[str, Array],
        state: Any,
        h: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """The scores of all labels, ``f32[b, num_labels]``."""
        del key, train
        ids = jnp.arange(self.num_labels, dtype=jnp.int32)
        return self._scores(self._probabilities(params, h).T, ids), state

    def scores(
        self, params: dict[str, Array], state: Any, h: Array, label_ids: Array
    ) -> Array:
        """The scores ``f32[b, m]`` of the labels ``i32[m]``, and of no others."""
        del state
        return self._scores(self._probabilities(params, h).T, label_ids)

    def _logits(self, params: dict[str, Array], h: Array) -> Array:
        """``f32[b, num_hashes * num_buckets]``."""
        h = hidden_of("nn.Mach", h, self.width)
        return product(with_one(h, True), params["kernel"])

    def _probabilities(self, params: dict[str, Array], h: Array) -> Array:
        logits = self._logits(params, h)
        if self.objective == "sigmoid":
            return jax.nn.sigmoid(logits)
        parts = logits.reshape(-1, self.num_hashes, self.num_buckets)
        return jax.nn.softmax(parts, axis=2).reshape(logits.shape)

    def _scores(self, table: Array, ids: Array) -> Array:
        """``f32[b, m]``: a bag of ``num_hashes`` rows of probabilities for each label.

        The table is ``f32[num_hashes * num_buckets, b]``.
        """
        first = self.num_buckets * jnp.arange(self.num_hashes, dtype=jnp.int32)
        rows = self.buckets(ids) + first
        return embedding_bag(table, rows).T / self.num_hashes
