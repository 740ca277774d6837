"""Selection on the host: the accelerator never sees what was not chosen.

    a pool of candidates -> encode, score -> select -> (batch, weights) -> targets

The same scorers and selectors as in a compiled step, around a data loader.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsparse import _checks
from fsparse.adaptive._pools import Pool, Source, State, require_same
from fsparse.adaptive._scorers import Scorer
from fsparse.adaptive._selection import Selection, Selector, take_selected

Array = jax.Array
Weighted = tuple[Any, NDArray[np.float32]]  # pytree of [b, ...], f32[b]


class AdaptiveIterator(Iterator[Weighted]):
    """Batches of the candidates that matter, with weights, from a source of pools.

    Each step takes a pool, scores it, and yields what the selector chose of it. The
    loss to minimise is ``mean(weights * losses)``; what the step computed goes back::

        for batch, weights in batches:
            train_state, losses = train_step(train_state, batch, weights)
            batches.update(losses)

    Args:
      pools: such as :class:`~fsparse.adaptive.Pools`: an iterator of pairs of
        candidates and ``is_valid``, with ``get_state`` and ``set_state``.
      scorer: how much each candidate matters.
      selector: which of them to take, such as :func:`~fsparse.adaptive.systematic`.
      seed: of the scorer and of the draws; step ``t`` has a key of its own.
      train_state: what scorers that look at the model are shown. It is an attribute,
        to be set after each step, and no part of the state.

    Raises:
      TypeError: if ``scorer`` is none.
      ValueError: if a state belongs to another iterator.

    ``next`` gives the chosen rows of the candidates as the source has them, numpy
    arrays for instance, and ``f32[b]``. Padding, with weight 0, repeats a chosen row.
    Scoring and learning are compiled, once for each ``M``.

    ``get_state()`` is a dict of numbers and numpy arrays, which may be pickled.
    ``set_state(state)`` of a new iterator with the same arguments goes on bit for bit,
    also between a batch and its update: the batch is then in ``pending`` again.

    Example:
      >>> from fsparse import adaptive
      >>> pools = adaptive.Pools(lambda i: {"x": i.astype(np.float32)}, 100, 8)
      >>> scorer = adaptive.exact(lambda state, batch: batch["x"])
      >>> batches = AdaptiveIterator(pools, scorer, adaptive.priority(4))
      >>> batch, weights = next(batches)
      >>> batch["x"].shape, weights.shape
      ((4,), (4,))
      >>> batches.update(batch["x"])
    """

    def __init__(
        self,
        pools: Source,
        scorer: Scorer,
        selector: Selector,
        *,
        seed: int = 0,
        train_state: Any = None,
    ) -> None:
        fn = "adaptive.AdaptiveIterator"
        _checks.require_type(fn, Scorer, scorer=scorer)
        _checks.require_count(fn, 0, seed=seed)
        self.train_state = train_state
        self._pools, self._seed, self._step = pools, seed, 0
        of_scorer, self._key = jax.random.split(jax.random.key(seed))
        # Copies, since updates overwrite them.
        self._state = jax.tree.map(jnp.array, scorer.init(of_scorer))
        self._choose = jax.jit(partial(_choose, scorer, selector))
        self._encode = jax.jit(partial(_encode, scorer))
        self._update = jax.jit(scorer.update, donate_argnums=0)
        self._none = _nothing(selector)
        self._before: State | None = None
        self._set_pending(None, self._none, None)

    def __iter__(self) -> "AdaptiveIterator":
        return self

    def __next__(self) -> Weighted:
        before = self._pools.get_state()
        pool = next(self._pools)
        key = jax.random.fold_in(self._key, self._step)
        selection, encoded = self._choose(key, self._state, self.train_state, *pool)
        self._before, self._step = before, self._step + 1
        return self._set_pending(pool, jax.tree.map(np.asarray, selection), encoded)

    @property
    def pending(self) -> Weighted | None:
        """The last batch and its weights, until it is updated."""
        return self._pending

    def update(self, targets: ArrayLike) -> None:
        """Learns the targets ``f32[b]`` of the last batch: losses, or what else.

        To be called once for a batch, or not at all: then nothing is learnt from it.

        Raises:
          TypeError: if the targets are not float32.
          ValueError: if their shape is wrong.
          RuntimeError: if no batch waits for its targets.
        """
        fn = "adaptive.AdaptiveIterator.update"
        if self._pending is None:
            raise RuntimeError(
                f"{fn}: a batch must wait for its targets; got none. Call next() "
                "before each update()."
            )
        (targets,) = _checks.as_arrays(fn, targets=targets)
        _checks.require_f32(fn, targets=targets)
        weights = self._pending[1]
        fits = targets.shape == weights.shape
        _checks.require(fn, fits, "a target each", targets=targets, weights=weights)
        self._state = self._update(self._state, self._encoded, targets, weights)
        self._set_pending(None, self._none, None)

    def get_state(self) -> State:
        """All that the batches to come depend on, but for the model."""
        is_pending = self._pending is not None
        return {
            "seed": self._seed,
            "step": self._step,
            "is_pending": is_pending,
            "pools": self._before if is_pending else self._pools.get_state(),
            "indices": np.array(self._selection.indices),
            "weights": np.array(self._selection.weights),
            "scorer": [_saved(leaf) for leaf in jax.tree.leaves(self._state)],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was got."""
        fn = "adaptive.AdaptiveIterator"
        require_same(fn, {"seed": self._seed}, state)
        restored = _restored(fn, self._state, state["scorer"])
        self._pools.set_state(state["pools"])  # a state that is refused changes nothing
        self._state, self._step = restored, int(state["step"])
        self._before = state["pools"]
        if not state["is_pending"]:
            self._set_pending(None, self._none, None)
            return
        pool = next(self._pools)
        p: Any = np.ones(len(pool.is_valid), np.float32)  # only their number matters
        selection = Selection(state["indices"], state["weights"], p)
        encoded = self._encode(self._state, pool.candidates, selection)
        self._set_pending(pool, selection, encoded)

    def _set_pending(
        self, pool: Pool | None, selection: Selection, encoded: Any
    ) -> Weighted:
        """The chosen rows, and what the scorer keeps them by until the update."""
        batch = None if pool is None else _rows(pool.candidates, selection)
        chosen = batch, np.array(selection.weights, np.float32)
        self._selection, self._encoded = selection, encoded
        self._pending = None if pool is None else chosen
        return chosen


