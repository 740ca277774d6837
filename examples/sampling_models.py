"""Small models for the comparison of samplers: dense, of hashed ids, and very wide.

A model is a few pure functions. What a training step computes anyway of each example,
its loss and the norm of the gradient in its logits, is an `Outcome`::

    dense    inputs f32[m, d]              -> MLP -> logits
    bags     hashed words, weighted        -> embedding bag -> MLP -> logits
    fields   hashed ids, one a field       -> embeddings side by side -> MLP -> logits
    wide     hashed n-grams, weighted      -> embedding bag -> active rows of a table
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import fsparse
from fsparse import ActiveSet, Table, adaptive, rows, samplers

Array = jax.Array
_INIT_SCALE = 0.1  # of embeddings
_LENGTH = 12.0  # of the wide model's activations
_BLOCK = 32  # examples whose gradients are in memory at once


class Bags(NamedTuple):
    """Sparse inputs as lists of ids; padding is out of range."""

    ids: Array  # i32[m, k]
    weights: Any  # f32[m, k], or None


class Batch(NamedTuple):
    """Examples."""

    inputs: Any  # f32[m, d] or Bags
    labels: Array  # i32[m]
    index: Array  # i32[m], the place in the training data
    keys: Array  # f32[m, key_dim], standardised: what sketches hash


class Outcome(NamedTuple):
    """What a forward pass says of each example."""

    losses: Array  # f32[m], differentiable
    norms: Array  # f32[m], of the gradient in the logits


class Judged(NamedTuple):
    """What a test says of each example."""

    scores: Array  # f32[m]: 1 if right and 0 if not, or the margin of class 1
    losses: Array  # f32[m]


class Pieces(NamedTuple):
    """The loss as a function of the parameters that all examples share and its own.

    Rows of wide tables are an example's own, so that its gradient is small. Two equal
    ids of one example count as two rows.
    """

    shared: Any
    own: Any  # arrays [m, ...]
    fixed: Any  # arrays [m, ...], without gradients
    loss: Callable[[Any, Any, Any], Array]  # of one example


class Model(NamedTuple):
    """Pure functions of parameters; a key chooses negatives, where there are any."""

    init: Callable[[Array], Any]
    forward: Callable[[Any, Batch, Array], Outcome]
    judge: Callable[[Any, Batch], Judged]
    pieces: Callable[[Any, Batch, Array], Pieces]


def dense(sizes: Sequence[int], *, ranked: bool = False) -> Model:
    """A multi-layer perceptron; `ranked` if two classes are judged by their order."""

    def forward(params: Any, batch: Batch, key: Array) -> Outcome:
        del key
        return outcome(mlp(params, batch.inputs), batch.labels)

    def judge(params: Any, batch: Batch) -> Judged:
        return judged(mlp(params, batch.inputs), batch.labels, ranked)

    def pieces(params: Any, batch: Batch, key: Array) -> Pieces:
        del key
        loss = lambda params, own, fixed: cross_entropy(mlp(params, fixed[0]), fixed[1])  # noqa: E731
        return Pieces(params, (), (batch.inputs, batch.labels), loss)

    return Model(lambda key: mlp_init(key, sizes), forward, judge, pieces)


def of_table(
    num_features: int,
    width: int,
    sizes: Sequence[int],
    *,
    num_fields: int = 0,
    ranked: bool = False,
) -> Model:
    """An MLP on embeddings: their weighted sum, or one for each of `num_fields`."""
    inputs = width * max(num_fields, 1)

    def init(key: Array) -> Any:
        of_table, of_layers = jax.random.split(key)
        table = _INIT_SCALE * jax.random.normal(of_table, (num_features, width))
        return {"table": Table(table), "layers": mlp_init(of_layers, (inputs, *sizes))}

    def logits(params: Any, bags: Bags) -> Array:
        if num_fields:
            x = fsparse.take_rows(params["table"], bags.ids.reshape(-1))
            if bags.weights is not None:
                x *= bags.weights.reshape(-1, 1)
            return mlp(params["layers"], x.reshape(len(bags.ids), inputs))
        x = fsparse.embedding_bag(params["table"], bags.ids, bags.weights)
        return mlp(params["layers"], x)

    def forward(params: Any, batch: Batch, key: Array) -> Outcome:
        del key
        return outcome(logits(params, batch.inputs), batch.labels)

    def judge(params: Any, batch: Batch) -> Judged:
        return judged(logits(params, batch.inputs), batch.labels, ranked)

    def loss(layers: Any, own: Array, fixed: Any) -> Array:
        weights, label = fixed
        if num_fields:
            x = (own if weights is None else weights[:, None] * own).reshape(-1)
        else:
            x = weights @ own
        return cross_entropy(mlp(layers, x), label)

    def pieces(params: Any, batch: Batch, key: Array) -> Pieces:
        del key
        own = rows_at(params["table"], batch.inputs.ids)
        fixed = batch.inputs.weights, batch.labels
        return Pieces(params["layers"], own, fixed, loss)

    return Model(init, forward, judge, pieces)


def wide(
    num_features: int, width: int, num_labels: int, *, num_negatives: int
) -> Model:
    """One row of a wide table a label, of which a step computes the active ones.

    Active are the labels of the batch and uniform negatives. It is judged by exact
    search over all rows, and by the loss among the active ones.
    """

    def init(key: Array) -> Any:
        table = _INIT_SCALE * jax.random.normal(key, (num_features, width))
        return {"table": Table(table), "output": Table(jnp.zeros((num_labels, width)))}

    def active(batch: Batch, key: Array) -> ActiveSet:
        labels = batch.labels[:, None]
        drawn = samplers.uniform(num_labels).sample(
            key, samplers.Query(labels), num_negatives, False
        )
        size = min(len(labels) + num_negatives, num_labels)
        return fsparse.active_set(labels, drawn, num_rows=num_labels, size=size)

    def forward(params: Any, batch: Batch, key: Array) -> Outcome:
        chosen, bags = active(batch, key), batch.inputs
        h = unit(fsparse.embedding_bag(params["table"], bags.ids, bags.weights))
        logits = fsparse.sampled_matmul(h, params["output"], chosen.ids)
        rest = chosen.targets, chosen.is_active
        losses = fsparse.sampled_softmax_loss(logits, *rest)
        norms = adaptive.sampled_softmax_gradient_norm(logits, *rest)
        return Outcome(losses, norms)

    def judge(params: Any, batch: Batch) -> Judged:
        bags = batch.inputs
        h = unit(fsparse.embedding_bag(params["table"], bags.ids, bags.weights))
        _, best = fsparse.dense_top_k(h, params["output"], 1)
        hits = (best[:, 0] == batch.labels).astype(jnp.float32)
        return Judged(hits, forward(params, batch, jax.random.key(0)).losses)

    def loss(output: Array, own: Array, fixed: Any) -> Array:
        weights, targets, is_active = fixed
        logits = (output @ unit(weights @ own))[None]
        return fsparse.sampled_softmax_loss(logits, targets[None], is_active)[0]

    def pieces(params: Any, batch: Batch, key: Array) -> Pieces:
        chosen = active(batch, key)
        own = rows_at(params["table"], batch.inputs.ids)
        is_active = jnp.tile(chosen.is_active, (len(batch.labels), 1))
        fixed = batch.inputs.weights, chosen.targets, is_active
        return Pieces(rows_at(params["output"], chosen.ids), own, fixed, loss)

    return Model(init, forward, judge, pieces)


# ---- the exact gradients of examples ------------------------------------------------


def gradient_squares(
    model: Model, params: Any, batch: Batch, key: Array
) -> tuple[Array, Array]:
    """`f32[m]` squared norms of the examples' gradients, `f32[]` that of the mean's.

    By `vmap` of `grad`, in all parameters: no bound.
    """
    shared, own, fixed, loss = model.pieces(params, batch, key)

    def square(example: Any) -> Array:
        grads = jax.grad(loss, argnums=(0, 1))(shared, *example)
        return sum(jnp.sum(g * g) for g in jax.tree.leaves(grads))

    squares = jax.lax.map(square, (own, fixed), batch_size=_BLOCK)
    mean = fsparse.grad(lambda p: jnp.mean(model.forward(p, batch, key).losses))(params)
    return squares, rows.global_norm(mean) ** 2


# ---- parts --------------------------------------------------------------------------


def outcome(logits: Array, labels: Array) -> Outcome:
    """Of a softmax over all classes."""
    norms = adaptive.softmax_gradient_norm(logits, labels)
    return Outcome(cross_entropy(logits, labels), norms)


def judged(logits: Array, labels: Array, ranked: bool) -> Judged:
    """Right or wrong, or the margin of class 1."""
    right = (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32)
    scores = logits[:, 1] - logits[:, 0] if ranked else right
    return Judged(scores, cross_entropy(logits, labels))


def cross_entropy(logits: Array, labels: Array) -> Array:
    """In nats, of `f32[..., c]` and `i32[...]`."""
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def mlp_init(key: Array, sizes: Sequence[int]) -> list[tuple[Array, Array]]:
    """Weights of He et al. 2015, biases of 0."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [
        (jax.random.normal(k, (m, n)) * jnp.sqrt(2 / m), jnp.zeros(n))
        for k, m, n in pairs
    ]


def mlp(layers: list[tuple[Array, Array]], x: Array) -> Array:
    """Linear layers with ReLU between them."""
    for w, b in layers[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


def rows_at(table: Table, ids: Array) -> Array:
    """Rows of a table; zeros for padding."""
    return jnp.take(table.value, ids, axis=0, mode="fill", fill_value=0)


def unit(x: Array) -> Array:
    """Rows of one length; zeros stay."""
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    safe = jnp.maximum(squares, 1e-12)
    return _LENGTH * x * jnp.where(squares > 0, jax.lax.rsqrt(safe), 0)
