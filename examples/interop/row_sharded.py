"""Tables split by rows over devices, by ``shard_map``: none holds a whole table.

Each device shifts ids by its first row; those of others' rows are then padding, with no
value and no gradient. Bags and logits are added up; updates stay with the rows.

    python examples/interop/row_sharded.py --steps 100
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # before jax

import jax
import jax.numpy as jnp
from common import NUM_LABELS, NUM_WORDS, difference, documents, make_parser, report
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import fsparse

D = 32
WHOLE, BY_ROWS, SIDE_BY_SIDE = P(), P("rows"), P(None, "rows")
optimizer = fsparse.multi_transform({"tables": fsparse.rows.sgd(20.0, momentum=0.5)})


def first_row(table):
    """The number of this device's first row."""
    return table.shape[0] * jax.lax.axis_index("rows")


def bag(table, words):
    """``i32[b, k] -> f32[b, D]``, the same on all devices."""
    own = fsparse.embedding_bag(table, words - first_row(table))
    return jnp.tanh(jax.lax.psum(own, "rows"))


def loss_fn(params, words, active):
    """Softmax over the active labels, the same on all devices."""
    h, output = bag(params["embedding"], words), params["output"]
    own = fsparse.sampled_matmul(h, output, active.ids - first_row(output))
    logits = jax.lax.psum(own, "rows")
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


def train_step(carry, key):
    """One batch; each device updates its rows."""
    params, state = carry
    words, _, active = documents(key, 256)
    loss, grads = fsparse.value_and_grad(loss_fn)(params, words, active)
    return optimizer.step(params, state, grads), loss


def run(carry, keys, words):
    """Trains; then, for each of some documents, the best label that a device owns."""
    (params, _), losses = jax.lax.scan(train_step, carry, keys)
    h = bag(params["embedding"], words)
    scores, found = fsparse.dense_top_k(h, params["output"], 1)
    return params, losses, scores, found + first_row(params["output"])


def run_on(num_devices, carry, keys, words):
    """The same on any number of devices, whose best labels stand side by side."""
    mesh = Mesh(jax.devices()[:num_devices], ("rows",))
    specs = jax.tree.map(lambda x: BY_ROWS if x.ndim == 2 else WHOLE, carry)
    ins, outs = (specs, WHOLE, WHOLE), (specs[0], WHOLE, SIDE_BY_SIDE, SIDE_BY_SIDE)
    sharded = jax.shard_map(run, mesh=mesh, in_specs=ins, out_specs=outs)
    return jax.device_get(jax.jit(sharded)(carry, keys, words))


args = make_parser(__file__, __doc__, steps=100).parse_args()
embedding = fsparse.Table(0.3 * jax.random.normal(jax.random.key(0), (NUM_WORDS, D)))
params = {"embedding": embedding, "output": fsparse.Table(jnp.zeros((NUM_LABELS, D)))}
carry = params, optimizer.init(params)
keys = jax.random.split(jax.random.key(1), args.steps)
words, labels, _ = documents(jax.random.key(2), 2000)
(one, *_), (two, losses, scores, ids) = (run_on(n, carry, keys, words) for n in (1, 2))
best = jnp.take_along_axis(ids, scores.argmax(axis=1, keepdims=True), axis=1)
apart, accuracy = difference(one, two), (best == labels).mean()
report(args, losses, difference=apart, accuracy=accuracy)
