"""The wide layer: of all labels, the loss computes an active set."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import _checks, lsh, samplers
from fsparse._queries import Query
from fsparse.active_sets import ActiveSet, active_set
from fsparse.losses import fused_softmax_loss
from fsparse.lsh._default import default_bits
from fsparse.matmul import sampled_matmul
from fsparse.nn._objectives import OBJECTIVES
from fsparse.nn._popularity import (
    log_chance,
    popularity_sampler,
    popularity_state,
)
from fsparse.nn._products import product, with_one
from fsparse.nn._spec import (
    Head,
    Key,
    hidden_of,
    labels_of,
    require_choice,
    require_dtype_name,
    training_key,
)
from fsparse.reference import valid
from fsparse.samplers import Sampler
from fsparse.table import Table
from fsparse.topk import dense_top_k

Array = jax.Array
FUSED_FROM = 1 << 22  # logits, from which they outgrow the caches
SAMPLERS = ("popularity", "uniform", "in_batch", "lsh", "mix", "top_k")
HASHED = ("lsh", "mix")


@dataclass(frozen=True)
class SparseLinear(Head):
    """A head of very many labels, of which a step computes and updates an active set.

    ``logits = [h, 1] . table[ids]`` for the ``ids`` that are active: the labels of the
    batch, and negatives. ``params["table"]`` is a :class:`fsparse.Table`, a row for
    each label, with the bias in its last column.

    Args:
      width: of ``h``.
      num_labels: ``n``; ids outside ``[0, n)`` are padding.
      num_negatives: candidates beside the labels. If all labels fit, all are active,
        and the loss is the full one.
      sampler: of negatives: "popularity" (see ``with_label_counts``), "uniform",
        "in_batch", "lsh" (rows that hash as the examples do), "mix" (half of those and
        half uniform) or "top_k", by :mod:`fsparse.samplers` and :mod:`fsparse.lsh`.
      scope: "shared", one set for the batch, or "per_example", one for each example.
      objective: "softmax", or "sigmoid" for labels that are independent of each other.
      bias: whether the rows have one column more than ``h``. Rows of 128, with a
        ``width`` of 127, are as fast as any.
      log_q: whether the softmax is corrected for the chances of popular labels, with
        the sampler "popularity".
      power: of the counts; 0 is uniform.
      num_tables: of the hash tables, for "lsh" and "mix".
      refresh_every: steps after which they are built anew of the rows as they are then.
      dtype: of the table, "float32" or "bfloat16".

    A shared set costs least, and by popularity with ``log_q`` it was the best for its
    time, or near it, on all that fsparse was measured on.

    Raises:
      TypeError: if a size is no integer, or ``h`` is not float32.
      ValueError: if a size or a name is out of range, or an array has another shape.

    Source: BOLT (arXiv:2303.17727) and SLIDE (Chen et al. 2020); the correction is that
    of Bengio and Senecal (2008).

    Example:
      >>> head = SparseLinear(7, num_labels=1000, num_negatives=20)
      >>> params, state = head.init(jax.random.key(0))
      >>> state = head.with_label_counts(state, jnp.arange(1000))
      >>> h, label_ids = jnp.ones((2, 7)), jnp.array([[3], [9]])
      >>> key = jax.random.key(1)
      >>> losses, state = head.loss(params, state, h, label_ids, key=key)
      >>> scores, ids = head.top_k(params, state, h, k=5)
      >>> losses.shape, ids.shape
      ((2,), (2, 5))
    """

    width: int
    num_labels: int
    num_negatives: int = 4096
    sampler: str = "popularity"
    scope: str = "shared"
    objective: str = "softmax"
    bias: bool = True
    log_q: bool = True
    power: float = 0.75
    num_tables: int = 16
    refresh_every: int = 50
    dtype: str = "float32"

    def __post_init__(self) -> None:
        fn = "nn.SparseLinear"
        _checks.require_count(fn, 1, width=self.width, num_labels=self.num_labels)
        _checks.require_rows_fit(fn, self.num_labels)
        _checks.require_count(fn, 0, num_negatives=self.num_negatives)
        of_index = {"num_tables": self.num_tables, "refresh_every": self.refresh_every}
        _checks.require_count(fn, 1, **of_index)
        require_choice(fn, SAMPLERS, sampler=self.sampler)
        require_choice(fn, ("shared", "per_example"), scope=self.scope)
        require_choice(fn, tuple(OBJECTIVES), objective=self.objective)
        _checks.require_between(fn, 0, 1e3, power=self.power)
        require_dtype_name(fn, self.dtype)

    def init(self, key: Key) -> tuple[dict[str, Any], dict[str, Any]]:
        """Normal rows of deviation .01, as BOLT's, and what the sampler keeps.

        That is an index, and the steps it has seen, or label counts, all alike; and
        ``state["search"]``, None until :meth:`with_index` or :meth:`with_tuned_search`.
        """
        of_table, of_index = jax.random.split(key)
        shape = self.num_labels, self.width + self.bias
        table = 0.01 * jax.random.normal(of_table, shape)
        params = {"table": Table(table.astype(self.dtype))}
        state: dict[str, Any] = {"search": None}
        if self.sampler == "popularity":
            state["popularity"] = popularity_state(np.ones(self.num_labels), self.power)
        if self.sampler in HASHED:
            family = self._family(of_index, self.num_tables)
            state["index"] = lsh.build(family, params["table"].value)
            state["step"] = jnp.zeros((), jnp.int32)
        return params, state

    def with_label_counts(self, state: Any, counts: Any) -> Any:
        """The state with how often each label is seen in training.

        Args:
          state: of this head.
          counts: numbers ``[num_labels]``, at least 0, known outside of ``jit``, such
            as :func:`fsparse.data.column_counts` of the labels. Only "popularity" asks
            for them.
        """
        if self.sampler != "popularity":
            return state
        if jnp.shape(counts) != (self.num_labels,):
            raise ValueError(
                f"nn.SparseLinear: counts must have {self.num_labels} entries, one for "
                f"each label; got shape {jnp.shape(counts)}."
            )
        return {**state, "popularity": popularity_state(counts, self.power)}

    def loss(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        h: Array,
        label_ids: Array,
        *,
        key: Key | None = None,
        train: bool = True,
    ) -> tuple[Array, dict[str, Any]]:
        """The loss of each example in the active set, and the next state.

        Args:
          params: of this head.
          state: of this head.
          h: ``f32[b, width]``.
          label_ids: ``i32[b, l]``.
          key: of the negatives. Without ``train`` it may be None: then they are the
            same ones each time.
          train: whether this is a step of training, which the hash tables count.

        Returns:
          ``f32[b]`` in nats, 0 for an example without labels; and the state.
        """
        fn = "nn.SparseLinear"
        h = hidden_of(fn, h, self.width)
        label_ids = labels_of(fn, label_ids, h)
        key = training_key(fn, key, train)
        state = self._stepped(params, state) if train else state
        x, table = with_one(h, self.bias), params["table"]
        sampler = self._sampler(state)
        active = self._active(sampler, key, Query(label_ids, x, table))
        log_q = None
        if self._is_corrected(active):
            log_q = self._log_q(state, active, label_ids)
        return self._losses(x, table, active, log_q), state

    def top_k(
        self, params: dict[str, Any], state: dict[str, Any], h: Array, k: int
    ) -> tuple[Array, Array]:
        """The largest logits ``f32[b, k]`` and their ids ``i32[b, k]``, best first.

        By :func:`fsparse.dense_top_k`, or in ``state["search"]`` if there is one.
        """
        x = with_one(hidden_of("nn.SparseLinear", h, self.width), self.bias)
        if state["search"] is None:
            return dense_top_k(x, params["table"], k)
        return lsh.search(state["search"], x, params["table"].value, k)

    def apply(
        self,
        params: dict[str, Any],
        state: Any,
        h: Array,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[Array, Any]:
        """All logits, ``f32[b, num_labels]``."""
        del key, train
        x = with_one(hidden_of("nn.SparseLinear", h, self.width), self.bias)
        return product(x, params["table"]), state

    def scores(
        self, params: dict[str, Any], state: Any, h: Array, label_ids: Array
    ) -> Array:
        """The logits ``f32[b, m]`` of the labels ``i32[m]``, and of no others."""
        del state
        x = with_one(hidden_of("nn.SparseLinear", h, self.width), self.bias)
        return sampled_matmul(x, params["table"], label_ids)

    def with_index(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        *,
        key: Key,
        size: int,
        num_probes: int = 1,
    ) -> dict[str, Any]:
        """The state with hash tables of the rows as they are, for :meth:`top_k`.

        Args:
          params: of this head, trained.
          state: of this head.
          key: of the hash functions, of :func:`fsparse.lsh.default_family`.
          size: labels scored for an example, as of :func:`fsparse.lsh.top_k`.
          num_probes: as there.
        """
        table = params["table"]
        index = lsh.build(self._family(key), table, mips=lsh.mips(table))
        size = min(size, self.num_labels)
        search = lsh.TunedSearch(index, num_probes, size, False, (), 0.0, "as told")
        return {**state, "search": search}

    def with_tuned_search(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        h: Array,
        *,
        key: Key,
        **options: Any,
    ) -> dict[str, Any]:
        """The state with the fastest search for :meth:`top_k` that finds enough.

        Args:
          params: of this head, trained.
          state: of this head.
          h: ``f32[b, width]`` of examples like those to come.
          key: of the hash functions.
          **options: of :func:`fsparse.lsh.tune`, such as ``k`` and ``recall``.
        """
        x = with_one(hidden_of("nn.SparseLinear", h, self.width), self.bias)
        search = lsh.tune(key, x, params["table"].value, **options)
        return {**state, "search": search}

    def active_fraction(self) -> float:
        """Of the rows, without the labels of the batch."""
        return min(self.num_negatives / self.num_labels, 1.0)

    # ---- the active set -------------------------------------------------------------

    def _family(self, key: Key, num_tables: int | None = None) -> Any:
        width = self.width + self.bias
        if num_tables is None:
            return lsh.default_family(key, self.num_labels, width)
        num_bits = default_bits(self.num_labels)
        return lsh.simhash(key, width, num_tables=num_tables, num_bits=num_bits)

    def _stepped(self, params: dict[str, Any], state: dict[str, Any]) -> Any:
        """Hash tables of the rows as they are, every so many steps."""
        if self.sampler not in HASHED:
            return state
        table = jax.lax.stop_gradient(params["table"].value)
        index = jax.lax.cond(
            state["step"] % self.refresh_every == 0,
            lambda index: lsh.build(index.family, table),
            lambda index: index,
            state["index"],
        )
        return {**state, "index": index, "step": state["step"] + 1}

    def _sampler(self, state: dict[str, Any]) -> Sampler:
        n = self.num_labels
        match self.sampler:
            case "popularity":
                return popularity_sampler(state["popularity"])
            case "uniform":
                return samplers.uniform(n)
            case "in_batch":
                return samplers.in_batch()
            case "top_k":
                return samplers.top_k()
        hard = lsh.sampler(state["index"])
        if self.sampler == "lsh":
            return hard
        return samplers.mix(hard, samplers.uniform(n), 0.5)

    def _active(self, sampler: Sampler, key: Key, query: Query) -> ActiveSet:
        """Room for all labels and candidates; uniform ones where an index has few."""
        n, each = self.num_labels, self.scope == "per_example"
        room = query.labels.shape[1] if each else query.labels.size
        count = self.num_negatives
        if self.sampler == "in_batch":
            count = min(count, query.labels.size) if each else 0
        of_sampler, of_fill = jax.random.split(key)
        rest = []
        if count:
            rest.append(sampler.sample(of_sampler, query, count, each))
        elif each:
            rest.append(jnp.full((len(query.labels), 1), n, jnp.int32))
        if count and self.sampler in HASHED:
            rest.append(samplers.uniform(n).sample(of_fill, query, count, each))
        size = max(min(room + count, n), 1)
        return active_set(query.labels, *rest, num_rows=n, size=size)

    def _losses(
        self, x: Array, table: Any, active: ActiveSet, log_q: Array | None
    ) -> Array:
        """By logits that are never held, where these are many."""
        ids, targets, is_active, _ = active
        is_large = len(x) * ids.shape[-1] >= FUSED_FROM
        if is_large and ids.ndim == 1 and self.objective == "softmax":
            offsets = None if log_q is None else -log_q
            return fused_softmax_loss(x, table, ids, targets, is_active, offsets)
        logits = sampled_matmul(x, table, ids)
        if log_q is not None:
            logits -= log_q
        return OBJECTIVES[self.objective](logits, targets, is_active)

    def _log_q(self, state: dict[str, Any], active: ActiveSet, labels: Array) -> Array:
        """In a shared set, labels of other examples are as good as drawn, too."""
        size: Array | int = self.num_negatives
        if self.scope == "shared":
            size += jnp.sum(valid(labels, self.num_labels))
        return log_chance(state["popularity"], active.ids, size)

    def _is_corrected(self, active: ActiveSet) -> bool:
        """Where chances differ and are known, and not all labels are active anyway."""
        known = self.sampler == "popularity" and self.num_negatives > 0
        softmax = self.objective == "softmax"
        return (
            self.log_q and known and softmax and active.ids.shape[-1] < self.num_labels
        )
