"""A flax.nnx model whose first and last layers are tables.

A ``Table`` in an ``nnx.Param`` is one node of the model's state: ``nnx.split`` gives a
tree that ``fsparse.value_and_grad`` differentiates and one optimizer trains. Means of
the batch norm and dropout's random numbers are the second result of the loss.

    python examples/interop/flax_nnx.py --steps 200
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from common import NUM_LABELS, NUM_WORDS, documents, make_parser, report
from flax import nnx

import fsparse

D = 64


class Classifier(nnx.Module):
    """An embedding bag, a dense layer, and a layer as wide as there are labels."""

    def __init__(self, rngs: nnx.Rngs):
        embedding = jax.random.normal(rngs.params(), (NUM_WORDS, D))
        self.embedding = nnx.Param(fsparse.Table(embedding))
        self.hidden = nnx.Linear(D, D, rngs=rngs)
        self.norm = nnx.BatchNorm(D, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.output = nnx.Param(fsparse.Table(jnp.zeros((NUM_LABELS, D))))

    def __call__(self, words):
        """Of ``i32[b, k]`` the hidden layer ``f32[b, D]``, which ``output`` reads."""
        bag = fsparse.embedding_bag(self.embedding.get_value(), words)
        return self.dropout(nnx.relu(self.norm(self.hidden(bag))))


optimizer = fsparse.multi_transform(
    {"tables": fsparse.rows.adam(0.02), "dense": optax.adam(2e-3)}
)


def loss_fn(params, rest, graph, words, active):
    """Softmax over the active labels, and what has changed besides the parameters."""
    model = nnx.merge(graph, params, rest, copy=True)  # rest is of another trace
    logits = fsparse.sampled_matmul(model(words), model.output.get_value(), active.ids)
    loss = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()
    return loss, nnx.state(model, nnx.Not(nnx.Param))


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2, 3))
def train_step(graph, params, rest, state, key):
    """One batch, in place."""
    words, _, active = documents(key, 256)
    grad_fn = fsparse.value_and_grad(loss_fn, has_aux=True)
    (loss, rest), grads = grad_fn(params, rest, graph, words, active)
    params, state = optimizer.step(params, state, grads)
    return params, rest, state, loss


args = make_parser(__file__, __doc__, steps=200).parse_args()
graph, params, rest = nnx.split(Classifier(nnx.Rngs(0)), nnx.Param, ...)
state, losses = optimizer.init(params), []
for key in jax.random.split(jax.random.key(1), args.steps):
    params, rest, state, loss = train_step(graph, params, rest, state, key)
    losses.append(loss)

model = nnx.merge(graph, params, rest)
model.eval()
test = documents(jax.random.key(2), 2000)
_, found = fsparse.dense_top_k(model(test.words), model.output.get_value(), 1)
report(args, losses, accuracy=(found == test.labels).mean())
