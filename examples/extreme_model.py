"""A classifier with very many labels, as pure functions on one explicit pytree.

    u = unit(sum_j weights[j] table[ids[j]])        embedding bag
    h = scale unit(u + relu(sqrt(d) u w + b) v)     hidden layer, residual
    h[-1] = 1                                       so output[:, -1] is a bias
    logits = h . output[active]                     wide layer, active neurons only

Active are the labels of the batch and uniform negatives, shared by the batch. The wide
tables are never differentiated: the loss is a function of the rows it reads, and the
gradient of those rows updates the tables in place (see `train_step`).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import fsparse
from fsparse import losses, rows, sampling
from fsparse.data import Batch

Array = jax.Array
_HIDDEN_OPTIMIZER = optax.scale_by_adam()
_CODE_BITS = 20


class Config(NamedTuple):
    """Shapes and settings of the model and its training; hashable, so static in jit."""

    width: int = 128  # d, units of the hidden layer, the bias among them
    scale: float = 12.0  # length of h: the largest logit of a unit row
    batch_size: int = 256
    num_negatives: int = 4096  # uniform draws a batch
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

    table: Array  # f32[num_features, d]
    hidden: Hidden
    output: Array  # f32[num_labels, d]


class Moments(NamedTuple):
    """State of the optimizers."""

    table: rows.AdamState
    hidden: Any  # of optax
    output: rows.AdamState


class LabelFacts(NamedTuple):
    """What is known of each label before training."""

    log_q: Array  # f32[num_labels], subtracted from its logit while training
    margin: Array  # f32[num_labels], subtracted where it is the target


class State(NamedTuple):
    """Everything that training reads and writes."""

    params: Params
    moments: Moments
    facts: LabelFacts
    codes: Array  # i32[num_labels], which labels are alike: see `label_codes`
    key: Array  # u32[2]
    step: Array  # i32[]


def init(config: Config, num_features: int, num_labels: int, seed: int) -> State:
    """Random embeddings, a hidden layer that is the identity, an output of zeros."""
    d = config.width
    key, table_key, hidden_key = jax.random.split(jax.random.PRNGKey(seed), 3)
    hidden = Hidden(
        jax.random.normal(hidden_key, (d, d)) * jnp.sqrt(2 / d),
        jnp.zeros(d),
        jnp.zeros((d, d)),
    )
    table = 0.1 * jax.random.normal(table_key, (num_features, d))
    output = jnp.zeros((num_labels, d))
    return State(
        Params(table, hidden, output),
        Moments(
            rows.adam_init(table),
            _HIDDEN_OPTIMIZER.init(hidden),
            rows.adam_init(output),
        ),
        LabelFacts(jnp.zeros(num_labels), jnp.zeros(num_labels)),
        jnp.zeros(num_labels, jnp.int32),
        key,
        jnp.zeros((), jnp.int32),
    )


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_step(
    config: Config, state: State, batch: Batch, learning_rate: Array
) -> tuple[State, Array]:
    """One step of Adam on the rows that the batch names.

    `learning_rate` is a factor of all the rates in `config`. Returns the new state,
    which overwrites the old one, and the mean loss of a label in nats.
    """
    params, moments = state.params, state.moments
    key, dropout_key, negatives_key = jax.random.split(state.key, 3)
    weights = _dropout(config.feature_dropout, dropout_key, batch.feature_weights)
    active = sampling.shared_active_set(
        negatives_key,
        batch.label_ids,
        num_rows=params.output.shape[0],
        num_negatives=config.num_negatives,
    )
    bag = fsparse.embedding_bag(params.table, batch.feature_ids, weights)
    active_rows = fsparse.take_rows(params.output, active.ids)
    loss, (bag_grad, hidden_grad, active_grad) = jax.value_and_grad(
        active_loss, argnums=(1, 2, 3)
    )(config, bag, params.hidden, active_rows, state.facts, active, batch.label_ids)

    table, table_moments = rows.adam_update(
        params.table,
        moments.table,
        fsparse.RowGrad(batch.feature_ids, weights, bag_grad),
        learning_rate=config.embedding_learning_rate * learning_rate,
    )
    output, output_moments = rows.adam_update(
        params.output,
        moments.output,
        fsparse.row_grad(active.ids, active_grad),
        learning_rate=config.learning_rate * learning_rate,
    )
    direction, hidden_moments = _HIDDEN_OPTIMIZER.update(hidden_grad, moments.hidden)
    step_size = config.hidden_learning_rate * learning_rate
    hidden = jax.tree.map(lambda p, u: p - step_size * u, params.hidden, direction)
    state = state._replace(
        params=Params(table, hidden, output),
        moments=Moments(table_moments, hidden_moments, output_moments),
        key=key,
        step=state.step + 1,
    )
    return state, loss


def active_loss(
    config: Config,
    bag: Array,
    hidden: Hidden,
    active_rows: Array,
    facts: LabelFacts,
    active: sampling.ActiveSet,
    label_ids: Array,
) -> Array:
    """Mean over the batch's labels of the softmax cross-entropy in the active set."""
    n, m = facts.margin.shape[0], active.ids.shape[0]
    h = hidden_layer(config, hidden, bag)
    logits = matmul(h, active_rows)
    logits -= facts.log_q.at[active.ids].get(mode="fill", fill_value=0)
    margin = facts.margin.at[label_ids].get(mode="fill", fill_value=0)
    example = jnp.arange(label_ids.shape[0])[:, None]
    logits = logits.at[example, active.targets].add(-margin, mode="drop")
    loss = losses.sampled_softmax_loss(logits, active.targets, active.ids < n)
    num_labels = jnp.sum(active.targets < m, axis=1)
    return jnp.sum(loss * num_labels) / jnp.maximum(jnp.sum(num_labels), 1)