def _choose(
    scorer: Scorer,
    selector: Selector,
    key: Array,
    state: Any,
    train_state: Any,
    candidates: Any,
    is_valid: Array,
) -> tuple[Selection, Any]:
    encoded = scorer.encode(state, candidates)
    scores = scorer.score(state, encoded, train_state, candidates)
    selection = selector(key, scores, is_valid)
    return selection, take_selected(encoded, selection)


def _encode(scorer: Scorer, state: Any, candidates: Any, selection: Selection) -> Any:
    return take_selected(scorer.encode(state, candidates), selection)


def _nothing(selector: Selector) -> Selection:
    """A selection from no candidates: it says how many places there are."""
    none = jnp.zeros(1, jnp.float32), jnp.zeros(1, bool)
    shapes = jax.eval_shape(selector, jax.random.key(0), *none)
    return Selection(*(np.zeros(s.shape, s.dtype) for s in shapes))  # type: ignore[arg-type]


def _rows(candidates: Any, selection: Selection) -> Any:
    """As :func:`take_selected`, in the arrays that the candidates are."""
    indices, weights, p = selection
    at = np.where(np.asarray(weights) > 0, indices, len(p))
    at = np.minimum(np.where(at < len(p), at, at.min()), len(p) - 1)
    return jax.tree.map(lambda leaf: leaf[at], candidates)


def _saved(leaf: Array) -> NDArray[Any]:
    """A copy, since a view would change with the next update; of keys, their data."""
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _restored(fn: str, ours: Any, leaves: Any) -> Any:
    """The scorer's state, of the leaves that were saved."""
    own, structure = jax.tree.flatten(ours)
    saved = [np.asarray(leaf) for leaf in leaves]
    like = list(map(_saved, own))
    if [(x.shape, x.dtype) for x in saved] != [(x.shape, x.dtype) for x in like]:
        raise ValueError(
            f"{fn}: the state must be of the same scorer, with arrays "
            f"{[_checks.aval(leaf) for leaf in like]}; got "
            f"{[_checks.aval(leaf) for leaf in saved]}."
        )
    return jax.tree.unflatten(structure, list(map(_as_it_was, saved, own)))


def _as_it_was(saved: NDArray[Any], own: Array) -> Array:
    if _is_key(own):
        return jax.random.wrap_key_data(jnp.array(saved), impl=jax.random.key_impl(own))
    return jnp.array(saved)
