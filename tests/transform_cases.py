"""Every public op with arguments and a dense oracle: a new op adds a case.

An oracle is plain ``jnp`` and independent of fsparse. It spells ids out as one-hot
vectors, in which every op of the matmul family is a sum of products.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fsparse
from fsparse import RowGrad, rows
from fsparse.losses import sampled_softmax_loss
from fsparse.sampling import shared_active_set

B, K, D, N, NEGATIVES = 4, 3, 5, 7, 6
LR, B1, B2, EPS = 0.3, 0.9, 0.999, 1e-8


class Case(NamedTuple):
    name: str
    fn: Callable[..., Any]
    oracle: Callable[..., Any]  # of the same arguments
    args: tuple[Any, ...]
    target: str | None  # the custom call in it


def one_hot(ids, n=N):
    return (ids[..., None] == jnp.arange(n)).astype(jnp.float32)


def sampled(x, w, ids):
    hot = jnp.broadcast_to(one_hot(ids), (len(x), ids.shape[-1], N))
    return jnp.einsum("bd,bkn,nd->bk", x, hot, w)


def gather(v, w, ids):
    hot = jnp.broadcast_to(one_hot(ids), (*v.shape, N))
    return jnp.einsum("bk,bkn,nd->bd", v, hot, w)


def scatter(v, x, ids):
    hot = jnp.broadcast_to(one_hot(ids), (*v.shape, N))
    return jnp.einsum("bk,bkn,bd->nd", v, hot, x)


def take(w, ids):
    return one_hot(ids) @ w


def bag(table, ids, weights):
    return gather(weights, table, ids)


def top_k(x, w):
    scores = x @ w.T
    ids = jnp.argsort(-scores, axis=1, stable=True)[:, :K]
    return jnp.take_along_axis(scores, ids, axis=1), ids.astype(jnp.int32)


def sgd(table, ids, scale, x, learning_rate):
    return table - learning_rate * scatter(scale, x, ids)


def adagrad(table, state, grad, learning_rate):
    g = scatter(grad.scale, grad.x, grad.ids)
    acc = state.acc + g**2
    return table - learning_rate * g / (jnp.sqrt(acc) + EPS), rows.AdagradState(acc)


def adam(table, state, grad, learning_rate):
    g = scatter(grad.scale, grad.x, grad.ids)
    named = one_hot(grad.ids).sum((0, 1))[:, None] > 0
    t = (state.count + 1).astype(jnp.float32)
    mu = jnp.where(named, B1 * state.mu + (1 - B1) * g, state.mu)
    nu = jnp.where(named, B2 * state.nu + (1 - B2) * g**2, state.nu)
    step = mu / (1 - B1**t) / (jnp.sqrt(nu / (1 - B2**t)) + EPS)
    table = jnp.where(named, table - learning_rate * step, table)
    return table, rows.AdamState(mu, nu, state.count + 1)


def active_set(key_data, labels):
    """Members as a mask over all rows; their ranks are the targets."""
    key = jax.random.wrap_key_data(key_data)
    negatives = jax.random.randint(key, (NEGATIVES,), 0, N, jnp.int32)
    member = jnp.any(one_hot(jnp.append(labels, negatives)) > 0, axis=0)
    size = labels.size + NEGATIVES
    ids = jnp.sort(jnp.where(member, jnp.arange(N, dtype=jnp.int32), N))
    ids = jnp.append(ids, jnp.full(size, N, jnp.int32))[:size]
    rank = jnp.cumsum(member.astype(jnp.int32), dtype=jnp.int32) - 1
    is_label = (labels >= 0) & (labels < N)
    return ids, jnp.where(is_label, rank[jnp.where(is_label, labels, 0)], size)


def softmax_loss(logits, targets, is_active):
    z = jnp.sum(jnp.where(is_active, jnp.exp(logits), 0), axis=1, keepdims=True)
    own = one_hot(targets, logits.shape[1]).sum(1)
    return jnp.sum(own * (jnp.log(z) - logits), 1) / jnp.maximum(own.sum(1), 1)


def sgd_update(table, ids, scale, x, learning_rate):
    grad = RowGrad(ids, scale, x)
    return rows.sgd_update(table, grad, learning_rate=learning_rate)


def adagrad_update(table, state, grad, learning_rate):
    return rows.adagrad_update(table, state, grad, learning_rate=learning_rate)


def adam_update(table, state, grad, learning_rate):
    return rows.adam_update(table, state, grad, learning_rate=learning_rate)


def make_cases():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def ids(*shape):  # repeated, with padding of several kinds
        return jnp.asarray(rng.integers(-1, N + 2, shape), jnp.int32)

    def positive(*shape):
        return jnp.abs(normal(*shape)) + 0.5

    x, w, v, lr = normal(B, D), normal(N, D), normal(B, K), jnp.float32(LR)
    each, shared, grad = ids(B, K), ids(K), RowGrad(ids(B, K), v, x)
    adagrad_state = rows.AdagradState(positive(N, D))
    adam_state = rows.AdamState(normal(N, D), positive(N, D), jnp.int32(2))
    targets = jnp.array([[0, 2], [1, 4], [-1, 9], [2, 2]], jnp.int32)
    is_active = jnp.array([True, True, True, False])
    key_data = jax.random.key_data(jax.random.key(5))

    def family(name, oracle, *floats):
        fn, target = getattr(fsparse, name), f"fsparse_{name}"
        if name == "scatter_outer":
            fn = _scatter_outer
        yield Case(f"{name}-each", fn, oracle, (*floats, each), target)
        yield Case(f"{name}-shared", fn, oracle, (*floats, shared), target)

    gathered = "fsparse_gather_matmul"
    return [
        *family("sampled_matmul", sampled, x, w),
        *family("gather_matmul", gather, v, w),
        *family("scatter_outer", scatter, v, x),
        Case("take_rows", fsparse.take_rows, take, (w, shared), gathered),
        Case("embedding_bag", fsparse.embedding_bag, bag, (w, each, v), gathered),
        Case("dense_top_k", _dense_top_k, top_k, (x, w), "fsparse_dense_top_k"),
        Case("sgd", sgd_update, sgd, (w, *grad, lr), "fsparse_sgd_rows"),
        Case(
            "adagrad",
            adagrad_update,
            adagrad,
            (w, adagrad_state, grad, lr),
            "fsparse_adagrad_rows",
        ),
        Case("adam", adam_update, adam, (w, adam_state, grad, lr), "fsparse_adam_rows"),
        Case("active_set", _active_set, active_set, (key_data, each), None),
        Case(
            "softmax_loss",
            sampled_softmax_loss,
            softmax_loss,
            (normal(B, 4), targets, is_active),
            None,
        ),
    ]


def _scatter_outer(v, x, ids):
    return fsparse.scatter_outer(v, x, ids, num_rows=N)


def _dense_top_k(x, w):
    return fsparse.dense_top_k(x, w, K)


def _active_set(key_data, labels):
    key = jax.random.wrap_key_data(key_data)
    return shared_active_set(key, labels, num_rows=N, num_negatives=NEGATIVES)


CASES = make_cases()
