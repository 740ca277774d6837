"""Plain pytrees and optax: each part of a usual recipe, once.

One schedule for tables and arrays, decoupled weight decay, gradients accumulated over
parts of a batch and clipped by their global norm; steps are skipped whose gradients are
not finite: one batch has a NaN on purpose.

    python examples/interop/plain_optax.py --steps 200
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from common import NUM_LABELS, NUM_WORDS, documents, make_parser, report

import fsparse
from fsparse import samplers

D, PARTS, MAX_NORM, DECAY = 64, 4, 1.0, 1e-3

negatives = samplers.uniform(NUM_LABELS)
args = make_parser(__file__, __doc__, steps=200).parse_args()
schedule = optax.warmup_cosine_decay_schedule(0.0, 0.03, 10, max(args.steps, 11))
transforms = {
    "tables": fsparse.rows.adam(schedule, weight_decay=DECAY),
    "dense": optax.adamw(schedule, weight_decay=DECAY),
}
optimizer = fsparse.skip_nonfinite(fsparse.multi_transform(transforms))


def init(key):
    """Wide tables are marked; everything else is as it always was."""
    of_embedding, of_hidden = jax.random.split(key)
    return {
        "embedding": fsparse.Table(jax.random.normal(of_embedding, (NUM_WORDS, D))),
        "hidden": jax.random.normal(of_hidden, (D, D)) / D**0.5,
        "output": fsparse.Table(jnp.zeros((NUM_LABELS, D))),
    }


def hidden(params, words):
    """``i32[b, k] -> f32[b, D]``."""
    bag = fsparse.embedding_bag(params["embedding"], words)
    return jax.nn.relu(bag @ params["hidden"])


def loss_fn(params, batch, key):
    """The weighted mean over examples; accumulate averages it over parts."""
    words, labels, weights = batch
    query = samplers.Query(labels)
    active = fsparse.sample_active_set(negatives, key, query, size=320)
    logits = fsparse.sampled_matmul(hidden(params, words), params["output"], active.ids)
    losses = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
    return jnp.mean(weights * losses)


@partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, state, batch, key):
    """One batch in several parts, in place."""
    grad_fn = partial(fsparse.value_and_grad(loss_fn), key=key)
    loss, grads = fsparse.accumulate(grad_fn, PARTS)(params, batch)
    grads = fsparse.clip_by_global_norm(grads, MAX_NORM)
    params, state = optimizer.step(params, state, grads)
    return params, state, loss


params, losses = init(jax.random.key(0)), []
state = optimizer.init(params)
for step, key in enumerate(jax.random.split(jax.random.key(1), args.steps)):
    of_batch, of_negatives = jax.random.split(key)
    weights = jnp.ones(256).at[0].set(jnp.nan if step == args.steps // 2 else 1.0)
    batch = *documents(of_batch, 256)[:2], weights
    params, state, loss = train_step(params, state, batch, of_negatives)
    losses.append(loss)

test = documents(jax.random.key(2), 2000)
_, found = fsparse.dense_top_k(hidden(params, test.words), params["output"], 1)
report(args, losses, accuracy=(found == test.labels).mean(), skipped=state.skipped)
