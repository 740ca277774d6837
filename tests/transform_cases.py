"""Every public op with arguments and a dense oracle: a new op adds a case.

An oracle is plain ``jnp`` and independent of fsparse.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dense import gather, one_hot, sampled, scatter, take
from dense_buckets import MAX_INSERTED, NOWHERE, NUM_BUCKETS, dense_buckets
from scipy.linalg import hadamard

import fsparse
from fsparse import RowGrad, lsh, rows, samplers
from fsparse import _fused_softmax as fused_softmax
from fsparse._call import vary_together
from fsparse._shared_grads import grads_op
from fsparse.losses import sampled_softmax_loss
from fsparse.lsh import _buckets
from fsparse.lsh._simhash import HadamardSimHash, SimHash
from fsparse.sketch import _ops as sketch_ops

B, K, D, N, SIZE = 4, 3, 5, 7, 5
TABLES, BITS, PROBES = 2, 3, 5
POWER = 8  # the next one of 2 from D
CELLS, BLOCKS = 6, 2  # of a row of a sketch
LR, B1, B2, EPS, DECAY, NUM_RATES = 0.3, 0.9, 0.999, 1e-8, 0.9, 2


class Case(NamedTuple):
    name: str
    fn: Callable[..., Any]
    oracle: Callable[..., Any]  # of the same arguments
    args: tuple[Any, ...]
    target: str | None  # the custom call in it


def _grads(v, x, w, ids):
    z, rows = grads_op(*vary_together(v[None], x[None], w, ids[None]))
    return z[0], rows[0]


def grads(v, x, w, ids):
    is_row = one_hot(ids, N).sum(-1, keepdims=True)
    return gather(v, w, ids), is_row * (v.T @ x)


def _fused_grads(offsets, x, w, ids, targets):
    active = jnp.ones((1, K), bool)
    operands = vary_together(
        x[None], w, ids[None], offsets[None], targets[None], active
    )
    sums = fused_softmax.loss_op(*operands)[1]
    z, drows, columns = fused_softmax.grads_op(operands[0][..., 0], sums, *operands)
    return z[0], drows[0], columns[0]


def bag(table, ids, weights):
    return gather(weights, table, ids)


def top_k(x, w):
    scores = x @ w.T
    ids = jnp.argsort(-scores, axis=1, stable=True)[:, :K]
    return jnp.take_along_axis(scores, ids, axis=1), ids.astype(jnp.int32)


def best_of_some(x, w, ids):
    is_row = one_hot(ids, N).sum(-1) > 0
    scores = jnp.where(is_row, sampled(x, w, ids), -jnp.inf)
    at = jnp.argsort(-scores, axis=1, stable=True)[:, :K]
    best = jnp.where(is_row, ids, N)
    return tuple(jnp.take_along_axis(a, at, axis=1) for a in (scores, best))


def as_float_rows(x, values, scale):
    """Examples are rounded to 16 bits, which derivatives do not see."""
    most = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    rounded = jnp.round(x * (32767 / most)) * (most / 32767)
    seen = x + jax.lax.stop_gradient(rounded - x)
    return seen, values.astype(jnp.float32) * scale[:, None]


def row_gradient(grad):
    """The dense gradient, and which rows it names."""
    ids, source = one_hot(grad.ids, N), one_hot(grad.source, len(grad.x))
    g = jnp.einsum("tn,t,ts,sd->nd", ids, grad.scale, source, grad.x)
    return g, (ids.T @ source).sum(1, keepdims=True) > 0


def updated(state, **moments):
    return state._replace(count=state.count + 1, **moments)


def sgd(table, state, grad, learning_rate):
    return table - learning_rate * row_gradient(grad)[0], updated(state)


def momentum(table, state, grad, learning_rate):
    g, named = row_gradient(grad)
    trace = jnp.where(named, DECAY * state.trace + g, state.trace)
    step = jnp.where(named, g + DECAY * trace, 0)
    return table - learning_rate * step, updated(state, trace=trace)


def adagrad(table, state, grad, learning_rate):
    g, _ = row_gradient(grad)
    acc = state.acc + g**2
    return table - learning_rate * g / (jnp.sqrt(acc) + EPS), updated(state, acc=acc)


def rowwise_adagrad(table, state, grad, learning_rate):
    g, _ = row_gradient(grad)
    acc = state.acc + jnp.mean(g**2, axis=1)
    step = g / (jnp.sqrt(acc)[:, None] + EPS)
    return table - learning_rate * step, updated(state, acc=acc)


def unbiased(decay, t):
    return 1 - decay ** t.astype(jnp.float32)


def adam_step(w, mu, nu, g, t, learning_rate, b1, b2, eps):
    mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
    step = mu / unbiased(b1, t) / (jnp.sqrt(nu / unbiased(b2, t)) + eps)
    return w - learning_rate * step, mu, nu


def where(condition, new, old):
    return [jnp.where(condition, a, b) for a, b in zip(new, old, strict=True)]


def adam(table, state, grad, learning_rate):
    g, named = row_gradient(grad)
    rows = table, state.mu, state.nu
    new = adam_step(*rows, g, state.count + 1, learning_rate, B1, B2, EPS)
    table, mu, nu = where(named, new, rows)
    return table, updated(state, mu=mu, nu=nu)


def caught_up(table, state, which):
    """An update at a time, forgetting the rates of all but the last two."""
    step, last = state.count, state.last[:, None]
    b1, b2, eps = state.decay
    forgotten = jnp.maximum(step - last - NUM_RATES, 0).astype(jnp.float32)
    decayed = table, b1**forgotten * state.mu, b2**forgotten * state.nu
    rows = where(which, decayed, (table, state.mu, state.nu))
    for j in range(NUM_RATES):
        t = step - NUM_RATES + 1 + j
        rate = state.rates[t % NUM_RATES]
        moved = adam_step(*rows, jnp.zeros_like(table), t, rate, b1, b2, eps)
        rows = where(which & (last < t), moved, rows)
    return rows, jnp.where(which[:, 0], step, state.last)


def exact_adam_flush(table, state, which=True):
    every = jnp.full((N, 1), which)
    (table, mu, nu), last = caught_up(table, state, every)
    return table, state._replace(mu=mu, nu=nu, last=last)


def exact_adam(table, state, grad, learning_rate):
    """All rows catch up before the rates they need are overwritten."""
    g, named = row_gradient(grad)
    rows, last = caught_up(table, state, named)
    t = state.count + 1
    new = adam_step(*rows, g, t, learning_rate, *state.decay)
    table, mu, nu = where(named, new, rows)
    last = jnp.where(named[:, 0], t, last)
    rates = state.rates.at[t % NUM_RATES].set(learning_rate)
    state = updated(state, mu=mu, nu=nu, last=last, rates=rates)
    return exact_adam_flush(table, state, which=t % NUM_RATES == 0)


def clipped(grad, w, most):
    """A row gradient and an array, as one gradient."""
    g = row_gradient(grad)[0]
    norm = jnp.sqrt(jnp.sum(g**2) + jnp.sum(w**2))
    factor = jnp.minimum(1, most / norm)
    return factor * g, factor * w


def two_row_gradients(x, v, ids, grad):
    """An outer product's gradient and another, summed by row."""
    return scatter(v, x, ids, N) - 2 * row_gradient(grad)[0]


