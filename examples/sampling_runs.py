"""Runs: one method, one seed, one learning rate, on the clock.

The clock is that of the whole loop, of drawing candidates, hashing, scoring, selecting,
training and updating; it stands while a run is judged. Everything is compiled before
it starts.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sampling_methods
import sampling_models
from sampling_data import Problem
from sampling_methods import INFOBATCH, Facts, Loop, Sampling
from sampling_models import Batch

from fsparse import adaptive

Array = jax.Array
_EVALUATION_BATCH = 2048
_GRADIENTS = 1024  # fresh examples whose exact gradients are compared
_MIXED = 0.1  # the uniform share in the chances whose variance is measured


class Point(NamedTuple):
    """A point of a run's curve."""

    seconds: float
    examples_trained: int
    accuracy: float  # or what the problem's metric is
    loss: float


class Run(NamedTuple):
    """What came of a run."""

    curve: list[Point]
    variance_reduction: list[float]  # of gradients of fresh examples, on the way
    effective_sample_size: float
    share_on: float  # of the steps: whose scores were followed


class Plan(NamedTuple):
    """A run to do; `steps` is a multiple of `chunk`."""

    setting: str  # "stream" or "epochs"
    seed: int
    rate: float
    steps: int
    chunk: int  # steps between points of the curve


class Compiled(NamedTuple):
    """A method whose loop is compiled for chunks of so many steps."""

    name: str
    loop: Loop
    run_chunk: Callable[..., tuple[Any, Facts]]
    score: Callable[..., Array]


def compile_method(
    name: str, problem: Problem, sampling: Sampling, chunk: int
) -> Compiled:
    """Compiles, and runs a chunk that is thrown away."""
    loop = sampling_methods.loop_of(name, problem, sampling)

    def call(problem_data: Batch, state: Any, at: Any) -> tuple[Any, Facts]:
        order, weights = at
        batch = jax.tree.map(lambda x: x[order], problem_data)
        return loop.step(state, batch, weights)

    @partial(jax.jit, donate_argnums=0)
    def run_chunk(
        state: Any, problem_data: Batch, order: Array, weights: Array
    ) -> tuple[Any, Facts]:
        state, facts = jax.lax.scan(
            partial(call, problem_data), state, (order, weights)
        )
        return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), facts)

    compiled = Compiled(name, loop, run_chunk, jax.jit(partial(score, loop)))
    state = begin(compiled, problem, Plan("stream", 0, 1e-6, chunk, chunk))
    calls = chunk * loop.calls
    order = jnp.asarray(np.arange(calls * loop.size) % len(problem.train.labels))
    order = order.reshape(calls, loop.size).astype(jnp.int32)
    weights = jnp.ones(order.shape, jnp.float32)
    jax.block_until_ready(run_chunk(state, problem.train, order, weights))
    return compiled


def begin(compiled: Compiled, problem: Problem, plan: Plan) -> Any:
    """The state before the first step, in buffers of its own."""
    horizon = sampling_methods.horizon_of(compiled.name, plan.steps)
    train = sampling_methods.start(problem, plan.seed, plan.rate, horizon)
    some = jax.tree.map(lambda x: x[: compiled.loop.size], problem.train)
    state = compiled.loop.init(jax.random.key(plan.seed + 1), train, some)
    return jax.block_until_ready(jax.tree.map(jnp.array, state))


