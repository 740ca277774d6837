"""Ways to choose what a step trains on, with one interface.

A `Loop` is called with candidates and trains on some of them. Only `scorer_of` knows
what the names of scores mean.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from sampling_data import Problem
from sampling_models import Batch

import fsparse
from fsparse import adaptive, lsh, rows
from fsparse.adaptive import Scorer

Array = jax.Array
UNIFORM = "uniform"
EQUAL_TIME = "uniform_equal_time"
PAPER = "nw_paper"
INFOBATCH = "infobatch"
PLAIN = (UNIFORM, EQUAL_TIME, "uniform_all")
SCORED = (
    "random_score",
    "class_mean",
    "cache",
    "loss",
    "gradient_norm",
    "exact_nw",
    "nw",
    "nw_norm",
    "nw_square",
)
METHODS = (*PLAIN, *SCORED, PAPER, INFOBATCH)
REVISITING = ("cache", INFOBATCH)  # know examples by their place in the data
RATIO = 4  # M / b
_UNIFORM_SHARE = 0.1
_NUM_TABLES = 16
_CAPACITY = 1024  # examples that exact_nw looks at
_WARMUP = 20  # calls of the paper's mode


class Sampling(NamedTuple):
    """What the methods have in common."""

    min_gain: float | None = 1.1  # below, the off-switch draws uniformly
    warmup: int = 20  # steps
    selector: str = "systematic"
    decay: float = 0.999


class TrainState(NamedTuple):
    """A model in training; rates are arrays, so that one compiled step serves all."""

    params: Any
    moments: Any
    key: Array
    num_steps: Array  # i32[]
    rate: Array  # f32[], at its peak
    horizon: Array  # f32[], the steps in which it falls to 0


class Facts(NamedTuple):
    """What is counted of a call."""

    trained: Array  # f32[], examples
    effective: Array  # f32[], examples of equal weight that tell as much
    is_on: Array  # f32[], whether scores were followed


class Loop(NamedTuple):
    """Calls that train; their states have the fields `train` and `scorer`."""

    size: int  # candidates a call
    calls: int  # a step, on average
    init: Callable[[Array, TrainState, Batch], Any]
    step: Callable[[Any, Batch, Array], tuple[Any, Facts]]
    scorer: Scorer | None  # what is followed
    pool: int = 1  # candidates for each example that is trained on


# ---- training -----------------------------------------------------------------------


def start(problem: Problem, seed: int, rate: float, horizon: float) -> TrainState:
    """Random parameters, the same ones for all methods."""
    key, of_params = jax.random.split(jax.random.key(seed))
    params = problem.model.init(of_params)
    return TrainState(
        params,
        optimizer(problem, jnp.float32(rate)).init(params),
        key,
        jnp.int32(0),
        jnp.float32(rate),
        jnp.float32(horizon),
    )


def optimizer(problem: Problem, rate: Array) -> fsparse.Optimizer:
    """Adam on everything."""
    tables = rows.adam(rate * problem.table_rate)
    return fsparse.multi_transform({"tables": tables, "dense": optax.adam(rate)})


def train_step(
    problem: Problem, target: str, state: TrainState, batch: Batch, weights: Array
) -> tuple[TrainState, Array, Any]:
    """One step of Adam at a rate that falls to 0 as a cosine; returns the targets."""
    key, of_loss = jax.random.split(state.key)

    def loss_fn(params: Any) -> tuple[Array, Any]:
        outcome = problem.model.forward(params, batch, of_loss)
        return jnp.mean(weights * outcome.losses), outcome

    (_, outcome), grads = fsparse.value_and_grad(loss_fn, has_aux=True)(state.params)
    done = jnp.minimum(state.num_steps / state.horizon, 1)
    rate = state.rate * 0.5 * (1 + jnp.cos(jnp.pi * done))
    params, moments = optimizer(problem, rate).step(state.params, state.moments, grads)
    new = state._replace(
        params=params, moments=moments, key=key, num_steps=state.num_steps + 1
    )
    return new, getattr(outcome, target), ()


# ---- methods by name ----------------------------------------------------------------


def scorer_of(name: str, problem: Problem, sampling: Sampling) -> tuple[Scorer, str]:
    """The scorer, and the field of an `Outcome` that it learns or computes."""
    label_of: Callable[[Batch], Array] = lambda batch: batch.labels  # noqa: E731
    sliced = partial(
        adaptive.sketched,
        family_of(problem),
        key_of,
        label_of,
        num_slices=problem.num_slices,
        decay=sampling.decay,
    )
    match name:
        case "uniform":
            return adaptive.uniform(), "losses"
        case "random_score":
            return random_score(), "losses"
        case "class_mean":
            classes = problem.num_classes
            return adaptive.class_mean(label_of, classes), "losses"
        case "cache":
            num_examples = len(problem.train.labels)
            return adaptive.cache(lambda batch: batch.index, num_examples), "losses"
        case "loss":
            return adaptive.exact(partial(exact_target, problem, "losses")), "losses"
        case "gradient_norm":
            return adaptive.exact(partial(exact_target, problem, "norms")), "norms"
        case "exact_nw":
            family = family_of(problem)
            return adaptive.exact_kernel(
                family, key_of, label_of, capacity=_CAPACITY
            ), "losses"
        case "nw":
            return sliced(), "losses"
        case "nw_norm":
            return sliced(), "norms"
        case "nw_square":
            return of_squares(sliced()), "losses"
    raise ValueError(f"methods must be of {', '.join(METHODS)}; got {name!r}.")


def key_of(batch: Batch) -> Array:
    """What is hashed, which is prepared with the data; the hashing is not."""
    return batch.keys


def family_of(problem: Problem) -> lsh.Family:
    """The hash functions of all sketches of a problem."""
    return lsh.simhash(
        jax.random.key(7),
        problem.key_dim,
        num_tables=_NUM_TABLES,
        num_bits=problem.num_bits,
    )


def exact_target(
    problem: Problem, target: str, state: TrainState, batch: Batch
) -> Array:
    """A forward pass, with the negatives of the step to come."""
    _, of_loss = jax.random.split(state.key)
    return getattr(problem.model.forward(state.params, batch, of_loss), target)


def random_score() -> Scorer:
    """Nothing but noise: what following scores costs if they say nothing."""

    def score(key: Array, encoded: Any, train_state: Any, batch: Batch) -> Array:
        del encoded, train_state
        return jax.random.uniform(key, batch.labels.shape, jnp.float32)

    def update(key: Array, *learnt: Any) -> Array:
        del learnt
        return jax.random.split(key, 1)[0]

    return Scorer(lambda key: key, lambda key, batch: (), score, update)


def of_squares(scorer: Scorer) -> Scorer:
    """The root of the mean squared target.

    Of all chances that depend on what a scorer keeps examples by, these make the second
    moment of the weighted targets least.
    """

    def score(*args: Any) -> Array:
        return jnp.sqrt(jnp.maximum(scorer.score(*args), 0))

    def update(state: Any, encoded: Any, targets: Array, weights: Array) -> Any:
        return scorer.update(state, encoded, targets**2, weights)

    return scorer._replace(score=score, update=update)


def loop_of(name: str, problem: Problem, sampling: Sampling) -> Loop:
    """How a method trains."""
    if name in PLAIN:
        size = problem.batch * (RATIO if name == "uniform_all" else 1)
        return plain(problem, size, adaptive.uniform())
    if name == INFOBATCH:
        return plain(problem, problem.batch, scorer_of("cache", problem, sampling)[0])
    if name == PAPER:
        return paper(problem)
    scorer, target = scorer_of(name, problem, sampling)
    return pooled(problem, scorer, target, sampling)


# ---- loops --------------------------------------------------------------------------


class Plain(NamedTuple):
    """State of a loop that trains on all it is given."""

    train: TrainState
    scorer: Any


def plain(problem: Problem, size: int, scorer: Scorer) -> Loop:
    """Trains on all candidates, with weights that are given; the scorer only learns."""

    def init(key: Array, train: TrainState, candidates: Batch) -> Plain:
        del candidates
        return Plain(train, scorer.init(key))

    def step(state: Plain, batch: Batch, weights: Array) -> tuple[Plain, Facts]:
        encoded = scorer.encode(state.scorer, batch)
        train, targets, _ = train_step(problem, "losses", state.train, batch, weights)
        learnt = scorer.update(state.scorer, encoded, targets, weights)
        facts = Facts(
            jnp.sum(weights > 0, dtype=jnp.float32),
            adaptive.effective_sample_size(weights),
            jnp.float32(0),
        )
        return Plain(train, learnt), facts

    return Loop(size, 1, init, step, scorer)


def pooled(problem: Problem, scorer: Scorer, target: str, sampling: Sampling) -> Loop:
    """`adaptive_step`: of each pool it trains on a part."""
    select = getattr(adaptive, sampling.selector)
    init, adaptive_step = adaptive.adaptive_step(
        partial(train_step, problem, target),
        scorer,
        select(problem.batch, uniform=_UNIFORM_SHARE),
        min_gain=sampling.min_gain,
        warmup=sampling.warmup,
        when_off="first",
    )

    def step(state: Any, candidates: Batch, weights: Array) -> tuple[Any, Facts]:
        del weights  # all candidates are alike
        state, info = adaptive_step(state, candidates)
        trained = jnp.sum(info.selection.weights > 0, dtype=jnp.float32)
        is_on = info.is_on.astype(jnp.float32)
        return state, Facts(trained, info.effective_sample_size, is_on)

    def begin(key: Array, train: TrainState, candidates: Batch) -> Any:
        del candidates
        return init(key, train)

    return Loop(RATIO * problem.batch, 1, begin, step, scorer, RATIO)


def paper(problem: Problem) -> Loop:
    """The paper's mode, at the budget of the others.

    The threshold is the quantile of the scores of a call above which there are as many
    as make the expected share that is kept 1 / 4.
    """
    prob, share = 0.1, 1 / RATIO
    quantile = 1 - (share - prob) / (1 - prob)
    init, paper_step = adaptive.paper_step(
        partial(train_step, problem, "losses"),
        family_of(problem),
        key_of,
        size=problem.batch,
        tau=lambda scores, is_valid: jnp.quantile(scores, quantile),
        prob=prob,
        always=problem.always,
        warmup=_WARMUP,
    )

    def step(state: Any, candidates: Batch, weights: Array) -> tuple[Any, Facts]:
        del weights
        state, info = paper_step(state, candidates)
        is_trained = info.is_trained.astype(jnp.float32)
        size = adaptive.effective_sample_size(info.weights)
        return state, Facts(problem.batch * is_trained, size, jnp.float32(1))

    scorer = adaptive.sketched(family_of(problem), key_of, prior=0.0, decay=1.0)
    return Loop(problem.batch, RATIO, init, step, scorer)


def horizon_of(name: str, steps: int) -> float:
    """Steps in which the rate falls to 0: those that are expected."""
    return steps + (_WARMUP * (1 - 1 / RATIO) if name == PAPER else 0)
