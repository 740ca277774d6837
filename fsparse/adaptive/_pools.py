"""Pools of candidates from a data set that can be indexed, with a place to resume."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fsparse import _checks

State = dict[str, Any]
_ORDERED_BY = ("num_examples", "num_candidates", "seed", "pool")


class Pool(NamedTuple):
    """Candidates that one batch is chosen from."""

    candidates: Any  # pytree of [M, ...]
    is_valid: NDArray[np.bool_]  # bool[M], false for padding


class Source(Protocol):
    """What :class:`~fsparse.adaptive.AdaptiveIterator` takes pools from."""

    def __next__(self) -> Pool: ...
    def get_state(self) -> State: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...


def pool_order(
    num_examples: int, batch_size: int, pool: int, *, seed: int = 0, epoch: int = 0
) -> NDArray[np.int64]:
    """The order of an epoch whose pools begin with other examples in each epoch.

    A permutation in pools of ``pool`` batches. It stays for ``pool`` epochs, and in
    each of them another batch is the first of its pool: training on the first ones, as
    ``adaptive_step(when_off="first")`` does while it is off, meets every example once
    in ``pool`` epochs. With ``pool=1``, each epoch has a permutation of its own.

    Args:
      num_examples: ``n``.
      batch_size: ``b``, examples of a pool that are trained on.
      pool: batches in a pool of ``M = pool * b`` candidates; the last pool may have
        fewer.
      seed: with ``epoch // pool``, it determines the permutation.
      epoch: the number of the epoch.

    Returns:
      ``i64[n]``.

    Raises:
      TypeError: if a number is no integer.
      ValueError: if a number is out of range.

    Example:
      >>> orders = [pool_order(8, 2, 2, epoch=epoch) for epoch in (0, 1)]
      >>> firsts = [order.reshape(2, 2, 2)[:, 0].ravel() for order in orders]
      >>> sorted(int(i) for i in np.concatenate(firsts))
      [0, 1, 2, 3, 4, 5, 6, 7]
    """
    fn = "adaptive.pool_order"
    _checks.require_count(fn, 0, num_examples=num_examples, seed=seed, epoch=epoch)
    _checks.require_count(fn, 1, batch_size=batch_size, pool=pool)
    group, turn = divmod(epoch, pool)
    order = np.random.default_rng((seed, group)).permutation(num_examples)
    whole = num_examples - num_examples % (pool * batch_size)
    pools = order[:whole].reshape(-1, pool, batch_size)
    turned = np.roll(pools, -turn, axis=1).ravel()
    return np.concatenate([turned, np.roll(order[whole:], -turn * batch_size)])


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
      pool: candidates for each example that is trained on, if other ones shall be first
        in each epoch: see :func:`pool_order`. It must divide ``num_candidates``.

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
        pool: int = 1,
    ) -> None:
        fn = "adaptive.Pools"
        sizes = {"num_examples": num_examples, "num_candidates": num_candidates}
        _checks.require_count(fn, 1, **sizes)
        _checks.require_count(fn, 0, seed=seed)
        _checks.require_count(fn, 1, pool=pool)
        if num_candidates % pool:
            raise ValueError(
                f"{fn}: num_candidates must be a multiple of pool; got "
                f"{num_candidates} and {pool}."
            )
        if num_epochs is not None:
            _checks.require_count(fn, 0, num_epochs=num_epochs)
        self._take, self._num_epochs = take, num_epochs
        self._fixed = {**sizes, "seed": seed, "pool": pool}
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
            n, m, seed, pool = (self._fixed[name] for name in _ORDERED_BY)
            self._order = epoch, pool_order(n, m // pool, pool, seed=seed, epoch=epoch)
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