def loss_gradient(w, x, ids):
    loss = lambda w, x: jnp.sum(jnp.sin(sampled(x, w, ids)) * sampled(x, w, ids[0]))  # noqa: E731
    return jax.value_and_grad(loss, (0, 1))(w, x)


def sum_squares(factor, grad):
    return factor * jnp.sum(row_gradient(grad)[0] ** 2)


def first_members(ids, k):
    """``bool[g, N]``, the first k distinct of each row, and how many there are."""
    c = ids.shape[1]
    position = jnp.where(one_hot(ids, N) > 0, jnp.arange(c)[:, None], c).min(axis=1)
    earlier = position[:, None, :] < position[:, :, None]
    count = jnp.sum(position < c, axis=1, dtype=jnp.int32)
    return (position < c) & (jnp.sum(earlier, axis=2) < k), count


def rising(member, size):
    """Members as ids, then padding."""
    ids = jnp.sort(jnp.where(member, jnp.arange(N, dtype=jnp.int32), N), axis=1)
    return jnp.pad(ids, ((0, 0), (0, size)), constant_values=N)[:, :size]


def first_distinct(ids, more):
    both = jnp.append(jnp.atleast_2d(ids), jnp.atleast_2d(more), axis=1)
    member, count = first_members(both, K)
    first = rising(member, K)
    return (first[0], count[0]) if ids.ndim == 1 else (first, count)


