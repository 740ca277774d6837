"""Train on 128 of every 512 examples of a stream, mostly on the hard ones.

Half of the classes have features of their own, the others share theirs with nine. No
example comes twice: what is known of one is what examples like it have cost.

Example:
  python examples/adaptive_step.py
"""

import argparse

import jax
import jax.numpy as jnp

import fsparse
from fsparse import Table, adaptive, lsh, rows, samplers

N, D, CLASSES, POOL, BATCH, ACTIVE = 20_000, 32, 2_000, 512, 128, 512
optimizer = fsparse.multi_transform({"tables": rows.adagrad(0.1)})
negatives = samplers.uniform(CLASSES)


def loss_fn(params, key, batch, weights):
    """The weighted mean over the chosen, and the loss of each."""
    query = samplers.Query(batch["label"])
    active = fsparse.sample_active_set(negatives, key, query, size=ACTIVE)
    h = fsparse.embedding_bag(params["embedding"], batch["ids"])
    logits = fsparse.sampled_matmul(h, params["output"], active.ids)
    losses = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
    return jnp.mean(weights * losses), losses


def train_step(state, batch, weights):
    """An ordinary step with weights, which also returns what each example cost."""
    params, moments, key = state
    key, of_step = jax.random.split(key)
    grad_fn = fsparse.value_and_grad(loss_fn, has_aux=True)
    (loss, losses), grads = grad_fn(params, of_step, batch, weights)
    params, moments = optimizer.step(params, moments, grads)
    return (params, moments, key), losses, loss


def make_pool(key):
    """Features of a class; those of the second half are shared by ten classes."""
    of_labels, of_ids = jax.random.split(key)
    labels = jax.random.randint(of_labels, (POOL, 1), 0, CLASSES)
    own = jnp.where(labels < CLASSES // 2, labels, CLASSES + labels // 10)
    ids = own * 5 + jax.random.randint(of_ids, (POOL, 4), 0, 5)
    return {"ids": ids, "label": labels}


def make_state(seed):
    """Parameters, their moments, and a key for the negatives."""
    embedding = 0.1 * jax.random.normal(jax.random.key(seed), (N, D))
    params = {"embedding": Table(embedding), "output": Table(jnp.zeros((CLASSES, D)))}
    return params, optimizer.init(params), jax.random.key(seed + 1)


def key_of(batch):
    """What is hashed: the set of the features of an example."""
    return lsh.SparseRows(batch["ids"], jnp.ones(batch["ids"].shape, jnp.float32))


def main(argv=None):
    """Trains, and tells what the choice is worth as it goes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    family = lsh.minhash(jax.random.key(args.seed), N, num_tables=32, num_bits=13)
    scorer = adaptive.sketched(family, key_of)
    choose = adaptive.systematic(BATCH)
    init, step = adaptive.adaptive_step(train_step, scorer, choose, warmup=50)
    state = init(jax.random.key(args.seed), make_state(args.seed))
    run = jax.jit(step, donate_argnums=0)  # tables and sketch stay where they are
    for i in range(args.steps):
        state, info = run(state, make_pool(jax.random.fold_in(jax.random.key(7), i)))
        if (i + 1) % 100 == 0:
            print(
                f"step {i + 1}: loss {info.aux:.3f}, of {BATCH} examples count "
                f"{info.effective_sample_size:.0f}, variance divided by "
                f"{info.variance_reduction:.2f}{'' if info.is_on else ', off'}"
            )


if __name__ == "__main__":
    main()
