"""Many training steps in one ``lax.scan``, whose state is donated.

Tables and moments are overwritten in place: the last line compares their size with
what the program allocates besides them.

    python examples/interop/steps_in_scan.py --steps 200 --plot curve.png
"""

from functools import partial

import jax
import jax.numpy as jnp
from common import NUM_LABELS, NUM_WORDS, documents, make_parser, report

import fsparse

N, D = 100_000, 64  # rows and width of both tables
negatives = fsparse.samplers.uniform(N)
optimizer = fsparse.multi_transform({"tables": fsparse.rows.adam(0.02)})


def init(key):
    """Parameters and the optimizer's state."""
    embedding, output = 0.5 * jax.random.normal(key, (N, D)), jnp.zeros((N, D))
    params = {"embedding": fsparse.Table(embedding), "output": fsparse.Table(output)}
    return params, optimizer.init(params)


def wide_batch(key):
    """Words and labels, spread over the rows of the tables."""
    words, labels, _ = documents(key, 256)
    return words * (N // NUM_WORDS), labels * (N // NUM_LABELS)


def loss_fn(params, words, active):
    """Softmax over the active rows."""
    bag = fsparse.embedding_bag(params["embedding"], words)
    logits = fsparse.sampled_matmul(bag, params["output"], active.ids)
    return fsparse.sampled_softmax_loss(logits, active.targets, active.is_active).mean()


def train_step(carry, key):
    """One batch, as a body of ``scan``: what it carries and, of each step, the loss."""
    params, state = carry
    words, labels = wide_batch(key)
    query, key = fsparse.samplers.Query(labels), jax.random.fold_in(key, 1)
    active = fsparse.sample_active_set(negatives, key, query, size=512)
    loss, grads = fsparse.value_and_grad(loss_fn)(params, words, active)
    return optimizer.step(params, state, grads), loss


train = jax.jit(partial(jax.lax.scan, train_step), donate_argnums=0)


def plot(losses, file):
    """The loss of each step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    figure.subplots().plot(losses)
    figure.axes[0].set(xlabel="step", ylabel="loss (nats)", ylim=(0, None))
    figure.savefig(file)


parser = make_parser(__file__, __doc__, steps=200)
parser.add_argument("--plot", metavar="FILE", help="for the loss curve, as PNG")
args = parser.parse_args()
carry, keys = init(jax.random.key(0)), jax.random.split(jax.random.key(1), args.steps)
compiled = train.lower(carry, keys).compile()
(params, _), losses = compiled(carry, keys)
if args.plot:
    plot(losses, args.plot)

words, labels = wide_batch(jax.random.key(2))
bag = fsparse.embedding_bag(params["embedding"], words)
memory = compiled.memory_analysis()
state_mb, temp_mb = memory.alias_size_in_bytes / 1e6, memory.temp_size_in_bytes / 1e6
accuracy = (fsparse.dense_top_k(bag, params["output"], 1)[1] == labels).mean()
report(args, losses, state_mb=state_mb, temp_mb=temp_mb, accuracy=accuracy)