def run(
    compiled: Compiled, problem: Problem, plan: Plan, judged_by: Batch, *, brief: bool
) -> Run:
    """Trains; a brief run is judged at its end only."""
    state = begin(compiled, problem, plan)
    feed = feed_of(compiled, problem, plan)
    num_chunks = plan.steps // plan.chunk
    seconds, trained, curve, reductions = 0.0, 0.0, [], []
    totals = np.zeros(2)
    for number in range(1, num_chunks + 1):
        began = time.perf_counter()
        order, weights = feed.next(state)
        state, facts = compiled.run_chunk(state, problem.train, order, weights)
        jax.block_until_ready((state, facts))
        seconds += time.perf_counter() - began
        trained += float(facts.trained)
        totals += [float(facts.effective), float(facts.is_on)]
        if number < num_chunks and brief:
            continue
        accuracy, loss = judge(problem, state.train.params, judged_by)
        curve.append(Point(seconds, round(trained), accuracy, loss))
        if not brief and number in (num_chunks // 2, num_chunks):
            reductions.append(variance_reduction(compiled, problem, state))
    calls = plan.steps * compiled.loop.calls
    return Run(curve, reductions, *(totals / calls).tolist())


# ---- what comes next ----------------------------------------------------------------


class Feed:
    """Places of candidates and their weights, a chunk at a time.

    In a stream each example comes once. In epochs each passes through the data in a new
    order, in which pools of candidates begin with other examples than before. Methods
    that look at fewer candidates take the first ones of their order.
    """

    def __init__(self, loop: Loop, plan: Plan, num_examples: int) -> None:
        self.shape = plan.chunk * loop.calls, loop.size
        self.places = passes(plan, num_examples, loop)
        self.left = next(self.places)
        self.weights = jnp.ones(self.shape, jnp.float32)

    def next(self, state: Any) -> tuple[Array, Array]:
        """`i32` and `f32[calls, size]`."""
        del state
        needed = self.shape[0] * self.shape[1]
        while len(self.left) < needed:
            self.left = np.concatenate([self.left, next(self.places)])
        order, self.left = self.left[:needed], self.left[needed:]
        return jnp.asarray(order.reshape(self.shape)), self.weights


class PrunedFeed:
    """InfoBatch: each pass leaves out half of what was easier than the mean."""

    def __init__(self, loop: Loop, plan: Plan, num_examples: int) -> None:
        self.shape = plan.chunk * loop.calls, loop.size
        self.plan, self.num_examples = plan, num_examples
        self.rng = np.random.default_rng(plan.seed)
        self.key = jax.random.key(plan.seed)
        self.num_epochs = max(-(-plan.steps * loop.size // num_examples), 1)
        self.left = np.zeros(0, np.int32), np.zeros(0, np.float32)

    def next(self, state: Any) -> tuple[Array, Array]:
        """`i32` and `f32[calls, size]`."""
        needed = self.shape[0] * self.shape[1]
        while len(self.left[0]) < needed:
            more = zip(self.left, self.one_pass(state), strict=True)
            self.left = tuple(np.concatenate(pair) for pair in more)
        taken = [jnp.asarray(x[:needed].reshape(self.shape)) for x in self.left]
        self.left = tuple(x[needed:] for x in self.left)
        return taken[0], taken[1]

    def one_pass(self, state: Any) -> tuple[np.ndarray, np.ndarray]:
        """Places and weights of a pass, by the losses known now."""
        self.key, key = jax.random.split(self.key)
        done = float(state.train.num_steps) / self.plan.steps * self.num_epochs
        scores = state.scorer.targets[: self.num_examples]
        weights = np.asarray(
            adaptive.infobatch_epoch(key, scores, jnp.float32(done), self.num_epochs)
        )
        kept = self.rng.permutation(np.flatnonzero(weights)).astype(np.int32)
        return kept, weights[kept]


def feed_of(compiled: Compiled, problem: Problem, plan: Plan) -> Feed | PrunedFeed:
    """By method and setting."""
    num_examples = len(problem.train.labels)
    if plan.setting == "epochs":
        num_examples = min(num_examples, problem.epoch_examples)
    kind = PrunedFeed if compiled.name == INFOBATCH else Feed
    return kind(compiled.loop, plan, num_examples)


def passes(plan: Plan, num_examples: int, loop: Loop) -> Iterator[np.ndarray]:
    """Orders of whole pools: one in a stream, else without end."""
    whole = num_examples - num_examples % loop.size
    for epoch in count():
        order = adaptive.pool_order(
            num_examples, loop.size // loop.pool, loop.pool, seed=plan.seed, epoch=epoch
        )
        yield order[:whole].astype(np.int32)
        if plan.setting == "stream":
            break
    raise ValueError(
        f"a stream of {num_examples} examples is too short for {plan.steps} steps."
    )


# ---- how good it is -----------------------------------------------------------------


def judge(problem: Problem, params: Any, batch: Batch) -> tuple[float, float]:
    """The metric and the mean loss."""
    scores, losses = _judge(problem.model, params, batch)
    if problem.metric == "auc":
        metric = auc(np.asarray(scores), np.asarray(batch.labels))
    else:
        metric = float(jnp.mean(scores))
    return metric, float(jnp.mean(losses))


@partial(jax.jit, static_argnums=0)
def _judge(model: sampling_models.Model, params: Any, batch: Batch) -> Any:
    m = len(batch.labels)
    size = min(_EVALUATION_BATCH, m)
    blocks = -(-m // size)
    at = jnp.minimum(jnp.arange(blocks * size), m - 1).reshape(blocks, size)

    def block(at: Array) -> Any:
        return model.judge(params, jax.tree.map(lambda x: x[at], batch))

    return jax.tree.map(lambda x: x.reshape(-1)[:m], jax.lax.map(block, at))


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive scores above a negative; ties count half."""
    values, rank = np.unique(scores, return_inverse=True)
    positive = np.bincount(rank, labels == 1, len(values))
    negative = np.bincount(rank, labels != 1, len(values))
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    return float(positive @ below / pairs) if pairs else float("nan")


def score(loop: Loop, state: Any, batch: Batch) -> Array:
    """What a loop's scorer thinks of examples."""
    encoded = loop.scorer.encode(state.scorer, batch)
    return loop.scorer.score(state.scorer, encoded, state.train, batch)


def variance_reduction(compiled: Compiled, problem: Problem, state: Any) -> float:
    """Of unbiased gradients of fresh examples: uniform over that of mixed scores.

    `(mean(g^2) - |mean gradient|^2) / (mean(g^2 / (M p)) - |mean gradient|^2)`, the
    traces of the covariance of one example's weighted gradient, with exact norms `g`.
    """
    most = _GRADIENTS if problem.metric != "precision_at_1" else _GRADIENTS // 4
    fresh = jax.tree.map(lambda x: x[:most], problem.validation)
    squares, of_mean = _squares(problem.model, state.train.params, fresh)
    scores = compiled.score(state, fresh)
    p = adaptive.mixed(scores, jnp.ones(scores.shape, bool), _MIXED)
    of_uniform = float(jnp.mean(squares)) - float(of_mean)
    of_scores = float(jnp.mean(squares / (len(scores) * p))) - float(of_mean)
    return of_uniform / of_scores if of_scores > 0 else float("nan")


@partial(jax.jit, static_argnums=0)
def _squares(
    model: sampling_models.Model, params: Any, batch: Batch
) -> tuple[Array, Array]:
    return sampling_models.gradient_squares(model, params, batch, jax.random.key(0))
