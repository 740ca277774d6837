"""Hash tables in a training step, where half of the negatives are hard; and after it.

Example:
  python examples/hard_negatives.py
"""

from functools import partial

import jax

import fsparse
from fsparse import Table, lsh, rows, samplers

N, D, SIZE, STEPS = 100_000, 64, 1024, 300
optimizer = fsparse.multi_transform({"tables": rows.adam(0.01)})


def loss_fn(params, index, key, x, label_ids):
    """Cross-entropy among labels, rows that hash as the batch does, and random ones."""
    sampler = samplers.mix(lsh.sampler(index), samplers.uniform(N), 0.5)
    query = samplers.Query(label_ids, x, params["output"])
    active = fsparse.sample_active_set(sampler, key, query, size=SIZE)
    logits = fsparse.sampled_matmul(x, params["output"], active.ids)
    loss = fsparse.sampled_softmax_loss(logits, active.targets, active.is_active)
    return loss.mean(), active


@partial(jax.jit, donate_argnums=(0, 1, 2))
def train_step(params, state, index, key, x, label_ids):
    """Updates the active rows, and moves them to the buckets where they belong now."""
    grad_fn = fsparse.value_and_grad(loss_fn, has_aux=True)
    (loss, active), grads = grad_fn(params, index, key, x, label_ids)
    params, state = optimizer.step(params, state, grads)
    index = lsh.refresh(index, params["output"], active.ids)
    return params, state, index, loss


def make_batch(key, num_examples):
    """Labels, and examples around a direction of each label's own."""
    of_labels, of_noise = jax.random.split(key)
    label_ids = jax.random.randint(of_labels, (num_examples, 1), 0, 2000)
    centers = jax.random.normal(jax.random.key(7), (2000, D))
    noise = jax.random.normal(of_noise, (num_examples, D))
    return centers[label_ids[:, 0]] + 0.7 * noise, label_ids


def main():
    """Trains, and asks dense and sparse inference for the labels of new examples."""
    table = Table(0.1 * jax.random.normal(jax.random.key(0), (N, D)))
    params = {"output": table}
    state = optimizer.init(params)
    index = lsh.build(lsh.default_family(jax.random.key(1), N, D), table)
    for step in range(STEPS):
        key = jax.random.fold_in(jax.random.key(2), step)
        batch = make_batch(key, 256)
        params, state, index, loss = train_step(params, state, index, key, *batch)
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss:.3f}")

    x, label_ids = make_batch(jax.random.key(3), 1000)
    _, dense = fsparse.dense_top_k(x, params["output"], k=1)
    _, sparse = lsh.top_k(index, x, params["output"], k=1, size=500, num_probes=2)
    print(f"P@1 of all {N:,} neurons: {(dense == label_ids).mean():.3f}")
    figures = lsh.diagnose(index, x, params["output"], label_ids, size=500)
    lsh.warn(figures)  # of what is bad; lsh.plot_diagnostics draws it all
    print(f"Labels among the 500 rows with most votes: {figures.label_hit_rate:.3f}")
    print(f"P@1 of the 500 that most tables find: {(sparse == label_ids).mean():.3f}")


if __name__ == "__main__":
    main()
