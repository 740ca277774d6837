"""Data parallelism by ``shard_map``: every device has the tables and a part of a batch.

The loss is a mean over devices, so gradients are those of the whole batch on each: the
row gradient of a table names the rows that any of them read. Each updates its own copy.
Two devices do what one does, up to rounding.

    python examples/interop/data_parallel.py --steps 100
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # before jax

from functools import partial

import jax
import jax.numpy as jnp
import optax
from common import NUM_LABELS, NUM_WORDS, difference, documents, make_parser, report
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fsparse

D, SHARED, SHARDED = 32, PartitionSpec(), PartitionSpec("data")
transforms = {"tables": fsparse.rows.sgd(20.0), "dense": optax.adam(1e-3)}
optimizer = fsparse.multi_transform(transforms)


def init(key):
    """Parameters and the optimizer's state."""
    params = {
        "embedding": fsparse.Table(0.3 * jax.random.normal(key, (NUM_WORDS, D))),
        "hidden": jnp.eye(D),
        "output": fsparse.Table(jnp.zeros((NUM_LABELS, D))),
    }
    return params, optimizer.init(params)


def loss_fn(params, words, targets, ids):
    """A mean over the examples of all shards."""
    h = fsparse.embedding_bag(params["embedding"], words) @ params["hidden"]
    logits = fsparse.sampled_matmul(h, params["output"], ids)
    losses = fsparse.sampled_softmax_loss(logits, targets, ids < NUM_LABELS)
    return jax.lax.pmean(losses.mean(), "data")


def update(params, state, words, targets, ids):
    """Gradients and the update, on each device."""
    loss, grads = fsparse.value_and_grad(loss_fn)(params, words, targets, ids)
    return *optimizer.step(params, state, grads), loss


def train(num_devices, keys):
    """The same steps on any number of devices."""
    mesh = Mesh(jax.devices()[:num_devices], ("data",))
    in_specs = SHARED, SHARED, SHARDED, SHARDED, SHARED
    sharded = jax.shard_map(update, mesh=mesh, in_specs=in_specs, out_specs=SHARED)

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, state, key):
        words, _, active = documents(key, 256)
        return sharded(params, state, words, active.targets, active.ids)

    everywhere = NamedSharding(mesh, SHARED)  # so that no step compiles anew
    (params, state), losses = jax.device_put(init(jax.random.key(0)), everywhere), []
    for key in keys:
        params, state, loss = train_step(params, state, key)
        losses.append(loss.block_until_ready())  # devices on one CPU must not overlap
    return params, losses


args = make_parser(__file__, __doc__, steps=100).parse_args()
keys = jax.random.split(jax.random.key(1), args.steps)
(params, losses), (other, _) = train(1, keys), train(2, keys)
words, labels, _ = documents(jax.random.key(2), 2000)
h = fsparse.embedding_bag(params["embedding"], words) @ params["hidden"]
_, found = fsparse.dense_top_k(h, params["output"], 1)
accuracy = (found == labels).mean()
report(args, losses, difference=difference(params, other), accuracy=accuracy)