def active_set(labels, candidates, size):
    """Members as a mask over all rows; their ranks are the targets."""
    shared = candidates.ndim == 1
    own = labels.reshape(1, -1) if shared else labels
    member, _ = first_members(jnp.append(own, jnp.atleast_2d(candidates), 1), size)
    _, num_labels = first_members(own, size)
    rank = jnp.cumsum(member, axis=1, dtype=jnp.int32) - 1
    rank = jnp.where(member, rank, size)
    rank = jnp.pad(rank, ((0, 0), (0, 1)), constant_values=size)
    is_label = (own >= 0) & (own < N)
    targets = jnp.take_along_axis(rank, jnp.where(is_label, own, N), axis=1)
    ids = rising(member, size)
    ids = ids[0] if shared else ids
    dropped = jnp.sum(jnp.maximum(num_labels - size, 0), dtype=jnp.int32)
    return ids, targets.reshape(labels.shape), ids < N, dropped


def all_active(labels, candidates, size):
    """Whatever the candidates are."""
    return active_set(labels, jnp.append(candidates, jnp.arange(N)), size)


def best_loss(x, w, labels):
    """The softmax over an example's labels and its largest logits, SIZE in all."""
    logits = x @ w.T
    best = jnp.argsort(-logits, axis=1, stable=True)[:, :SIZE].astype(jnp.int32)
    member, _ = first_members(jnp.append(labels, best, axis=1), SIZE)
    return softmax_loss(logits, labels, member)


def softmax_loss(logits, targets, is_active):
    z = jnp.sum(jnp.where(is_active, jnp.exp(logits), 0), axis=1, keepdims=True)
    own = one_hot(targets, logits.shape[1]).sum(1)
    return jnp.sum(own * (jnp.log(z) - logits), 1) / jnp.maximum(own.sum(1), 1)


def fused_loss(x, w, ids, targets, is_active, offsets):
    return softmax_loss(sampled(x, w, ids) + offsets, targets, is_active)


def fused_grads(offsets, x, w, ids, targets):
    """Of a mean whose weights are the examples' first inputs, and what is no row."""
    logits = sampled(x, w, ids) + offsets
    z = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
    own = one_hot(targets, K).sum(1)
    count = own.sum(axis=1, keepdims=True)
    delta = x[:, :1] * ((count > 0) * z - own / jnp.maximum(count, 1))
    return *grads(delta, x, w, ids), delta.sum(axis=0)


def hashed_rows(x, directions):
    """Signs of projections as binary digits, and floats that depend on them."""
    bits = (x @ directions > 0).reshape(len(x), TABLES, -1).astype(jnp.int32)
    codes = jnp.sum(bits * 2 ** jnp.arange(bits.shape[2], dtype=jnp.int32), axis=2)
    return codes.astype(jnp.int32), jnp.sum(x, axis=1) * codes[:, 0]


def probed_rotations(x, signs):
    """``H D3 H D2 H D1`` as a matrix, of which the first rows are directions."""
    h = jnp.asarray(hadamard(POWER), jnp.float32)
    matrix = h @ (signs[0, 2][:, None] * h) @ (signs[0, 1][:, None] * h) * signs[0, 0]
    return probed_rows(x, matrix[: TABLES * BITS, :D].T)


def probed_rows(x, directions):
    """Every set of flips, the cheapest first."""
    margins = (x @ directions).reshape(len(x), TABLES, BITS)
    codes = hashed_rows(x, directions)[0]
    masks = jnp.arange(2**BITS, dtype=jnp.int32)
    is_in = (masks[:, None] >> jnp.arange(BITS, dtype=jnp.int32)) & 1
    costs = jnp.abs(margins) @ is_in.T.astype(jnp.float32)
    best = jnp.argsort(costs, axis=2, stable=True)[..., :PROBES].astype(jnp.int32)
    return codes[..., None] ^ best, jnp.sum(x)


def probed_bags(v, directions, ids):
    x = jnp.einsum("bk,bkd->bd", v, one_hot(ids, D))
    return probed_rows(x, directions)[0], jnp.sum(v)


