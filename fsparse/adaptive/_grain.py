"""Adaptive selection as a data set of grain, if that is installed.

Reading, decoding and shuffling stay grain's: the parent gives batches of candidates,
and this one gives what was chosen of them.
"""

import base64
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fsparse.adaptive._iterator import AdaptiveIterator, Weighted
from fsparse.adaptive._pools import Pool, State
from fsparse.adaptive._scorers import Scorer
from fsparse.adaptive._selection import Selector


def grain_dataset(
    parent: Any, scorer: Scorer, selector: Selector, *, seed: int = 0
) -> Any:
    """A ``grain.IterDataset`` of pairs ``(batch, weights)``.

    Args:
      parent: a ``grain.IterDataset`` or ``grain.MapDataset`` whose elements are batches
        of candidates, pytrees of arrays ``[M, ...]``, as its ``batch(M)`` makes.
      scorer: how much each candidate matters.
      selector: which of them to take, such as :func:`~fsparse.adaptive.systematic`.
      seed: of the scorer and of the draws.

    Returns:
      A data set whose iterators have, besides ``get_state`` and ``set_state``, the
      ``update``, ``pending`` and ``train_state`` of
      :class:`~fsparse.adaptive.AdaptiveIterator`. Targets go back by ``update``, so it
      is the last of a pipeline, and does not run ahead in another thread or process;
      its parents may. States are made of what JSON can hold.

    Raises:
      ImportError: if grain is not installed.
      TypeError: if ``scorer`` is none.

    Example:
      >>> from fsparse import adaptive
      >>> candidates = grain.MapDataset.range(100).batch(8)  # doctest: +SKIP
      >>> dataset = grain_dataset(
      ...     candidates, adaptive.uniform(), adaptive.priority(4)
      ... )  # doctest: +SKIP
      >>> batches = iter(dataset)  # doctest: +SKIP
    """
    try:
        import grain
    except ImportError as e:
        raise ImportError(
            "adaptive.grain_dataset: grain must be installed: pip install "
            "'fsparse[grain]'. adaptive.AdaptiveIterator does without it."
        ) from e

    class Batches(grain.DatasetIterator):
        def __init__(self, candidates: Any) -> None:
            super().__init__(candidates)
            source = _Source(candidates)
            self._batches = AdaptiveIterator(source, scorer, selector, seed=seed)
            self.update = self._batches.update

        @property
        def pending(self) -> Weighted | None:
            return self._batches.pending

        @property
        def train_state(self) -> Any:
            return self._batches.train_state

        @train_state.setter
        def train_state(self, train_state: Any) -> None:
            self._batches.train_state = train_state

        def __next__(self) -> Weighted:
            self._assert_not_closed()
            return next(self._batches)

        def get_state(self) -> State:
            return _to_json(self._batches.get_state())

        def set_state(self, state: Mapping[str, Any]) -> None:
            self._batches.set_state(_from_json(state))

    class Adaptive(grain.IterDataset):
        def __iter__(self) -> Batches:
            return Batches(iter(self.parents[0]))

    if isinstance(parent, grain.MapDataset):
        parent = parent.to_iter_dataset()
    return Adaptive(parent)


class _Source:
    """Pools of what grain batches; all of it is valid."""

    def __init__(self, candidates: Any) -> None:
        self._candidates = candidates

    def __next__(self) -> Pool:
        candidates = next(self._candidates)
        m = len(jax.tree.leaves(candidates)[0])
        return Pool(candidates, np.ones(m, bool))

    def get_state(self) -> State:
        return self._candidates.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._candidates.set_state(state)


_ARRAYS = ("indices", "weights")


def _to_json(state: Mapping[str, Any]) -> State:
    arrays = {name: _encoded(state[name]) for name in _ARRAYS}
    return {**state, **arrays, "scorer": [_encoded(leaf) for leaf in state["scorer"]]}


def _from_json(state: Mapping[str, Any]) -> State:
    arrays = {name: _decoded(state[name]) for name in _ARRAYS}
    return {**state, **arrays, "scorer": [_decoded(leaf) for leaf in state["scorer"]]}


def _encoded(array: Any) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decoded(saved: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(saved["data"]), np.dtype(saved["dtype"]))
    return flat.reshape(saved["shape"])
