"""How good a model is on a data set, and what it predicts there."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import _checks
from fsparse.data import prefetch
from fsparse.metrics import Ranked, find
from fsparse.train._sources import Data, Sizes, Source, source_of
from fsparse.train._step import Model, require_model

Array = jax.Array
Figures = Mapping[str, tuple[Array, Array]]


def evaluate(
    model: Model,
    params: Any,
    state: Any,
    data: Data,
    metrics: Sequence[str] = ("loss", "p@1"),
    *,
    batch_size: int = 256,
    feature_capacity: int | None = None,
    label_capacity: int | None = None,
    label_weights: Any = None,
) -> dict[str, float]:
    """Metrics of a model on a data set, by name.

    Args:
      model: see :class:`fsparse.train.Model`.
      params: its parameters.
      state: its other state.
      data: as for :func:`fsparse.fit`; a stream's epoch 0.
      metrics: names that :func:`fsparse.metrics.find` knows, such as ``"p@5"``.
      batch_size: examples at a time; they are padded to it, and padding does not count.
      feature_capacity: room for the features of an example; None for the longest row.
      label_capacity: room for its labels; None for the longest row.
      label_weights: ``f32[n]`` of :func:`fsparse.metrics.inverse_propensities`, for
        ``psp@k``.

    Returns:
      A number for each name. Sums are in double precision. Scores and losses that are
      not finite give what arithmetic gives: a mean with a NaN is NaN, and an ``auc``
      too; ranking takes the ids in the order in which the model gives them.

    Raises:
      TypeError: if ``model`` lacks a function, or ``data`` is of another type.
      ValueError: if a name is unknown, a metric looks at more labels than there are,
        ``psp@k`` has no weights, there is no example, or a row is longer than its room.

    Labels are the ``label_ids`` of a batch: an attribute, or a key of a dict. Where
    ``data`` is no :class:`fsparse.data.Dataset`, their number is ``model.num_labels``.

    Example:
      >>> from fsparse.data import Dataset, from_lists
      >>> class Always:  # predicts label 1, then 0
      ...     def init(self, key): ...
      ...     def loss(self, params, state, batch, *, key=None, train=True): ...
      ...     def predict(self, params, state, batch, k):
      ...         ids = jnp.tile(jnp.array([1, 0]), (len(batch.label_ids), 1))
      ...         return -ids[:, :k].astype(jnp.float32), ids[:, :k]
      >>> rows = from_lists([[1], [0], [1, 0], [1]], 2)
      >>> evaluate(Always(), (), (), Dataset(rows, rows), ["p@1", "recall@1"])
      {'p@1': 0.75, 'recall@1': 0.625}
    """
    fn = "evaluate"
    require_model(fn, model)
    _checks.require_count(fn, 1, batch_size=batch_size)
    sizes = Sizes(batch_size, feature_capacity, label_capacity)
    source = source_of(fn, "data", data, sizes)
    return evaluated(fn, model, params, state, source, metrics, label_weights)


def evaluated(
    fn: str,
    model: Model,
    params: Any,
    state: Any,
    source: Source,
    names: Sequence[str],
    label_weights: Any = None,
) -> dict[str, float]:
    """The same, of a source."""
    program = _program(fn, model, source, names)
    totals = {name: find(name).start() for name in dict.fromkeys(names)}
    num_examples = 0
    if label_weights is not None:
        label_weights = jnp.asarray(label_weights, jnp.float32)
    for number, (batch, is_valid) in enumerate(prefetch(source.batches(0))):
        figures = program(params, state, batch, label_weights, number)
        num_examples += int(np.sum(is_valid))
        for name, pair in figures.items():
            totals[name].add(*(np.asarray(x)[is_valid] for x in pair))
    if not num_examples:
        raise ValueError(f"{fn}: data must have at least 1 example; got 0.")
    return {name: total.result() for name, total in totals.items()}


def require_evaluable(
    fn: str,
    model: Model,
    params: Any,
    state: Any,
    source: Source,
    names: Sequence[str],
    label_weights: Any = None,
) -> None:
    """Raises, of shapes alone, what :func:`evaluated` would raise."""
    program = _program(fn, model, source, names)
    for batch, _ in source.batches(0):
        jax.eval_shape(program, params, state, batch, label_weights, 0)
        break


def _program(
    fn: str, model: Model, source: Source, names: Sequence[str]
) -> Callable[..., Figures]:
    """The compiled function of a batch; that of equal arguments is the same."""
    wanted = tuple(dict.fromkeys(names))
    return partial(_figures, model, wanted, *_ranking(fn, model, source, wanted))


def _ranking(
    fn: str, model: Model, source: Source, names: Sequence[str]
) -> tuple[int | None, int]:
    """The number of labels, and of those that must be ranked."""
    ranked = [m for m in map(find, names) if m.num_ranked != 0]
    if not ranked:
        return None, 0
    n = source.num_labels
    n = getattr(model, "num_labels", None) if n is None else n
    if n is None:
        raise ValueError(
            f"{fn}: {ranked[0].name} must know the number of labels; got a stream and "
            f"a {type(model).__name__} without num_labels. Give the model that "
            "attribute, or pass a data.Dataset."
        )
    most = max(ranked, key=lambda m: m.num_ranked or 0)
    if (most.num_ranked or 0) > n:
        raise ValueError(
            f"{fn}: a metric must look at no more labels than there are, {n}; got "
            f"{most.name}."
        )
    k = max(n if m.num_ranked is None else m.num_ranked for m in ranked)
    return n, k


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _figures(
    model: Model,
    names: tuple[str, ...],
    num_labels: int | None,
    k: int,
    params: Any,
    state: Any,
    batch: Any,
    label_weights: Any,
    number: int,
) -> Figures:
    """The pairs of numbers that each metric needs, of each example of a batch."""
    losses = scores = ids = labels = None
    if "loss" in names:
        key = jax.random.fold_in(jax.random.key(0), number)
        losses, _ = model.loss(params, state, batch, key=key, train=False)
    if k:
        labels = _labels_of(batch)
        scores, ids = model.predict(params, state, batch, k)
    ranked = Ranked(losses, scores, ids, labels, num_labels, label_weights)
    return {name: find(name).of_batch(ranked) for name in names}


def _labels_of(batch: Any) -> Any:
    """``label_ids``, an attribute or a key."""
    if hasattr(batch, "label_ids"):
        return batch.label_ids
    if isinstance(batch, Mapping) and "label_ids" in batch:
        return batch["label_ids"]
    raise TypeError(
        "evaluate: a batch must have label_ids, as an attribute or a key, to rank "
        f"predictions; got {type(batch).__name__}. Pass metrics=('loss',) for others."
    )


def predict(
    model: Model,
    params: Any,
    state: Any,
    data: Data,
    k: int,
    *,
    batch_size: int = 256,
    feature_capacity: int | None = None,
    label_capacity: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best ``k`` labels of each example, in the order of the data.

    Args:
      model: see :class:`fsparse.train.Model`.
      params: its parameters.
      state: its other state.
      data: as for :func:`fsparse.fit`; the labels do not matter, and may be empty rows.
      k: labels to predict.
      batch_size: examples at a time; padding is left out of the result.
      feature_capacity: room for the features of an example; None for the longest row.
      label_capacity: room for its labels; None for the longest row.

    Returns:
      Scores ``f32[m, k]``, the largest first, and ids ``i32[m, k]``, numpy arrays, as
      ``model.predict`` gives them: NaN and infinities are passed on.

    Raises:
      TypeError: if ``model`` lacks a function, or ``data`` is of another type.
      ValueError: if there is no example, or a row is longer than its room.

    Example:
      >>> from fsparse.data import Dataset, from_lists
      >>> class Echo:  # predicts the id of the first feature
      ...     def init(self, key): ...
      ...     def loss(self, params, state, batch, *, key=None, train=True): ...
      ...     def predict(self, params, state, batch, k):
      ...         return batch.feature_weights[:, :k], batch.feature_ids[:, :k]
      >>> features = from_lists([[4], [2], [3]], 5)
      >>> scores, ids = predict(Echo(), (), (), Dataset(features, features), 1)
      >>> ids.tolist()
      [[4], [2], [3]]
    """
    fn = "predict"
    require_model(fn, model)
    _checks.require_count(fn, 1, k=k, batch_size=batch_size)
    sizes = Sizes(batch_size, feature_capacity, label_capacity)
    source = source_of(fn, "data", data, sizes)
    parts = [
        [np.asarray(x)[is_valid] for x in _predicted(model, k, params, state, batch)]
        for batch, is_valid in prefetch(source.batches(0))
    ]
    if not parts:
        raise ValueError(f"{fn}: data must have at least 1 example; got 0.")
    scores, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return scores, ids


@partial(jax.jit, static_argnums=(0, 1))
def _predicted(model: Model, k: int, params: Any, state: Any, batch: Any) -> Any:
    return model.predict(params, state, batch, k)
