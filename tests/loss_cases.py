"""Losses that read tables in all the ways there are, each with a dense oracle.

An oracle is written with one-hot vectors and plain arrays; it knows nothing of fsparse.
"""

import jax
import jax.numpy as jnp
from dense import bag, sampled, take

from fsparse import (
    Table,
    dense_top_k,
    embedding_bag,
    gather_matmul,
    sampled_matmul,
    sampled_top_k,
    take_rows,
)

N, D, B = 7, 5, 4
K = 3
ACTIVE = jnp.array([4, 2, 2, 9, 0, -1], jnp.int32)  # repeated, padding of two kinds


def make_params(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    t, u, w = (jax.random.normal(k, (N, D)) for k in keys)
    return {"t": t, "u": u, "w": w[:D]}


def tables(params):
    return params | {"t": Table(params["t"]), "u": Table(params["u"])}


def make_ids(seed=0):
    return jax.random.randint(jax.random.key(seed), (B, K), -1, N + 2, jnp.int32)


PARAMS, IDS = make_params(), make_ids()


def two_layers(p, ids):
    h = jnp.tanh(embedding_bag(p["t"], ids) @ p["w"])
    return jnp.sum(jnp.sin(sampled_matmul(h, p["u"], ACTIVE)))


def two_layers_dense(p, ids):
    h = jnp.tanh(bag(p["t"], ids) @ p["w"])
    return jnp.sum(jnp.sin(sampled(h, p["u"], ACTIVE)))


def per_example(p, ids):
    h = jax.nn.relu(embedding_bag(p["t"], ids) @ p["w"])
    return jnp.sum(jnp.sin(sampled_matmul(h, p["u"], ids[:, ::-1])))


def per_example_dense(p, ids):
    h = jax.nn.relu(bag(p["t"], ids) @ p["w"])
    return jnp.sum(jnp.sin(sampled(h, p["u"], ids[:, ::-1])))


def tied(p, ids):
    """One table is the input layer and the output layer, and is read a third time."""
    h = embedding_bag(p["t"], ids) @ p["w"]
    rows = take_rows(p["t"], ACTIVE)
    logits = sampled_matmul(h, p["t"], ids) + h @ rows.T @ jnp.ones((6, K))
    return jnp.sum(jnp.cos(logits))


def tied_dense(p, ids):
    h = bag(p["t"], ids) @ p["w"]
    logits = sampled(h, p["t"], ids) + h @ take(p["t"], ACTIVE).T @ jnp.ones((6, K))
    return jnp.sum(jnp.cos(logits))


def gathered(p, ids):
    v = jnp.tanh(take_rows(p["u"], ids[:, 0]))
    shared = gather_matmul(v @ jnp.ones((D, 6)), p["t"], ACTIVE)
    return jnp.sum(jnp.sin(shared + gather_matmul(v[:, :K], p["t"], ids)))


def gathered_dense(p, ids):
    v = jnp.tanh(take(p["u"], ids[:, 0]))
    shared = v @ jnp.ones((D, 6)) @ take(p["t"], ACTIVE)
    return jnp.sum(
        jnp.sin(shared + jnp.einsum("bk,bkd->bd", v[:, :K], take(p["t"], ids)))
    )


def best(p, ids):
    h = embedding_bag(p["t"], ids)
    scores, found = dense_top_k(h, p["u"], 2)
    return jnp.sum(jnp.sin(scores)) + jnp.sum(found * h[:, :2])


def best_dense(p, ids):
    h = bag(p["t"], ids)
    scores, found = jax.lax.top_k(h @ p["u"].T, 2)
    return jnp.sum(jnp.sin(scores)) + jnp.sum(found * h[:, :2])


def some_of(ids):
    """Other rows for each example, then padding."""
    some = (ids[:, :1] + jnp.arange(0, 8, 2, dtype=jnp.int32)) % N
    return jnp.pad(some, ((0, 0), (0, 2)), constant_values=N)


def best_of_some(p, ids):
    h = embedding_bag(p["t"], ids)
    scores, found = sampled_top_k(h, p["u"], some_of(ids), 2)
    return jnp.sum(jnp.sin(scores)) + jnp.sum(found * h[:, :2])


def best_of_some_dense(p, ids):
    h, some = bag(p["t"], ids), some_of(ids)[:, :4]
    scores, at = jax.lax.top_k(sampled(h, p["u"], some), 2)
    found = jnp.take_along_axis(some, at, axis=1)
    return jnp.sum(jnp.sin(scores)) + jnp.sum(found * h[:, :2])


def mapped(p, ids):
    """A read for each example, in vmap over vmap, of shared and of mapped sets."""

    def one(own):
        h = jax.vmap(lambda i: take_rows(p["t"], i[None])[0])(own).sum(0)
        return jnp.sin(sampled_matmul(h[None] @ p["w"], p["u"], ACTIVE))

    return jnp.sum(jax.vmap(one)(ids))


def mapped_dense(p, ids):
    return jnp.sum(jnp.sin(sampled(bag(p["t"], ids) @ p["w"], p["u"], ACTIVE)))


def scanned(p, ids):
    def body(h, step):
        h = jnp.tanh(h @ p["w"] + embedding_bag(p["t"], ids + step))
        return h, sampled_matmul(h, p["u"], ACTIVE)

    first = 0 * embedding_bag(p["t"], ids)  # in shard_map it varies as the carry does
    h, logits = jax.lax.scan(body, first, jnp.arange(3, dtype=jnp.int32))
    return jnp.sum(h) + jnp.sum(jnp.sin(logits))


def scanned_dense(p, ids):
    h, total = jnp.zeros((B, D)), 0.0
    for step in range(3):
        h = jnp.tanh(h @ p["w"] + bag(p["t"], ids + step))
        total += jnp.sum(jnp.sin(sampled(h, p["u"], ACTIVE)))
    return jnp.sum(h) + total


def checkpointed(p, ids):
    return jax.checkpoint(two_layers)(p, ids)


def branched(p, ids):
    """Branches read other tables, in other numbers."""
    first = embedding_bag(p["t"], ids)
    return jax.lax.cond(
        jnp.sum(first) > 0,
        lambda: jnp.sum(jnp.sin(first @ take_rows(p["u"], ACTIVE).T)),
        lambda: jnp.sum(jnp.cos(first)) + jnp.sum(take_rows(p["t"], ACTIVE[:2]) ** 2),
    )


def branched_dense(p, ids):
    first = bag(p["t"], ids)
    one = jnp.sum(jnp.sin(first @ take(p["u"], ACTIVE).T))
    two = jnp.sum(jnp.cos(first)) + jnp.sum(take(p["t"], ACTIVE[:2]) ** 2)
    return jnp.where(jnp.sum(first) > 0, one, two)


def branched_the_other_way(p, ids):
    return branched(p | {"t": jax.tree.map(jnp.negative, p["t"])}, ids)


def nested(p, ids):
    """scan of checkpoint of cond of jit of vmap."""

    def one(i):
        return jnp.sin(take_rows(p["t"], i) @ p["w"])

    def body(total, step):
        yes = lambda: jnp.sum(jax.jit(jax.vmap(one))(ids + step))  # noqa: E731
        return total + jax.lax.cond(step != 1, yes, lambda: 0.0), None

    steps = jnp.arange(3, dtype=jnp.int32)
    return jax.lax.scan(jax.checkpoint(body), 0.0, steps)[0]


def nested_dense(p, ids):
    return sum(jnp.sum(jnp.sin(take(p["t"], ids + s) @ p["w"])) for s in (0, 2))


def constants_allowed(p, ids):
    """Reads without a gradient: those that give no floats, and stop_gradient."""
    t = jax.lax.stop_gradient(p["t"])
    h = embedding_bag(p["t"], ids) * jnp.sum(getattr(t, "value", t) ** 2)
    u = getattr(p["u"], "value", p["u"])
    return jnp.sum(jnp.where(jnp.isnan(u).any(), 2.0, 1.0) * jnp.sin(h))


def constants_allowed_dense(p, ids):
    t = jax.lax.stop_gradient(p["t"])
    h = bag(p["t"], ids) * jnp.sum(t**2)
    return jnp.sum(jnp.sin(h))


def unused(p, ids):
    return jnp.sum(p["w"] ** 2) + jnp.sum(embedding_bag(p["t"], ids[:0]))


def unused_dense(p, ids):
    return jnp.sum(p["w"] ** 2)


def of_custom_rules(p, ids):
    """Functions with rules of their own, on what the reads gave."""

    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))
    h = double(jax.nn.relu(embedding_bag(p["t"], ids)))
    return jnp.sum(jax.nn.logsumexp(h @ p["w"], axis=1))


def of_custom_rules_dense(p, ids):
    h = 2 * jax.nn.relu(bag(p["t"], ids))
    return jnp.sum(jax.nn.logsumexp(h @ p["w"], axis=1))


LOSSES = {
    "two_layers": (two_layers, two_layers_dense),
    "per_example": (per_example, per_example_dense),
    "tied": (tied, tied_dense),
    "gathered": (gathered, gathered_dense),
    "best": (best, best_dense),
    "best_of_some": (best_of_some, best_of_some_dense),
    "mapped": (mapped, mapped_dense),
    "scanned": (scanned, scanned_dense),
    "checkpointed": (checkpointed, two_layers_dense),
    "branched": (branched, branched_dense),
    "nested": (nested, nested_dense),
    "constants": (constants_allowed, constants_allowed_dense),
    "unused": (unused, unused_dense),
    "custom_rules": (of_custom_rules, of_custom_rules_dense),
}
