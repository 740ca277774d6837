"""A classifier with very many labels, as pure functions on one explicit pytree.

    u = unit(sum_j weights[j] table[ids[j]])        embedding bag
    h = scale unit(u + relu(sqrt(d) u w + b) v)     hidden layer, residual
    h[-1] = 1                                       so output[:, -1] is a bias
    logits = h . output[active]                     wide layer, active neurons only

Active are the labels of the batch and uniform negatives, shared by the batch. The loss
is an ordinary function of the parameters. The gradients of the wide tables hold the
rows that it read, and update these in place (see `train_step`).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import fsparse
from fsparse import ActiveSet, Optimizer, Table, rows, samplers
from fsparse.data import Batch

Array = jax.Array
_CODE_BITS = 20


class Config(NamedTuple):
    """Shapes and settings of the model and its training; hashable, so static in jit."""

    width: int = 128  # d, units of the hidden layer, the bias among them
    table_dtype: str = "float32"  # of both tables and their moments, or "bfloat16"
    scale: float = 12.0  # length of h: the largest logit of a unit row
    batch_size: int = 256
    num_negatives: int = 4096  # distinct rows a batch, uniform
    label_capacity: int = 16  # labels kept of a training example
    feature_capacity: int = 512  # features kept of an example, the largest weights
    min_count: int = 1  # rarer features of the training set are left out
    feature_dropout: float = 0.0
    learning_rate: float = 1e-3  # of the output rows, at its peak
    embedding_learning_rate: float = 1e-2
    hidden_learning_rate: float = 1e-4
    centroids: bool = True  # output rows start as means of their examples
    margin: float = 0.5  # how much of an example's own share of that mean is taken off
    log_q: float = 0.0  # how much of the sampling's bias to frequent labels is undone
    neighbours: bool = False  # batches of examples with similar labels
    exclude_inputs: bool = False  # features and labels are the same items: predict new
    both_ways: bool = False  # they are, so learn from labels to features, too
    epochs: float = 4.0


class Hidden(NamedTuple):
    """The dense layer, f32[d, d], f32[d], f32[d, d]."""

    w: Array
    b: Array
    v: Array


class Params(NamedTuple):
    """What is learnt."""

    table: Table  # f32[num_features, d], or bf16
    hidden: Hidden
    output: Table  # f32[num_labels, d], or bf16


class LabelFacts(NamedTuple):
    """What is known of each label before training."""

    log_q: Array  # f32[num_labels], subtracted from its logit while training
    margin: Array  # f32[num_labels], subtracted where it is the target


class State(NamedTuple):
    """Everything that training reads and writes."""

    params: Params
    moments: Any  # of the optimizer
    facts: LabelFacts
    codes: Array  # i32[num_labels], which labels are alike: see `label_codes`
    key: Array  # u32[2]
    step: Array  # i32[]


def init(config: Config, num_features: int, num_labels: int, seed: int) -> State:
    """Random embeddings, a hidden layer that is the identity, an output of zeros."""
    d, dtype = config.width, config.table_dtype
    key, table_key, hidden_key = jax.random.split(jax.random.PRNGKey(seed), 3)
    hidden = Hidden(
        jax.random.normal(hidden_key, (d, d)) * jnp.sqrt(2 / d),
        jnp.zeros(d),
        jnp.zeros((d, d)),
    )
    table = 0.1 * jax.random.normal(table_key, (num_features, d))
    output = jnp.zeros((num_labels, d), dtype)
    params = Params(Table(table.astype(dtype)), hidden, Table(output))
    return State(
        params,
        optimizer(config).init(params),
        LabelFacts(jnp.zeros(num_labels), jnp.zeros(num_labels)),
        jnp.zeros(num_labels, jnp.int32),
        key,
        jnp.zeros((), jnp.int32),
    )


def optimizer(config: Config, factor: Array | float = 1.0) -> Optimizer:
    """Adam on everything; `factor` is one of all the rates in `config`."""
    of_rows = partial(rows.adam, moment_dtype=config.table_dtype)
    transforms = {
        "table": of_rows(config.embedding_learning_rate * factor),
        "hidden": optax.adam(config.hidden_learning_rate * factor),
        "output": of_rows(config.learning_rate * factor),
    }
    return fsparse.multi_transform(transforms, Params("table", "hidden", "output"))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    config: Config, state: State, batch: Batch, learning_rate: Array
) -> tuple[State, Array]:
    """One step of Adam on the rows that the batch names.

    `learning_rate` is a factor of all the rates in `config`. Returns the new state,
    which overwrites the old one, and the mean loss of a label in nats.
    """
    key, dropout_key, negatives_key = jax.random.split(state.key, 3)
    weights = _dropout(config.feature_dropout, dropout_key, batch.feature_weights)
    batch = batch._replace(feature_weights=weights)
    active = active_labels(
        config, negatives_key, batch.label_ids, state.params.output.shape[0]
    )
    loss, grads = fsparse.value_and_grad(active_loss, argnums=1)(
        config, state.params, state.facts, active, batch
    )
    params, moments = optimizer(config, learning_rate).step(
        state.params, state.moments, grads
    )
    state = state._replace(params=params, moments=moments, key=key, step=state.step + 1)
    return state, loss


def active_labels(
    config: Config, key: Array, label_ids: Array, num_labels: int
) -> ActiveSet:
    """The labels of the batch and uniform negatives, with room for all of them."""
    size = label_ids.size + config.num_negatives
    negatives = []
    if config.num_negatives:
        sampler, query = samplers.uniform(num_labels), samplers.Query(label_ids)
        negatives = [sampler.sample(key, query, config.num_negatives, False)]
    return fsparse.active_set(label_ids, *negatives, num_rows=num_labels, size=size)


def active_loss(
    config: Config, params: Params, facts: LabelFacts, active: ActiveSet, batch: Batch
) -> Array:
    """Mean over the batch's labels of the softmax cross-entropy in the active set."""
    n, m = facts.margin.shape[0], active.ids.shape[0]
    h = encode(config, params, batch)
    logits = fsparse.sampled_matmul(h, params.output, active.ids)
    if m < n:  # else all labels are active, and the softmax is the full one
        logits -= facts.log_q.at[active.ids].get(mode="fill", fill_value=0)
    margin = facts.margin.at[batch.label_ids].get(mode="fill", fill_value=0)
    example = jnp.arange(batch.label_ids.shape[0])[:, None]
    logits = logits.at[example, active.targets].add(-margin, mode="drop")
    loss = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
    num_labels = jnp.sum(active.targets < m, axis=1)
    return jnp.sum(loss * num_labels) / jnp.maximum(jnp.sum(num_labels), 1)


