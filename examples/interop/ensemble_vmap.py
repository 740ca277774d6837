"""An ensemble of models, trained by one ``vmap`` of ``init`` and of the step.

The step knows of one member; under ``vmap`` each custom call serves all of them. They
begin at other weights and see other documents. Each ends as if trained alone, and they
are better together than alone.

    python examples/interop/ensemble_vmap.py --steps 60
"""

import jax
import jax.numpy as jnp
from common import NUM_LABELS, NUM_WORDS, difference, documents, make_parser, report

import fsparse

D, MEMBERS = 32, 4
optimizer = fsparse.multi_transform({"tables": fsparse.rows.adagrad(0.3)})


def init(key):
    """Parameters and the optimizer's state of one member."""
    embedding = 0.3 * jax.random.normal(key, (NUM_WORDS, D))
    output = jnp.zeros((NUM_LABELS, D))
    params = {"embedding": fsparse.Table(embedding), "output": fsparse.Table(output)}
    return params, optimizer.init(params)


def loss_fn(params, words, active):
    """Softmax over the active labels, of one member."""
    bag = fsparse.embedding_bag(params["embedding"], words)
    logits = fsparse.sampled_matmul(bag, params["output"], active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


def train_step(params, state, key):
    """One batch, of one member."""
    words, _, active = documents(key, 128)
    loss, grads = fsparse.value_and_grad(loss_fn)(params, words, active)
    params, state = optimizer.step(params, state, grads)
    return params, state, loss


def train(init, step, keys):
    """The same loop for one member, and for all of them at once."""
    params, state = init(keys[0])
    step, losses = jax.jit(step, donate_argnums=(0, 1)), []
    for key in keys[1:]:
        params, state, loss = step(params, state, key)
        losses.append(loss)
    return params, jnp.stack(losses)


@jax.jit
def probabilities(params, words):
    """Of all labels, ``f32[b, NUM_LABELS]``."""
    bag = fsparse.embedding_bag(params["embedding"], words)
    return jax.nn.softmax(bag @ params["output"].value.T)


args = make_parser(__file__, __doc__, steps=60).parse_args()
keys = jax.random.split(jax.random.key(0), (args.steps + 1, MEMBERS))
ensemble, losses = train(jax.vmap(init), jax.vmap(train_step), keys)
alone = [train(init, train_step, keys[:, i])[0] for i in range(MEMBERS)]
stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *alone)

test = documents(jax.random.key(1), 2000)
scores = jax.vmap(probabilities, (0, None))(ensemble, test.words)
best = jnp.argmax(jnp.stack([*scores, scores.mean(axis=0)]), axis=-1)
*each, together = (best == test.labels[:, 0]).mean(axis=1)
figures = {"accuracy_of_one": sum(each) / MEMBERS, "accuracy": together}
report(args, losses.mean(axis=1), difference=difference(ensemble, stacked), **figures)
