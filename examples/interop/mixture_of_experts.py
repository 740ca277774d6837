"""A mixture of experts: a table of words for each, all of them folded into one.

What a word means depends on the domain, and scores choose two experts for each domain.
Expert ``e`` owns the rows from ``e * NUM_WORDS`` on: to route is to shift ids.

    python examples/interop/mixture_of_experts.py --steps 300
"""

import jax
import jax.numpy as jnp
import optax
from common import NUM_LABELS, NUM_WORDS, documents, make_parser, report

import fsparse

D, DOMAINS = 32, 4
transforms = {"tables": fsparse.rows.adam(0.02), "dense": optax.adam(0.05)}
optimizer = fsparse.multi_transform(transforms)


def init(key, num_experts):
    """Parameters and the optimizer's state."""
    of_experts, of_router = jax.random.split(key)
    experts = 0.5 * jax.random.normal(of_experts, (num_experts * NUM_WORDS, D))
    router = 0.1 * jax.random.normal(of_router, (DOMAINS, num_experts))
    output = fsparse.Table(jnp.zeros((NUM_LABELS, D)))
    params = {"experts": fsparse.Table(experts), "router": router, "output": output}
    return params, optimizer.init(params)


def mixture(params, words, domains):
    """The bags of two experts, weighted by the router: ``f32[b, D]``."""
    chosen = min(2, params["router"].shape[1])
    scores, experts = jax.lax.top_k(params["router"][domains], chosen)
    ids = words + NUM_WORDS * experts.T[:, :, None]  # i32[chosen, b, k]
    # The map is over the chosen experts and only over ids. One over all experts, each
    # with a table of its own, would make each of them read every document.
    bags = jax.vmap(fsparse.embedding_bag, in_axes=(None, 0))(params["experts"], ids)
    return jnp.einsum("be,ebd->bd", jax.nn.softmax(scores), bags)


def loss_fn(params, words, domains, active):
    """Softmax over the active labels."""
    h = mixture(params, words, domains)
    logits = fsparse.sampled_matmul(h, params["output"], active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


def in_domains(key, batch_size):
    """Documents about a label, in the words that another domain has for another."""
    words, labels, active = documents(key, batch_size)
    domains = jax.random.randint(jax.random.fold_in(key, 1), (batch_size,), 0, DOMAINS)
    words = (words + domains[:, None] * (NUM_WORDS // DOMAINS)) % NUM_WORDS
    return words, domains, labels, active


def train_step(carry, key):
    """One batch, as a body of ``scan``."""
    params, state = carry
    words, domains, _, active = in_domains(key, 512)
    loss, grads = fsparse.value_and_grad(loss_fn)(params, words, domains, active)
    return optimizer.step(params, state, grads), loss


@jax.jit
def train(carry, keys):
    """Losses, and accuracy on new documents."""
    (params, _), losses = jax.lax.scan(train_step, carry, keys)
    words, domains, labels, _ = in_domains(jax.random.key(2), 2000)
    _, found = fsparse.dense_top_k(mixture(params, words, domains), params["output"], 1)
    return losses, (found == labels).mean()


args = make_parser(__file__, __doc__, steps=300).parse_args()
keys = jax.random.split(jax.random.key(1), args.steps)
_, of_one = train(init(jax.random.key(0), num_experts=1), keys)
losses, accuracy = train(init(jax.random.key(0), num_experts=8), keys)
report(args, losses, accuracy_of_one=of_one, accuracy=accuracy)