def encode(config: Config, params: Params, batch: Batch) -> Array:
    """`f32[b, d]` activations of a batch."""
    ids, weights = batch.feature_ids, batch.feature_weights
    bag = fsparse.embedding_bag(params.table, ids, weights)
    return hidden_layer(config, params.hidden, bag)


def hidden_layer(config: Config, hidden: Hidden, bag: Array) -> Array:
    """`f32[b, d]` activations of length `scale`, and a last one of 1."""
    u = unit(bag)
    inner = matmul(u * jnp.sqrt(1.0 * config.width), hidden.w.T) + hidden.b
    h = unit(u + matmul(jax.nn.relu(inner), hidden.v.T))
    return (config.scale * h).at[:, -1].set(1.0)


@partial(jax.jit, static_argnums=(0, 3))
def predict(config: Config, params: Params, batch: Batch, k: int) -> Array:
    """`i32[b, k]` the best labels by an exact search, best first."""
    h = encode(config, params, batch)
    if not config.exclude_inputs:
        return fsparse.dense_top_k(h, params.output, k)[1]
    _, ids = fsparse.dense_top_k(h, params.output, k + batch.feature_ids.shape[1])
    return without_inputs(ids, batch, k)


def without_inputs(ids: Array, batch: Batch, k: int) -> Array:
    """The first `k` of the ids that are no features of their example."""
    is_input = jnp.any(ids[:, :, None] == batch.feature_ids[:, None, :], axis=2)
    new_first = jnp.argsort(is_input, axis=1, stable=True)[:, :k]
    return jnp.take_along_axis(ids, new_first, axis=1)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def add_to_centroids(
    config: Config, sums: Array, params: Params, batch: Batch
) -> Array:
    """Adds each example's direction to the rows of its labels; `f32[num_labels, d]`."""
    h = encode(config, params, batch).at[:, -1].set(0.0) / config.scale
    directions = fsparse.row_grad(batch.label_ids, h, num_rows=sums.shape[0])
    return rows.add_rows(sums, directions)


