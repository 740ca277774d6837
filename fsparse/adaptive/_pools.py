"""Pools of candidates from a data set that can be indexed, with a place to resume."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fsparse import _checks

State = dict[str, Any]


class Pool(NamedTuple):
    """Candidates that one batch is chosen from."""

    candidates: Any  # pytree of [M, ...]
    is_valid: NDArray[np.bool_]  # bool[M], false for padding


class Source(Protocol):
    """What :class:`~fsparse.adaptive.AdaptiveIterator` takes pools from."""

    def __next__(self) -> Pool: ...
    def get_state(self) -> State: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...


class Pools(Iterator[Pool]):
    """Every example once an epoch, in a random order, ``M`` at a time.

    Args:
      take: ``i64[M] indices -> pytree of arrays [M, ...]``, those examples. Whatever a
        scorer is to see must be in it, such as the indices themselves for
        :func:`~fsparse.adaptive.cache`.
      num_examples: ``n``, at least 1.
      num_candidates: ``M``, at least 1. The last pool of an epoch is filled up with
        repeats that are not valid.
      seed: with the number of the epoch, it determines the order.
      num_epochs: None for no end.

    Raises:
      TypeError: if a size is no integer.
      ValueError: if a size is out of range, or a state is that of other pools.

    ``get_state()`` is a dict of integers. ``set_state(state)`` of a new object with the
    same arguments goes on from there.

    Example:
      >>> pools = Pools(lambda indices: {"id": indices}, 5, 3, num_epochs=1)
      >>> [pool.is_valid.tolist() for pool in pools]
      [[True, True, True], [True, True, False]]
    """

    def __init__(
        self,
        take: Callable[[NDArray[np.int64]], Any],
        num_examples: int,
        num_candidates: int,
        *,
        seed: int = 0,
        num_epochs: int | None = None,
    ) -> None:
        fn = "adaptive.Pools"
        sizes = {"num_examples": num_examples, "num_candidates": num_candidates}
        _checks.require_count(fn, 1, **sizes)
        _checks.require_count(fn, 0, seed=seed)
        if num_epochs is not None:
            _checks.require_count(fn, 0, num_epochs=num_epochs)
        self._take, self._num_epochs = take, num_epochs
        self._fixed = {**sizes, "seed": seed}
        self._epoch = self._position = 0
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __iter__(self) -> "Pools":
        return self

    def __next__(self) -> Pool:
        n, m = self._fixed["num_examples"], self._fixed["num_candidates"]
        if self._num_epochs is not None and self._epoch >= self._num_epochs:
            raise StopIteration
        order = self._order_of(self._epoch)
        indices = order[self._position : self._position + m]
        is_valid = np.arange(m) < len(indices)
        pool = Pool(self._take(np.resize(indices, m)), is_valid)
        self._position += m
        if self._position >= n:
            self._epoch, self._position = self._epoch + 1, 0
        return pool

    def get_state(self) -> State:
        """Where the next pool begins."""
        return {**self._fixed, "epoch": self._epoch, "position": self._position}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to where ``state`` was."""
        require_same("adaptive.Pools", self._fixed, state)
        self._epoch, self._position = int(state["epoch"]), int(state["position"])

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self._fixed["seed"], epoch))
            self._order = epoch, rng.permutation(self._fixed["num_examples"])
        return self._order[1]


def require_same(fn: str, ours: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """A state belongs to an object that was made with the same arguments."""
    for name, value in ours.items():
        if state.get(name) != value:
            raise ValueError(
                f"{fn}: the state must be of an object with the same {name}; got "
                f"{state.get(name)} in the state, {value} here. Make the object with "
                "the arguments of the run that is resumed."
            )