def sketched(cells, values, factor, table):
    """Cells as one-hot rows; read out with the values' first columns as centres."""
    where = one_hot(cells, CELLS)
    table = factor * table + jnp.einsum("brn,bw->rnw", where, values)
    blocks = table.reshape(len(table), -1, BLOCKS, table.shape[2]).sum(2)
    held = jnp.einsum("brn,rnw->brw", one_hot(cells // BLOCKS, CELLS // BLOCKS), blocks)
    count = held[..., :1]
    more = held[..., 1:] - values[:, None, 1:] * count
    sums = jnp.stack([count.sum(1), *jnp.moveaxis(more.sum(1)[..., None], 1, 0)], 1)
    dc, dt = (x - x.mean(1, keepdims=True) for x in (count, more))
    moments = [(dc * dc).sum(1), (dc * dt).sum(1), (dt * dt).sum(1)]
    return table, sums.reshape(len(cells), 1, -1), jnp.concatenate(moments, 1)


def by_optimizer(update, **kwargs):
    def call(table, state, grad, learning_rate):
        return update(table, state, grad, learning_rate=learning_rate, **kwargs)

    return call


def make_cases():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    def ids(*shape):  # repeated, with padding of several kinds
        return jnp.asarray(rng.integers(-1, N + 2, shape), jnp.int32)

    def positive(*shape):
        return jnp.abs(normal(*shape)) + 0.5

    x, w, v, lr = normal(B, D), normal(N, D), normal(B, K), jnp.float32(LR)
    each, shared = ids(B, K), ids(K)
    source = jnp.asarray(rng.integers(-1, B + 1, B * K), jnp.int32)
    grad = RowGrad(ids(B * K), v.ravel(), source, x, N)
    counted = {"count": jnp.int32(2), "key": jnp.array([1, 2], jnp.uint32)}
    acc, trace, moments = positive(N, D), normal(N, D), (normal(N, D), positive(N, D))
    last = jnp.asarray(rng.integers(0, 3, N), jnp.int32)
    # Each of the three may be one of the others when a test rolls them.
    rates, decay = jnp.array([0.2, 0.4]), jnp.array([0.9, 0.8, 0.5])
    exact_state = rows.ExactAdamState(*moments, last, rates, decay, **counted)
    exact_state = exact_state._replace(count=jnp.int32(3))  # a flush is due
    optimizers = [
        ("sgd", rows.SgdState(**counted), sgd, {}),
        (
            "momentum",
            rows.MomentumState(trace, **counted),
            momentum,
            {"nesterov": True},
        ),
        ("adagrad", rows.AdagradState(acc, **counted), adagrad, {}),
        (
            "rowwise_adagrad",
            rows.RowwiseAdagradState(acc[:, 0], **counted),
            rowwise_adagrad,
            {},
        ),
        ("adam", rows.AdamState(*moments, **counted), adam, {}),
        ("exact_adam", exact_state, exact_adam, {}),
    ]

    def row_cases():
        for name, state, oracle, kwargs in optimizers:
            fn = by_optimizer(getattr(rows, f"{name}_update"), **kwargs)
            args = (w, state, grad, lr)
            yield Case(name, fn, oracle, args, f"fsparse_{name}_rows")

    def bucket_codes(*shape):
        return jnp.asarray(rng.choice([0, 1, 2, 3, NOWHERE], shape), jnp.int32)

    moved = jnp.asarray(rng.permutation(N + 2)[:5] - 1, jnp.int32)
    changes = (moved, bucket_codes(2, 5)), (ids(6), bucket_codes(2, 6))
    probes = jnp.asarray(rng.integers(-1, 2 * NUM_BUCKETS + 2, (3, 5)), jnp.int32)
    some = jnp.asarray([rng.permutation(N)[: K + 1] for _ in range(B)], jnp.int32)
    some = jnp.insert(some, 2, jnp.asarray([-1, N, N + 3, 2**30]), axis=1)
    targets = jnp.array([[0, 2], [1, 4], [-1, 9], [2, 2]], jnp.int32)
    is_active = jnp.array([True, True, True, False])

    def family(name, oracle, *floats):
        fn, target = getattr(fsparse, name), f"fsparse_{name}"
        if name == "scatter_outer":
            fn = _scatter_outer
        yield Case(f"{name}-each", fn, oracle, (*floats, each), target)
        yield Case(f"{name}-shared", fn, oracle, (*floats, shared), target)

    gathered, hashing = "fsparse_gather_matmul", "fsparse_sign_codes"
    directions, own = normal(D, TABLES * BITS), ids(B, K)
    return [
        *family("sampled_matmul", sampled, x, w),
        *family("gather_matmul", gather, v, w),
        *family("scatter_outer", partial(scatter, n=N), v, x),
        Case("shared_grads", _grads, grads, (v, x, w, shared), "fsparse_sampled_grads"),
        Case("take_rows", fsparse.take_rows, take, (w, shared), gathered),
        Case("embedding_bag", fsparse.embedding_bag, bag, (w, each, v), gathered),
        Case("dense_top_k", _dense_top_k, top_k, (x, w), "fsparse_dense_top_k"),
        Case(
            "sampled_top_k",
            _sampled_top_k,
            best_of_some,
            (x, w, some),
            "fsparse_sampled_top_k",
        ),
        Case(
            "buckets",
            _buckets_and_votes,
            dense_buckets,
            (bucket_codes(2, N), changes, (probes, jnp.int32(1))),
            "fsparse_build_buckets",
        ),
        Case(
            "sketch",
            _sketched,
            sketched,
            (
                jnp.asarray(rng.integers(-1, CELLS + 2, (B, TABLES)), jnp.int32),
                normal(B, 3),
                jnp.float32(0.5),
                normal(TABLES, CELLS, 3),
            ),
            "fsparse_sketch_update",
        ),
        *row_cases(),
        Case(
            "exact_adam_flush",
            rows.exact_adam_flush,
            exact_adam_flush,
            (w, exact_state),
            "fsparse_adam_catch_up",
        ),
        Case(
            "sum_squares",
            _sum_squares,
            sum_squares,
            (w[0], grad),
            "fsparse_sum_squares",
        ),
        Case(
            "clip_by_global_norm",
            _clipped,
            clipped,
            (grad, w, lr),
            "fsparse_sum_squares",
        ),
        Case(
            "row_grad",
            _two_row_gradients,
            two_row_gradients,
            (x, v, each, grad),
            "fsparse_sgd_rows",
        ),
        Case(
            "value_and_grad",
            _loss_gradient,
            loss_gradient,
            (w, x, each),
            "fsparse_hold",
        ),
        *[
            Case(
                f"first_distinct-{scope}",
                _first_distinct,
                first_distinct,
                (given, more),
                "fsparse_first_distinct",
            )
            for scope, given, more in [
                ("each", each, ids(B, 2)),
                ("shared", shared, ids(2)),
            ]
        ],
        *[
            Case(
                f"active_set-{scope}",
                partial(_active_set, size=size),
                partial(active_set, size=size),
                (each, candidates),
                "fsparse_first_distinct",
            )
            for scope, candidates, size in [
                ("each", ids(B, 4), 2),
                ("shared", ids(4), 3),
            ]
        ],
        Case(
            "active_set-all",
            partial(_active_set, size=N + 2),
            partial(all_active, size=N + 2),
            (each, ids(4)),
            None,
        ),
        Case("best_loss", _best_loss, best_loss, (x, w, each), "fsparse_dense_top_k"),
        Case("hashes", _hashed_rows, hashed_rows, (x, directions), hashing),
        Case("probes", _probed_rows, probed_rows, (x, directions), hashing),
        Case(
            "hadamard_probes",
            _probed_rotations,
            probed_rotations,
            (x, jnp.sign(normal(1, 3, POWER))),
            "fsparse_hadamard_codes",
        ),
        Case("sparse_probes", _probed_bags, probed_bags, (v, directions, own), hashing),
        Case(
            "softmax_loss",
            sampled_softmax_loss,
            softmax_loss,
            (normal(B, 4), targets, is_active),
            "fsparse_softmax_loss",
        ),
        Case(
            "fused_softmax_loss",
            fsparse.fused_softmax_loss,
            fused_loss,
            (x, w, shared, targets, is_active[-K:], v[0]),
            "fsparse_fused_softmax_loss",
        ),
        Case(
            "fused_softmax_grads",
            _fused_grads,
            fused_grads,
            (v[0], x, w, shared, targets),
            "fsparse_fused_softmax_grads",
        ),
        *int8_cases(rng, x, some),
    ]


def int8_cases(rng, x, some):
    values = jnp.asarray(rng.integers(-127, 128, (N, D)), jnp.int8)
    scale = jnp.asarray(rng.random(N) / 60 + 0.01, jnp.float32)
    yield Case(
        "int8_top_k",
        lambda x, *w: fsparse.dense_top_k(x, fsparse.Int8Rows(*w), K),
        lambda *args: top_k(*as_float_rows(*args)),
        (x, values, scale),
        "fsparse_int8_top_k",
    )
    yield Case(
        "sampled_int8_top_k",
        lambda x, values, scale, ids: fsparse.sampled_top_k(
            x, fsparse.Int8Rows(values, scale), ids, K
        ),
        lambda *args: best_of_some(*as_float_rows(*args[:3]), args[3]),
        (x, values, scale, some),
        "fsparse_sampled_int8_top_k",
    )


def _sketched(cells, values, factor, table):
    table = sketch_ops.update(cells, values, factor, table)
    blocks = table.reshape(len(table), -1, BLOCKS, table.shape[2])
    return table, *sketch_ops.query(cells // BLOCKS, values[:, 1:], blocks, 1)


def _clipped(grad, w, most):
    grad, w = fsparse.clip_by_global_norm((grad, w), most)
    return grad.to_dense(), w


def _two_row_gradients(x, v, ids, grad):
    return (fsparse.row_grad(ids, x, v, num_rows=N) - 2 * grad).coalesce().to_dense()


def _loss_gradient(w, x, ids):
    def loss(w, x):
        logits, others = (fsparse.sampled_matmul(x, w, i) for i in (ids, ids[0]))
        return jnp.sum(jnp.sin(logits) * others)

    w, x, ids = vary_together(w, x, ids)  # else gradients are those of all shards
    value, (dw, dx) = fsparse.value_and_grad(loss, (0, 1))(fsparse.Table(w), x)
    return value, (dw.to_dense(), dx)


def _sum_squares(factor, grad):
    return factor * rows.sum_squares(grad)


def _scatter_outer(v, x, ids):
    return fsparse.scatter_outer(v, x, ids, num_rows=N)


def _dense_top_k(x, w):
    return fsparse.dense_top_k(x, w, K)


def _first_distinct(ids, more):
    ids = jnp.concatenate(vary_together(ids, more), axis=-1)
    return fsparse.first_distinct(ids, K, num_rows=N)


def _active_set(labels, candidates, size):
    return fsparse.active_set(labels, candidates, num_rows=N, size=size)


def _best_loss(x, w, labels):
    x, w, labels = vary_together(x, w, labels)
    query, key = samplers.Query(labels, x, w), jax.random.key(0)
    active = fsparse.sample_active_set(
        samplers.top_k(), key, query, size=SIZE, per_example=True, fill=False
    )
    logits = fsparse.sampled_matmul(x, w, active.ids)
    return sampled_softmax_loss(logits, active.targets, active.is_active)


def _hashed_rows(x, directions):
    codes = lsh.codes(SimHash(D, TABLES, BITS, directions), x)
    return codes, jnp.sum(x, axis=1) * codes[:, 0].astype(jnp.float32)


def _probed_rows(x, directions):
    family = SimHash(D, TABLES, BITS, directions)
    return lsh.probes(family, x, PROBES), jnp.sum(x)


def _probed_rotations(x, signs):
    family = HadamardSimHash(D, TABLES, BITS, signs)
    return lsh.probes(family, x, PROBES), jnp.sum(x)


def _probed_bags(v, directions, ids):
    family = SimHash(D, TABLES, BITS, directions)
    return lsh.probes(family, lsh.SparseRows(ids, v), PROBES), jnp.sum(v)


def _sampled_top_k(x, w, ids):
    return fsparse.sampled_top_k(x, w, ids, K)


def _buckets_and_votes(codes, changes, question):
    narrow = lambda x: x.astype(jnp.uint16)  # noqa: E731
    (moved, new_codes), (inserted, new_buckets) = changes
    capacity = N + MAX_INSERTED
    tables = _buckets.build(narrow(codes), NUM_BUCKETS, capacity)
    tables = _buckets.insert(tables, inserted, narrow(new_buckets), MAX_INSERTED)
    tables = _buckets.move(tables, moved, narrow(new_codes))
    found = _buckets.vote(tables, *question, K)
    codes = tables.codes.astype(jnp.int32)
    return found, tables.sizes, codes, tables.num_inserted, tables.num_lost


CASES = make_cases()
