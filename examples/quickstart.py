"""A layer of a million neurons, trained by gradients of the rows that are active."""

from functools import partial

import jax
import jax.numpy as jnp

import fsparse
from fsparse import rows

N, D = 1_000_000, 64  # features, and labels; units of the hidden layer


@partial(jax.jit, donate_argnums=0)
def train_step(state, key, feature_ids, label_ids):
    """Gradient descent on both tables, in place; returns them and the loss."""
    table, output = state
    active = fsparse.shared_active_set(key, label_ids, num_rows=N, num_negatives=1024)

    def loss_fn(bag, active_rows):
        logits, is_active = bag @ active_rows.T, active.ids < N
        return fsparse.sampled_softmax_loss(logits, active.targets, is_active).mean()

    bag = fsparse.embedding_bag(table, feature_ids)
    active_rows = fsparse.take_rows(output, active.ids)
    loss, (dbag, drows) = jax.value_and_grad(loss_fn, (0, 1))(bag, active_rows)
    dtable = fsparse.RowGrad(feature_ids, jnp.ones(feature_ids.shape), dbag)
    table = rows.sgd_update(table, dtable, learning_rate=20.0)
    doutput = fsparse.row_grad(active.ids, drows)
    output = rows.sgd_update(output, doutput, learning_rate=20.0)
    return (table, output), loss


state = 0.1 * jax.random.normal(jax.random.key(0), (N, D)), jnp.zeros((N, D))
for step in range(300):
    key = jax.random.fold_in(jax.random.key(1), step)
    label_ids = jax.random.randint(key, (256, 1), 0, 1000)
    feature_ids = 5 * label_ids + jnp.arange(4)
    state, loss = train_step(state, key, feature_ids, label_ids)
    if step % 100 == 99:
        print(f"step {step + 1}: loss {loss:.3f}")
