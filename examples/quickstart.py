"""A layer of a million neurons, trained by gradients of the rows that are active."""

from functools import partial

import jax
import jax.numpy as jnp

import fsparse
from fsparse import Table, rows, samplers

N, D = 1_000_000, 64  # features, and labels; units of the hidden layer
negatives = samplers.uniform(N)
optimizer = fsparse.multi_transform({"tables": rows.sgd(20.0)})


def loss_fn(params, key, feature_ids, label_ids):
    """Cross-entropy among 1,280 labels: those of the batch, and random ones."""
    query = samplers.Query(label_ids)
    active = fsparse.sample_active_set(negatives, key, query, size=1280)
    h = fsparse.embedding_bag(params["embedding"], feature_ids)
    logits = fsparse.sampled_matmul(h, params["output"], active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


@partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, state, *batch):
    """Gradient descent on both tables, in place; returns them and the loss."""
    loss, grads = fsparse.value_and_grad(loss_fn)(params, *batch)
    return *optimizer.step(params, state, grads), loss


embedding = 0.1 * jax.random.normal(jax.random.key(0), (N, D))
params = {"embedding": Table(embedding), "output": Table(jnp.zeros((N, D)))}
state = optimizer.init(params)
for step in range(300):
    key = jax.random.fold_in(jax.random.key(1), step)
    label_ids = jax.random.randint(key, (256, 1), 0, 1000)
    feature_ids = 5 * label_ids + jnp.arange(4)
    params, state, loss = train_step(params, state, key, feature_ids, label_ids)
    if step % 100 == 99:
        print(f"step {step + 1}: loss {loss:.3f}")
