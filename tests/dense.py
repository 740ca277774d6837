"""The matmul family in plain ``jnp``: ids as one-hot vectors, ops as sums of products.

Padding is a vector of zeros.
"""

import jax.numpy as jnp


def one_hot(ids, n):
    return (ids[..., None] == jnp.arange(n)).astype(jnp.float32)


def sampled(x, w, ids):
    hot = one_hot(ids, len(w))
    hot = jnp.broadcast_to(hot, (len(x), *hot.shape[-2:]))
    return jnp.einsum("bd,bkn,nd->bk", x, hot, w)


def gather(v, w, ids):
    hot = jnp.broadcast_to(one_hot(ids, len(w)), (*v.shape, len(w)))
    return jnp.einsum("bk,bkn,nd->bd", v, hot, w)


def scatter(v, x, ids, n):
    hot = jnp.broadcast_to(one_hot(ids, n), (*v.shape, n))
    return jnp.einsum("bk,bkn,bd->nd", v, hot, x)


def take(w, ids):
    return one_hot(ids, len(w)) @ w


def bag(w, ids):
    return gather(jnp.ones(ids.shape), w, ids)
