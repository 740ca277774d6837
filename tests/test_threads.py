"""The same bits for any number of threads, and no deadlock. This file is also the
program whose pool ``PJRT_NPROC`` sizes: it prints a hash of every result.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fsparse
from fsparse import row_grad, rows
from fsparse._shared_grads import grads_op
from fsparse.lsh import _buckets
from fsparse.matmul import sum_examples_op
from fsparse.sketch import _ops as sketch_ops

POOLS = (1, 2, 4)
NUM_CALLS, NUM_PYTHON_THREADS, NUM_JOBS = 64, 8, 80


def make_operands(b, k, d, n):
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    ids = jnp.asarray(rng.integers(0, n + 1, (b, k)), jnp.int32)
    return normal(b, d), normal(n, d), normal(b, k), ids


def every_op(x, w, v, ids):
    """All ops; per-example and shared ids."""
    n, grad = len(w), row_grad(ids, x, v, num_rows=len(w))
    shared, vs = ids[0], v[:, : ids.shape[1]]
    half, int8 = w.astype(jnp.bfloat16), fsparse.quantize_rows(w)
    return {
        "sampled_bf16": fsparse.sampled_matmul(x, half, ids),
        "sampled_bf16_shared": fsparse.sampled_matmul(x, half, shared),
        "gather_bf16": fsparse.gather_matmul(v, half, ids),
        "gather_bf16_shared": fsparse.gather_matmul(vs, half, shared),
        "top_k_bf16": fsparse.dense_top_k(x, half, 20),
        "top_k_bf16_of_one": fsparse.dense_top_k(x[:1], half, 20),
        "sampled": fsparse.sampled_matmul(x, w, ids),
        "sampled_shared": fsparse.sampled_matmul(x, w, shared),
        "sampled_sorted": fsparse.sampled_matmul(x, w, jnp.sort(ids, axis=1)),
        "gather": fsparse.gather_matmul(v, w, ids),
        "gather_sorted": fsparse.gather_matmul(v, w, jnp.sort(ids, axis=1)),
        "gather_shared": fsparse.gather_matmul(vs, w, shared),
        "scatter": fsparse.scatter_outer(v, x, ids, num_rows=n),
        "scatter_shared": fsparse.scatter_outer(vs, x, shared, num_rows=n),
        "top_k": fsparse.dense_top_k(x, w, 20),
        "top_k_of_one": fsparse.dense_top_k(x[:1], w, 20),
        "first_distinct": fsparse.first_distinct(ids, 30, num_rows=n),
        "first_distinct_shared": fsparse.first_distinct(ids.ravel(), 99, num_rows=n),
        **{name: update(w, grad) for name, update in UPDATES.items()},
        "sum_squares": rows.sum_squares(grad),
        "hashes": [fsparse.lsh.codes(family, x) for family in families(x.shape[1])],
        "hash_of_one": fsparse.lsh.codes(families(x.shape[1])[0], x[:1]),
        "probes": fsparse.lsh.probes(families(x.shape[1])[0], x, 7),
        "hadamard_probes": fsparse.lsh.probes(families(x.shape[1])[-1], x, 7),
        "sampled_top_k": fsparse.sampled_top_k(x, w, ids, 20),
        "sampled_top_k_bf16": fsparse.sampled_top_k(x, half, ids, 20),
        "sampled_top_k_of_one": fsparse.sampled_top_k(x[:1], w, ids.reshape(1, -1), 20),
        **of_buckets(w, ids),
        **of_sketches(v, ids),
        "softmax_loss": softmax_loss(v, ids[:, :3]),
        "shared_grads": grads_op(vs[None], x[None], w, shared[None]),
        "shared_grads_bf16": grads_op(vs[None], x[None], half, shared[None]),
        "fused_softmax": fused_softmax(x, w, shared),
        "fused_softmax_bf16": fused_softmax(x, half, shared),
        **in_bf16(x, w, vs, shared),
        "rows_of_examples": sum_examples_op(v[None], x[None]),
        "int8_top_k": fsparse.dense_top_k(x, int8, 20),
        "int8_top_k_of_one": fsparse.dense_top_k(x[:1], int8, 20),
        "sampled_int8_top_k": fsparse.sampled_top_k(x, int8, ids, 20),
        "top_k_of_few": fsparse.dense_top_k(x[:7], w, 20),
    }


def softmax_loss(logits, targets):
    """And its gradient."""
    is_active = jnp.arange(logits.shape[1]) % 9 > 0
    loss = lambda z: fsparse.sampled_softmax_loss(z, targets, is_active)  # noqa: E731
    return loss(logits), jax.grad(lambda z: loss(z).sum())(logits)


def fused_softmax(x, w, ids):
    """And its gradients, of many tiles."""
    many = jnp.concatenate([ids] * (1500 // len(ids) + 1))
    targets = ids[None, :2] % len(ids) + jnp.arange(len(x))[:, None]

    def loss(x, table):
        is_active = many < len(w)
        return fsparse.fused_softmax_loss(x, table, many, targets, is_active).sum()

    return fsparse.value_and_grad(loss, (0, 1))(x, fsparse.Table(w))


def in_bf16(x, w, v, ids):
    """Products of operands that are rounded."""
    with jax.default_matmul_precision("bfloat16"):
        return {
            "fused_softmax_in_bf16": fused_softmax(x, w, ids),
            "sampled_in_bf16": fsparse.sampled_matmul(x, w, ids),
            "gather_in_bf16": fsparse.gather_matmul(v, w, ids),
            "grads_in_bf16": grads_op(v[None], x[None], w, ids[None], num_parts=1),
        }


def of_sketches(v, ids, num_cells=500):
    """As many rows as an example has ids: threads share them, and then the queries."""
    values, table = v[:, :3], jnp.zeros((ids.shape[1], num_cells, 3))
    factor = jnp.float32(0.5)
    table = sketch_ops.update(ids % num_cells, values, factor, table + 1)
    found = sketch_ops.query(ids % num_cells, values[:, 1:], table[:, :, None], 4)
    return {"sketch_update": table, "sketch_query": found}


def of_buckets(w, ids, num_tables=8, num_buckets=16):
    """Tables that change, and votes: of many groups, and of one that is shared."""
    codes = (4 * w[:, :num_tables].T).astype(jnp.int32) % num_buckets
    codes, ids = codes.astype(jnp.uint16), ids.ravel()
    other = (codes[:, jnp.minimum(ids, len(w) - 1)] + 1) % num_buckets
    built = _buckets.build(codes, num_buckets, len(w) + 500)
    moved = _buckets.move(built, ids, other)
    grown = _buckets.insert(moved, ids[::-1], other, 400)
    probes = (ids[: len(ids) // 20 * 20] * 31) % (num_tables * num_buckets)
    first = jnp.int32(5)
    return {
        "build_buckets": built,
        "move_rows": moved,
        "insert_entries": grown,
        "vote": _buckets.vote(grown, probes.reshape(-1, 20), first, 30),
        "vote_shared": _buckets.vote(grown, probes[None], first, 30),
    }


@functools.cache
def families(d):
    """Made once, outside of any trace."""
    lsh = fsparse.lsh
    fast = functools.partial(lsh.simhash, kind="hadamard")
    makers = lsh.simhash, lsh.dwta, lsh.minhash, lsh.l2, fast
    with jax.ensure_compile_time_eval():
        return [make(jax.random.key(0), d) for make in makers]


LOW = {"moment_dtype": jnp.bfloat16}


def updates(name, num_updates=1, dtype=jnp.float32, **kwargs):
    init, update = (getattr(rows, f"{name}_{part}") for part in ("init", "update"))

    def run(table, grad):
        table = table.astype(dtype)
        state = init(table, **kwargs)
        for _ in range(num_updates):
            table, state = update(table, state, grad, learning_rate=0.1)
            grad = dataclasses.replace(grad, ids=grad.ids + 1)  # others catch up
        return table, state

    return run


UPDATES = {
    "sgd": updates("sgd"),
    "momentum": updates("momentum"),
    "adagrad": updates("adagrad"),
    "rowwise_adagrad": updates("rowwise_adagrad"),
    "adam": updates("adam"),
    "exact_adam": updates("exact_adam", 4, _num_rates=3),
    "sgd_bf16": updates("sgd", dtype=jnp.bfloat16),
    "adam_bf16": updates("adam", dtype=jnp.bfloat16, **LOW),
    "exact_adam_bf16": updates("exact_adam", 4, jnp.bfloat16, _num_rates=3, **LOW),
}


def digest(tree):
    content = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(tree))
    return hashlib.sha256(content).hexdigest()


def many_calls(x, w, v, ids):
    """Independent calls in one program: XLA runs them on the pool they also use."""
    rounds = NUM_CALLS // len(jax.eval_shape(every_op, x, w, v, ids)) + 1
    return [every_op(x + i, w, v, ids) for i in range(rounds)]


def from_python_threads(call):
    with ThreadPoolExecutor(NUM_PYTHON_THREADS) as executor:
        jobs = [executor.submit(lambda: digest(call())) for _ in range(NUM_JOBS)]
        return {job.result() for job in jobs}


def thread_name(task):
    try:
        return (task / "comm").read_text()
    except OSError:  # it has just ended
        return ""


def count_pool_threads():
    names = map(thread_name, pathlib.Path("/proc/self/task").glob("*"))
    return sum("XLAEigen" in name for name in names)


def main():
    large = make_operands(b=300, k=120, d=96, n=6000)
    small = make_operands(b=40, k=60, d=64, n=700)
    hashes = {name: digest(out) for name, out in every_op(*large).items()}
    hashes["many"] = digest(jax.jit(many_calls)(*small))
    once = jax.jit(every_op)
    report = {
        "hashes": hashes,
        "alone": digest(once(*small)),
        "together": list(from_python_threads(lambda: once(*small))),
        "pool_threads": count_pool_threads(),
    }
    print(json.dumps(report))


@pytest.fixture(scope="module")
def reports():
    """What the program prints for each size of the pool; a deadlock times out."""
    runs = {}
    for size in POOLS:
        done = subprocess.run(
            [sys.executable, __file__],
            env=os.environ | {"PJRT_NPROC": str(size), "XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        runs[size] = json.loads(done.stdout)
    return runs


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_pools_have_the_sizes_asked_for(reports):
    assert [reports[size]["pool_threads"] for size in POOLS] == [*POOLS]


def test_bits_do_not_depend_on_the_number_of_threads(reports):
    for size in POOLS[1:]:
        assert reports[size]["hashes"] == reports[POOLS[0]]["hashes"]


def test_python_threads_get_the_same_bits(reports):
    for report in reports.values():
        assert report["together"] == [report["alone"]]


if __name__ == "__main__":
    main()
