"""Tables split by rows over devices, by ``shard_map``: none holds a whole table.

Each device owns the rows from ``first`` on. It subtracts ``first`` from all ids: those
of other devices' rows fall outside of its table, which to fsparse is padding, yields
zeros and gets no gradient. Partial bags and logits are added up over devices; row
gradients, updates and moments stay where the rows are.

    python examples/interop/row_sharded.py --steps 100
"""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # before jax

from functools import partial

import jax
import jax.numpy as jnp
from common import NUM_LABELS, NUM_WORDS, difference, documents, make_parser, report
from jax.sharding import Mesh, PartitionSpec

import fsparse

D = 32
WHOLE, BY_ROWS = PartitionSpec(), PartitionSpec("rows")
optimizer = fsparse.multi_transform({"tables": fsparse.rows.sgd(20.0, momentum=0.5)})


def init(key):
    """Parameters and the optimizer's state, all rows of them."""
    embedding = 0.3 * jax.random.normal(key, (NUM_WORDS, D))
    output = jnp.zeros((NUM_LABELS, D))
    params = {"embedding": fsparse.Table(embedding), "output": fsparse.Table(output)}
    return params, optimizer.init(params)


def own_ids(table, ids):
    """Ids among the rows of this device; outside of them it has padding."""
    return ids - table.shape[0] * jax.lax.axis_index("rows")


def logits_fn(params, words, ids):
    """Of shared ids, ``f32[b, m]``, the same on all devices."""
    embedding, output = params["embedding"], params["output"]
    part = fsparse.embedding_bag(embedding, own_ids(embedding, words))
    bag = jnp.tanh(jax.lax.psum(part, "rows"))
    part = fsparse.sampled_matmul(bag, output, own_ids(output, ids))
    return jax.lax.psum(part, "rows")


def loss_fn(params, words, active):
    """Softmax over the active labels."""
    logits, is_active = logits_fn(params, words, active.ids), active.ids < NUM_LABELS
    return fsparse.sampled_softmax_loss(logits, active.targets, is_active).mean()


def train_step(params, state, key):
    """One batch, on each device the same; each updates its own rows."""
    words, _, active = documents(key, 256)
    loss, grads = fsparse.value_and_grad(loss_fn)(params, words, active)
    return *optimizer.step(params, state, grads), loss


def train(num_devices, keys):
    """The same steps on any number of devices; parameters, losses and accuracy."""
    (params, state), losses = init(jax.random.key(0)), []
    place = lambda x: BY_ROWS if x.ndim == 2 else WHOLE  # noqa: E731
    specs = jax.tree.map(place, (params, state))
    mesh = Mesh(jax.devices()[:num_devices], ("rows",))
    on_mesh = partial(jax.shard_map, mesh=mesh)
    step = on_mesh(train_step, in_specs=(*specs, WHOLE), out_specs=(*specs, WHOLE))
    step = jax.jit(step, donate_argnums=(0, 1))
    for key in keys:
        params, state, loss = step(params, state, key)
        losses.append(loss)
    test = documents(jax.random.key(2), 2000)
    score = on_mesh(logits_fn, in_specs=(specs[0], WHOLE, WHOLE), out_specs=WHOLE)
    scores = jax.jit(score)(params, test.words, jnp.arange(NUM_LABELS))
    return params, losses, (scores.argmax(axis=1) == test.labels[:, 0]).mean()


args = make_parser(__file__, __doc__, steps=100).parse_args()
keys = jax.random.split(jax.random.key(1), args.steps)
params, losses, accuracy = train(2, keys)
apart = difference(params, train(1, keys)[0])
report(args, losses, difference=apart, accuracy=accuracy)