def start_at_centroids(config: Config, state: State, sums: Array) -> State:
    """Output rows as unit means of their examples, before any step.

    An example is part of its own label's mean and would look easier than it is. Its
    share of the cosine, at most `1 / |sum|`, is taken off as a margin.
    """
    share = 1 / jnp.maximum(jnp.linalg.norm(sums, axis=1), 1.0)
    facts = state.facts._replace(margin=config.margin * config.scale * share)
    output = Table(unit(sums).astype(config.table_dtype))
    return state._replace(params=state.params._replace(output=output), facts=facts)


def start_at_frequencies(
    config: Config, state: State, counts: Array, num_examples: int
) -> State:
    """Biases at the labels' log frequencies, and the correction that goes with them.

    A label is active if the batch has it, or if it is drawn as a negative, which it is
    with probability `num_negatives / n`. Subtracting the log of the chance of either
    makes the sampled softmax estimate the full one (Bengio and Senecal 2008); `log_q`
    is the fraction of it that is applied.
    """
    n = counts.shape[0]
    frequency = (counts + 0.5) / jnp.sum(counts)
    labels_a_batch = jnp.sum(counts) / num_examples * config.batch_size
    log_missed = labels_a_batch * jnp.log1p(-jnp.minimum(frequency, 0.5))
    log_missed += jnp.log1p(-jnp.minimum(config.num_negatives / n, 1.0))
    log_q = config.log_q * jnp.log(-jnp.expm1(log_missed))
    bias = jnp.log(frequency) - jnp.mean(jnp.log(frequency))
    output = state.params.output.value
    output = Table(output.at[:, -1].set(bias.astype(output.dtype)))
    params = state.params._replace(output=output)
    return state._replace(params=params, facts=state.facts._replace(log_q=log_q))


@jax.jit
def label_codes(output: Table, key: Array) -> Array:
    """`i32[num_labels]` SimHash codes: labels with near rows tend to share one."""
    planes = jax.random.normal(key, (_CODE_BITS, output.shape[1]))
    signs = matmul(planes, output) > 0
    return jnp.sum(signs.T << jnp.arange(_CODE_BITS), axis=1, dtype=jnp.int32)


def state_bytes(state: State) -> int:
    """Bytes of the tables and their moments."""
    params, moments = state.params, state.moments
    wide = params.table, params.output, moments["table"], moments["output"]
    return sum(x.nbytes for x in jax.tree.leaves(wide))


def matmul(x: Array, w: Array | Table) -> Array:
    """`x @ w.T`, whose bits do not depend on the number of threads."""
    return fsparse.sampled_matmul(x, w, jnp.arange(w.shape[0], dtype=jnp.int32))


def unit(x: Array) -> Array:
    """Rows of length 1; rows of zeros stay zeros, with gradients of zero."""
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jnp.where(squares > 0, jax.lax.rsqrt(jnp.maximum(squares, 1e-12)), 0)


def _dropout(rate: float, key: Array, weights: Array) -> Array:
    if not rate:
        return weights
    keep = jax.random.bernoulli(key, 1 - rate, weights.shape)
    return jnp.where(keep, weights / (1 - rate), 0.0)
