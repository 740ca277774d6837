"""An equinox model that holds tables among its fields: it learns to recommend.

A ``Table`` is a pytree of one array, so all of equinox's functions take it. Only
``eqx.filter_value_and_grad`` becomes ``fsparse.value_and_grad`` of the floating leaves.
The table is read twice, and its two row gradients arrive as one.

    python examples/interop/equinox_mlp.py --steps 300
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from common import make_parser, report

import fsparse
from fsparse import samplers

NUM_ITEMS, SET, D = 5000, 10, 32  # sets of ten items are bought together


class Recommender(eqx.Module):
    """Scores an item by its product with a function of the bag of others."""

    items: fsparse.Table
    tower: eqx.nn.MLP

    def __init__(self, key):
        of_items, of_tower = jax.random.split(key)
        self.items = fsparse.Table(jax.random.normal(of_items, (NUM_ITEMS, D)) / 2)
        self.tower = eqx.nn.MLP(D, D, width_size=64, depth=1, key=of_tower)

    def __call__(self, basket):
        """``i32[b, k] -> f32[b, D]``."""
        return jax.vmap(self.tower)(fsparse.embedding_bag(self.items, basket))


def baskets(key, batch_size):
    """Some items of a set, and one more of it."""
    of_set, of_order = jax.random.split(key)
    sets = jax.random.randint(of_set, (batch_size, 1), 0, NUM_ITEMS // SET)
    items = SET * sets + jnp.arange(SET)
    items = jax.random.permutation(of_order, items, axis=1, independent=True)
    return items[:, :4], items[:, 4:5]


def loss_fn(params, static, basket, active):
    """Softmax of the next item among the active ones."""
    model = eqx.combine(params, static)
    logits = fsparse.sampled_matmul(model(basket), model.items, active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


negatives = samplers.uniform(NUM_ITEMS)
transforms = {"tables": fsparse.rows.adam(0.02), "dense": optax.adamw(3e-3)}
optimizer = fsparse.multi_transform(transforms)


@eqx.filter_jit(donate="all-except-first")
def train_step(key, model, state):
    """One batch, in place."""
    basket, bought = baskets(key, 512)
    key, query = jax.random.fold_in(key, 1), samplers.Query(bought)
    active = fsparse.sample_active_set(negatives, key, query, size=1024)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    loss, grads = fsparse.value_and_grad(loss_fn)(params, static, basket, active)
    params, state = optimizer.step(params, state, grads)
    return eqx.combine(params, static), state, loss


args = make_parser(__file__, __doc__, steps=300).parse_args()
model, losses = Recommender(jax.random.key(0)), []
state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
for key in jax.random.split(jax.random.key(1), args.steps):
    model, state, loss = train_step(key, model, state)
    losses.append(loss)
basket, _ = baskets(jax.random.key(2), 500)
_, found = fsparse.dense_top_k(model(basket), model.items, SET)
report(args, losses, precision=(found // SET == basket[:, :1] // SET).mean())