def hidden_layer(config: Config, hidden: Hidden, bag: Array) -> Array:
    """`f32[b, d]` activations of length `scale`, and a last one of 1."""
    u = unit(bag)
    inner = matmul(u * jnp.sqrt(1.0 * config.width), hidden.w.T) + hidden.b
    h = unit(u + matmul(jax.nn.relu(inner), hidden.v.T))
    return (config.scale * h).at[:, -1].set(1.0)


def encode(config: Config, params: Params, batch: Batch) -> Array:
    """`f32[b, d]` activations of a batch."""
    ids, weights = batch.feature_ids, batch.feature_weights
    bag = fsparse.embedding_bag(params.table, ids, weights)
    return hidden_layer(config, params.hidden, bag)


@partial(jax.jit, static_argnums=(0, 3))
def predict(config: Config, params: Params, batch: Batch, k: int) -> Array:
    """`i32[b, k]` the best labels by an exact search, best first."""
    h = encode(config, params, batch)
    if not config.exclude_inputs:
        return fsparse.dense_top_k(h, params.output, k)[1]
    _, ids = fsparse.dense_top_k(h, params.output, k + batch.feature_ids.shape[1])
    is_input = jnp.any(ids[:, :, None] == batch.feature_ids[:, None, :], axis=2)
    new_first = jnp.argsort(is_input, axis=1, stable=True)[:, :k]
    return jnp.take_along_axis(ids, new_first, axis=1)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def add_to_centroids(
    config: Config, sums: Array, params: Params, batch: Batch
) -> Array:
    """Adds each example's direction to the rows of its labels; `f32[num_labels, d]`."""
    h = encode(config, params, batch).at[:, -1].set(0.0) / config.scale
    ones = jnp.ones(batch.label_ids.shape, jnp.float32)
    direction = fsparse.RowGrad(batch.label_ids, ones, h)
    return rows.sgd_update(sums, direction, learning_rate=-1.0)


def start_at_centroids(config: Config, state: State, sums: Array) -> State:
    """Output rows as unit means of their examples, before any step.

    An example is part of its own label's mean and would look easier than it is. Its
    share of the cosine, at most `1 / |sum|`, is taken off as a margin.
    """
    share = 1 / jnp.maximum(jnp.linalg.norm(sums, axis=1), 1.0)
    facts = state.facts._replace(margin=config.margin * config.scale * share)
    params = state.params._replace(output=unit(sums))
    return state._replace(params=params, facts=facts)


def start_at_frequencies(
    config: Config, state: State, counts: Array, num_examples: int
) -> State:
    """Biases at the labels' log frequencies, and the correction that goes with them.

    A label is active if the batch has it or a negative draw hits it. Subtracting the
    log of that probability makes the sampled softmax estimate the full one (Bengio and
    Senecal 2008); `log_q` is the fraction of it that is applied.
    """
    n = counts.shape[0]
    frequency = (counts + 0.5) / jnp.sum(counts)
    labels_a_batch = jnp.sum(counts) / num_examples * config.batch_size
    log_missed = labels_a_batch * jnp.log1p(-jnp.minimum(frequency, 0.5))
    log_missed += config.num_negatives * jnp.log1p(-1 / jnp.maximum(n, 2))
    log_q = config.log_q * jnp.log(-jnp.expm1(log_missed))
    bias = jnp.log(frequency) - jnp.mean(jnp.log(frequency))
    output = state.params.output.at[:, -1].set(bias)
    params = state.params._replace(output=output)
    return state._replace(params=params, facts=state.facts._replace(log_q=log_q))


@jax.jit
def label_codes(output: Array, key: Array) -> Array:
    """`i32[num_labels]` SimHash codes: labels with near rows tend to share one."""
    planes = jax.random.normal(key, (_CODE_BITS, output.shape[1]))
    signs = matmul(output, planes) > 0
    return jnp.sum(signs << jnp.arange(_CODE_BITS), axis=1, dtype=jnp.int32)


def matmul(x: Array, w: Array) -> Array:
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
