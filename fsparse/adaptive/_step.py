"""A training step that chooses what it trains on.

    candidates -> encode, score -> select -> the user's step -> learn its targets

The scorer learns from what the step computed anyway, and the selector's weights make
the step's mean loss right on average. Where that does not pay, the step goes back to
plain batches by itself, and looks now and then whether it would pay again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from fsparse import _checks
from fsparse._call import vary_over, varying_axes
from fsparse.adaptive._exact_scorers import require_targets
from fsparse.adaptive._gain import Gain, gain_init, gain_update, variance_reduction
from fsparse.adaptive._scorers import Batch, Scorer, num_examples
from fsparse.adaptive._selection import (
    Selection,
    Selector,
    effective_sample_size,
    take_selected,
)

Array = jax.Array
TrainStep = Callable[[Any, Batch, Array], tuple[Any, Array, Any]]
AxisName = str | tuple[str, ...]
Plain = Literal["random", "first"]
_RATE = 0.02  # of the averages in the gain, a step; a probe stands for several


class AdaptiveState(NamedTuple):
    """All that a run is: with it, a checkpoint goes on bit for bit."""

    train: Any  # the user's own
    scorer: Any
    key: Array
    gain: Gain
    num_steps: Array  # i32[]


class AdaptiveInfo(NamedTuple):
    """What there is to observe of a step."""

    aux: Any  # of the user's step
    selection: Selection
    effective_sample_size: Array  # f32[], of the weights, of all devices
    # f32[], of targets in independent draws, estimated; 1 is none. That of the gradient
    # as far as targets follow its norm.
    variance_reduction: Array
    is_on: Array  # bool[], whether the scores were followed


class AdaptiveStep(NamedTuple):
    """A pair of pure functions.

    ``init(key, train_state) -> AdaptiveState``;
    ``step(state, candidates, is_valid=None) -> (AdaptiveState, AdaptiveInfo)``.
    """

    init: Callable[[Array, Any], AdaptiveState]
    step: Callable[..., tuple[AdaptiveState, AdaptiveInfo]]


def adaptive_step(
    train_step: TrainStep,
    scorer: Scorer,
    selector: Selector,
    *,
    min_gain: float | None = 1.1,
    warmup: int = 0,
    probe_every: int = 8,
    when_off: Plain = "random",
    axis_name: AxisName | None = None,
) -> AdaptiveStep:
    """Wraps a training step: of ``M`` candidates it trains on the ``b`` that matter.

    ``mean(weights * loss)`` over the chosen estimates the mean loss over the valid
    candidates, without bias if the selector has none. That is the loss to minimise::

        def train_step(train_state, batch, weights):
            ...  # the gradient of jnp.mean(weights * losses)
            return train_state, losses, aux

    Args:
      train_step: ``(train_state, batch, weights f32[b]) -> (train_state, targets
        f32[b], aux)``. Targets are what scores should predict: the losses that were
        computed anyway, or norms of gradients. Of padding, weights are 0.
      scorer: how much each candidate matters.
      selector: which of them to take, such as :func:`fsparse.adaptive.systematic`.
      min_gain: the least factor by which following the scores must divide the
        variance of the gradient; below it, batches are drawn uniformly, until it is
        reached again. What scoring costs belongs in here: a tenth less noise is worth
        a step that takes a tenth longer. Above 1, steps begin uniform. It knows nothing
        of the noise of :func:`fsparse.adaptive.priority`'s weights, nor of the bias of
        :func:`fsparse.adaptive.top`, which wants None: to follow the scores always.
      warmup: steps of uniform batches at first.
      probe_every: steps from one evaluation of the scores to the next while they are
        not followed; the others do not compute them.
      when_off: which of the valid candidates a uniform batch takes: ``"random"`` ones,
        or the ``"first"``. The latter is for candidates in the random order of
        :func:`fsparse.adaptive.pool_order`, of which uniform batches then take each
        once before any twice, as plain training does.
      axis_name: inside of ``shard_map`` or ``pmap``, the axis of data parallelism.
        Each device chooses among its own candidates; all learn what the others
        learnt, and switch together, so that only ``candidates`` and ``is_valid`` are
        split. ``train_step`` averages its gradients itself.

    Returns:
      An :class:`AdaptiveStep`. Its ``init`` takes ``train_state`` as it is, and copies
      what the scorer begins with. Its ``step`` takes ``candidates``, a pytree of arrays
      ``[M, ...]``, and ``is_valid``, ``bool[M]``, false for padding; None if there is
      none. Padding of a batch repeats an example that is chosen; of an empty pool, all
      weights and the batch are 0.

    Raises:
      TypeError: if ``scorer`` is none; by ``step``, if targets are not float32.
      ValueError: if a number is out of range; by ``step``, if shapes disagree.

    Targets that are not finite teach nothing. All that the caller donates is
    overwritten in place, tables of ``train_state`` too, also where the scorer reads
    them. Scores are constants to gradients. Under ``vmap`` over states, the scores are
    computed in every step, and selected from.

    Example:
      >>> from fsparse import adaptive
      >>> def train_step(w, batch, weights):
      ...     loss = lambda w: 0.5 * (w - batch) ** 2
      ...     gradient = jax.grad(lambda w: jnp.mean(weights * loss(w)))(w)
      ...     return w - 0.5 * gradient, loss(w), ()
      >>> scorer = adaptive.exact(lambda w, batch: jnp.abs(w - batch))
      >>> select = adaptive.systematic(2)
      >>> init, step = adaptive.adaptive_step(train_step, scorer, select)
      >>> state = init(jax.random.key(0), jnp.float32(0))
      >>> state, info = step(state, jnp.array([1.0, 1.0, 1.0, 1.0]))
      >>> state.num_steps, info.is_on  # nothing is known of a gain yet
      (Array(1, dtype=int32), Array(False, dtype=bool))
    """
    fn = "adaptive_step"
    _checks.require_type(fn, Scorer, scorer=scorer)
    _checks.require_count(fn, 0, warmup=warmup)
    _checks.require_count(fn, 1, probe_every=probe_every)
    if min_gain is not None:
        _checks.require_between(fn, 0, float("inf"), min_gain=min_gain)
    if when_off not in get_args(Plain):
        raise ValueError(
            f"{fn}: when_off must be one of {get_args(Plain)}; got {when_off!r}."
        )

    def init(key: Array, train_state: Any) -> AdaptiveState:
        of_scorer, of_steps = jax.random.split(key)
        learnt = jax.tree.map(jnp.array, scorer.init(of_scorer))  # a caller may donate
        zero = jnp.zeros((), jnp.int32)
        return AdaptiveState(train_state, learnt, of_steps, gain_init(), zero)

    def switches(state: AdaptiveState) -> tuple[Array, Array]:
        """Whether scores are followed, and whether they are evaluated."""
        is_on = state.num_steps >= warmup
        if min_gain is not None:
            is_on &= variance_reduction(state.gain) >= min_gain
        return is_on, is_on | (state.num_steps % probe_every == 0)

    def choose(is_on: Array, is_scored: Array, *args: Any) -> _Choice:
        by_scores, uniformly = _ways(scorer, selector, when_off, *args)
        if min_gain is None and warmup == 0:
            return by_scores(jnp.array(True))
        return jax.lax.cond(is_scored, by_scores, uniformly, is_on)

    def measure(
        old: Gain, is_on: Array, is_scored: Array, choice: _Choice, targets: Array
    ) -> Gain:
        args = old, choice.selection, targets, choice.probabilities
        of_step = gain_update(*args, rate=_RATE)
        of_probe = gain_update(*args, rate=1 - (1 - _RATE) ** probe_every)
        new = _select(is_scored, _select(is_on, of_step, of_probe), old)
        return _averaged(new, old, axis_name)

    def step(
        state: AdaptiveState, candidates: Batch, is_valid: Array | None = None
    ) -> tuple[AdaptiveState, AdaptiveInfo]:
        is_valid = validity(fn, candidates, is_valid)
        is_on, is_scored = switches(state)
        key, of_choice = jax.random.split(state.key)
        pool = _own(of_choice, axis_name), candidates, is_valid
        choice = choose(is_on, is_scored, state, *pool)
        selection, batch = choice.selection, take_selected(candidates, choice.selection)
        train, targets, aux = train_step(state.train, batch, selection.weights)
        targets = require_targets(fn, "train_step", targets, len(selection.indices))
        lesson = _gathered((choice.encoded, targets, selection.weights), axis_name)
        learnt = scorer.update(state.scorer, *lesson)
        gain = measure(state.gain, is_on, is_scored, choice, targets)
        new = AdaptiveState(train, learnt, key, gain, state.num_steps + 1)
        size, vr = effective_sample_size(lesson[-1]), variance_reduction(gain)
        return new, AdaptiveInfo(aux, selection, size, vr, is_on)

    return AdaptiveStep(init, step)


def validity(fn: str, candidates: Batch, is_valid: Array | None) -> Array:
    """``bool[M]``, with ``M >= 1``."""
    m = num_examples(fn, candidates)
    if m == 0:
        raise ValueError(
            f"{fn}: there must be at least 1 candidate; got 0. Pad an empty pool to "
            "its usual size, with is_valid=jnp.zeros(M, bool)."
        )
    (valid,) = _checks.as_arrays(
        fn, is_valid=jnp.ones(m, bool) if is_valid is None else is_valid
    )
    _checks.require_mask(fn, is_valid=valid)
    _checks.require(
        fn, valid.shape == (m,), f"is_valid must be bool[{m}]", is_valid=valid
    )
    return valid


# ---- choosing -----------------------------------------------------------------------


class _Choice(NamedTuple):
    selection: Selection
    encoded: Any  # of the chosen
    probabilities: Array  # f32[M], what the scores would give


def _ways(
    scorer: Scorer,
    selector: Selector,
    when_off: Plain,
    state: AdaptiveState,
    key: Array,
    candidates: Batch,
    is_valid: Array,
) -> tuple[Callable[[Array], _Choice], Callable[[Array], _Choice]]:
    """To choose by scores, and uniformly without them; both give the same types."""
    known, train = jax.lax.stop_gradient((state.scorer, state.train))
    ones = jnp.ones(is_valid.shape, jnp.float32)
    size = len(jax.eval_shape(selector, key, ones, is_valid).indices)
    axes = frozenset[str]().union(
        *map(varying_axes, jax.tree.leaves((candidates, is_valid, key)))
    )

    def alike(tree: Any) -> Any:
        """To ``shard_map``, whose branches must have one type."""
        return jax.tree.map(lambda x: vary_over(x, axes), tree)

    def plain() -> Selection:
        return alike(_plain(key if when_off == "random" else None, is_valid, size))

    def by_scores(is_on: Array) -> _Choice:
        encoded = scorer.encode(known, candidates)
        scores = scorer.score(known, encoded, train, candidates)
        by_them = alike(selector(key, scores, is_valid))
        selection = jax.lax.cond(is_on, lambda: by_them, plain)
        chosen = take_selected(encoded, selection)
        return alike(_Choice(selection, chosen, by_them.probabilities))

    def uniformly(is_on: Array) -> _Choice:
        del is_on  # it is off
        selection = plain()
        chosen = scorer.encode(known, take_selected(candidates, selection))
        return alike(_Choice(selection, chosen, selection.probabilities))

    return by_scores, uniformly


def _plain(key: Array | None, is_valid: Array, size: int) -> Selection:
    """Valid candidates without scores: all alike, none twice, with weights of 1.

    The first ones, if there is no key.
    """
    m = is_valid.shape[0]
    falling = jnp.arange(m, 0, -1, dtype=jnp.float32) / m
    draws = falling if key is None else jax.random.uniform(key, (m,), jnp.float32)
    room = (0, max(size - m, 0))
    draws = jnp.pad(jnp.where(is_valid, draws, -1), room, constant_values=-1)
    best, indices = jax.lax.top_k(draws, size)
    is_there = best >= 0
    indices = jnp.where(is_there, indices, m).astype(jnp.int32)
    return Selection(indices, size * _shares(is_there), _shares(is_valid))


def _shares(mask: Array) -> Array:
    """One, in equal parts for all that are true."""
    ones = mask.astype(jnp.float32)
    return ones / jnp.maximum(jnp.sum(ones), 1)


def _select(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), a, b)


# ---- devices ------------------------------------------------------------------------


def _own(key: Array, axis_name: AxisName | None) -> Array:
    """A key for each device."""
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def _averaged(new: Gain, old: Gain, axis_name: AxisName | None) -> Gain:
    """Over all devices, so that they switch together."""
    if axis_name is None:
        return new
    uniform, scores = jax.lax.pmean((new.uniform, new.scores), axis_name)
    num_new = jax.lax.psum(new.num_ignored - old.num_ignored, axis_name)
    return Gain(uniform, scores, old.num_ignored + num_new)


def _gathered(tree: Any, axis_name: AxisName | None) -> Any:
    """The rows of all devices, alike on all of them: a sum of which one part is not 0.

    ``all_gather`` gives the same, but does not tell ``shard_map`` that it is alike.
    """
    if axis_name is None:
        return tree
    num, own = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)

    def of_leaf(x: Array) -> Array:
        places = jnp.zeros((num, *x.shape), x.dtype).at[own].set(x)
        return jax.lax.psum(places, axis_name).reshape(num * x.shape[0], *x.shape[1:])

    return jax.tree.map(of_leaf, tree)
