"""The handlers defend themselves against calls that did not come through fsparse."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fsparse
from fsparse._call import TARGETS

B, K, D, N, T, H = 4, 3, 5, 7, 6, 9
L, R, C, M = 2, 4, 8, 3  # tables of buckets, slots, rows that change


def f32(*shape):
    return jnp.ones(shape, jnp.float32)


def bf16(*shape):
    return jnp.ones(shape, jnp.bfloat16)


def u16(*shape):
    return jnp.zeros(shape, jnp.uint16)


def i32(*shape):
    return jnp.zeros(shape, jnp.int32)


def i8(*shape):
    return jnp.ones(shape, jnp.int8)


ROW_GRAD = {"ids": i32(T), "scale": f32(T), "source": i32(T), "x": f32(B, D)}
SEED = {"seed": jnp.zeros(2, jnp.uint32)}
TABLE, LAST = f32(N, D), i32(N) + 1
MOMENTS = {"table": bf16(N, D), "mu": TABLE, "nu": bf16(N, D)}
SCHEDULE = {"history": f32(H, 2), "step": i32(1) + 2}
BUCKETS = {"starts": i32(L, R + 1), "sizes": i32(L, R), "entries": i32(L, C)}
STATE = {
    **BUCKETS,
    "codes": u16(L, N),
    "num_inserted": i32(L),
    "num_lost": i32(L),
}
CHANGES = {"ids": i32(M), "new_codes": u16(L, M)}
FLIPS = jnp.array([[0, 0], [1, 0], [0, 1]], bool)
G, CELLS, BLOCKS = 2, 6, 3  # sketches, cells of a row, blocks of a cell
EXAMPLES = {
    "logits": f32(B, K),
    "targets": i32(B, 2),
    "is_active": jnp.ones((B, K), bool),
}
PRODUCT = {
    "x": f32(2, B, D),
    "w": f32(N, D),
    "ids": i32(2, K),
    "offsets": f32(2, K),
    "targets": i32(2, B, 2),
    "is_active": jnp.ones((2, K), bool),
}
# Operands and results of a correct call of each handler.
CALLS = {
    "fsparse_sampled_matmul": (
        {"x": f32(2, B, D), "w": TABLE, "ids": i32(2, K)},
        {"y": f32(2, B, K)},
    ),
    "fsparse_gather_matmul": (
        {"v": f32(2, B, K), "w": TABLE, "ids": i32(2, K)},
        {"z": f32(2, B, D)},
    ),
    "fsparse_scatter_outer": (
        {"v": f32(2, B, K), "x": f32(2, B, D), "ids": i32(2, K)},
        {"out": TABLE, "products": f32(2 * K, D)},
    ),
    "fsparse_sgd_rows": (
        {**ROW_GRAD, "hyper": f32(2), **SEED, "table": TABLE},
        {"table": TABLE},
    ),
    "fsparse_momentum_rows": (
        {**ROW_GRAD, "hyper": f32(4), **SEED, "table": TABLE, "trace": bf16(N, D)},
        {"table": TABLE, "trace": bf16(N, D)},
    ),
    "fsparse_adagrad_rows": (
        {**ROW_GRAD, "hyper": f32(3), **SEED, "table": TABLE, "acc": TABLE},
        {"table": TABLE, "acc": TABLE},
    ),
    "fsparse_rowwise_adagrad_rows": (
        {**ROW_GRAD, "hyper": f32(3), **SEED, "table": TABLE, "acc": f32(N)},
        {"table": TABLE, "acc": f32(N)},
    ),
    "fsparse_adam_rows": (
        {**ROW_GRAD, "hyper": f32(7) / 2, **SEED, **MOMENTS},
        MOMENTS,
    ),
    "fsparse_exact_adam_rows": (
        {
            **ROW_GRAD,
            "hyper": f32(7) / 2,
            **SCHEDULE,
            **SEED,
            **MOMENTS,
            "last": LAST,
        },
        {**MOMENTS, "last": LAST},
    ),
    "fsparse_adam_catch_up": (
        {
            "ids": i32(T),
            "hyper": f32(4) / 2,
            **SCHEDULE,
            **SEED,
            **MOMENTS,
            "last": LAST,
        },
        {**MOMENTS, "last": LAST},
    ),
    "fsparse_sum_squares": (
        {**ROW_GRAD, "num_rows": i32(1) + N},
        {"sum": f32(1)},
    ),
    "fsparse_dense_top_k": (
        {"x": f32(B, D), "w": TABLE},
        {"scores": f32(B, K), "ids": i32(B, K)},
    ),
    "fsparse_first_distinct": (
        {"ids": i32(B, T), "num_rows": i32(1) + N},
        {"first": i32(B, K), "num_distinct": i32(B)},
    ),
    "fsparse_sampled_top_k": (
        {"x": f32(B, D), "w": TABLE, "ids": i32(B, T)},
        {"scores": f32(B, K), "best": i32(B, K)},
    ),
    "fsparse_sign_codes": (
        {"v": f32(2, B, K), "w": f32(N, 4), "ids": i32(2, K), "flips": FLIPS},
        {"probes": i32(2, B, L, 3)},
    ),
    "fsparse_sketch_update": (
        {
            "cells": i32(G, B, R),
            "values": f32(G, B, K),
            "factor": f32(G),
            "table": f32(G * R, CELLS, K),
        },
        {"table": f32(G * R, CELLS, K)},
    ),
    "fsparse_sketch_query": (
        {
            "cells": i32(G, B, R),
            "centre": f32(G, B, K - 1),
            "table": f32(G, R, CELLS, BLOCKS, K),
        },
        {"sums": f32(G, B, 2, K), "moments": f32(G, B, 2 * K - 1)},
    ),
    "fsparse_hadamard_codes": (
        {"x": f32(2, B, 4), "signs": f32(2, 1, 3, 4), "flips": FLIPS},
        {"probes": i32(2, B, L, 3)},
    ),
    "fsparse_build_buckets": ({"codes": u16(L, N)}, BUCKETS),
    "fsparse_move_rows": ({**CHANGES, **STATE}, STATE),
    "fsparse_insert_entries": ({**CHANGES, "max_inserted": i32(1), **STATE}, STATE),
    "fsparse_vote": (
        {
            "probes": i32(B, T),
            "start": i32(1),
            **BUCKETS,
            "codes": u16(L, N),
            "num_inserted": i32(L),
        },
        {"ids": i32(B, K), "votes": i32(B, K), "num_found": i32(B)},
    ),
    "fsparse_sum_examples": (
        {"v": f32(2, B, K), "x": f32(2, B, D)},
        {"out": f32(2, K, D)},
    ),
    "fsparse_sampled_grads": (
        {"v": f32(2, B, K), "x": f32(2, B, D), "w": f32(N, D), "ids": i32(2, K)},
        {"z": f32(2, B, D), "rows": f32(2, K, D)},
    ),
    "fsparse_softmax_loss": (EXAMPLES, {"loss": f32(B), "sums": f32(B, 2)}),
    "fsparse_softmax_delta": (
        {"ct": f32(B), **EXAMPLES, "sums": f32(B, 2)},
        {"delta": f32(B, K)},
    ),
    "fsparse_softmax_slope": (
        {"direction": f32(B, K), **EXAMPLES, "sums": f32(B, 2)},
        {"slope": f32(B)},
    ),
    "fsparse_fused_softmax_loss": (
        PRODUCT,
        {"loss": f32(2, B), "sums": f32(2, B, 2)},
    ),
    "fsparse_fused_softmax_grads": (
        {"ct": f32(2, B), "sums": f32(2, B, 2), **PRODUCT},
        {"z": f32(2, B, D), "rows": f32(2, K, D), "columns": f32(2, K)},
    ),
    "fsparse_int8_top_k": (
        {"x": f32(B, D), "values": i8(N, D), "scale": f32(N)},
        {"scores": f32(B, K), "ids": i32(B, K)},
    ),
    "fsparse_sampled_int8_top_k": (
        {
            "x": f32(B, D),
            "values": i8(N, D),
            "scale": f32(N),
            "candidates": i32(B, T),
        },
        {"scores": f32(B, K), "ids": i32(B, K)},
    ),
}
# Products, which are told of how many bf16 parts their operands are.
OF_PARTS = [
    "fsparse_sampled_matmul",
    "fsparse_gather_matmul",
    "fsparse_scatter_outer",
    "fsparse_sum_examples",
    "fsparse_sampled_grads",
    "fsparse_fused_softmax_loss",
    "fsparse_fused_softmax_grads",
]
# Tables that are only read may be f32 or bf16: their handlers check them by name.
TABLES = {
    ("fsparse_sampled_matmul", "w"),
    ("fsparse_gather_matmul", "w"),
    ("fsparse_sampled_grads", "w"),
    ("fsparse_fused_softmax_loss", "w"),
    ("fsparse_fused_softmax_grads", "w"),
    ("fsparse_dense_top_k", "w"),
    ("fsparse_sampled_top_k", "w"),
    ("fsparse_sign_codes", "w"),
    ("fsparse_hadamard_codes", "x"),
}
# Sizes that nothing else has to agree with: any number of rows of a table.
FREE = {
    *[(name, "x", 0) for name in CALLS if name.endswith("_rows")],
    ("fsparse_sum_squares", "x", 0),
    ("fsparse_sum_squares", "x", 1),
    ("fsparse_exact_adam_rows", "history", 0),
    ("fsparse_adam_catch_up", "history", 0),
    ("fsparse_adam_catch_up", "ids", 0),
    ("fsparse_sampled_matmul", "w", 0),
    ("fsparse_gather_matmul", "w", 0),
    ("fsparse_sampled_grads", "w", 0),
    ("fsparse_fused_softmax_loss", "w", 0),
    ("fsparse_fused_softmax_grads", "w", 0),
    ("fsparse_scatter_outer", "out", 0),
    ("fsparse_dense_top_k", "w", 0),
    ("fsparse_first_distinct", "ids", 1),
    ("fsparse_first_distinct", "first", 1),
    ("fsparse_sampled_top_k", "w", 0),
    ("fsparse_sampled_top_k", "ids", 1),
    ("fsparse_sign_codes", "w", 0),
    ("fsparse_sign_codes", "flips", 0),
    ("fsparse_sketch_query", "table", 2),
    ("fsparse_sketch_query", "table", 3),
    ("fsparse_sketch_query", "sums", 2),
    ("fsparse_hadamard_codes", "signs", 1),
    ("fsparse_hadamard_codes", "flips", 0),
    ("fsparse_build_buckets", "codes", 1),
    ("fsparse_build_buckets", "entries", 1),
    ("fsparse_vote", "probes", 1),
    ("fsparse_vote", "entries", 1),
    ("fsparse_vote", "codes", 1),
    ("fsparse_softmax_loss", "targets", 1),
    ("fsparse_fused_softmax_loss", "targets", 2),
    ("fsparse_fused_softmax_grads", "targets", 2),
    ("fsparse_softmax_delta", "targets", 1),
    ("fsparse_softmax_slope", "targets", 1),
    ("fsparse_sampled_int8_top_k", "candidates", 1),
}


def call(name, operands, results, num_parts=3):
    types = [jax.ShapeDtypeStruct(r.shape, r.dtype) for r in results.values()]
    given = {"num_parts": np.int32(num_parts)} if name in OF_PARTS else {}
    out = jax.ffi.ffi_call(name, types)(*operands.values(), **given)
    return jax.block_until_ready(out)


def grown(x, axis):
    """One larger along an axis."""
    return jnp.ones(np.add(x.shape, np.eye(x.ndim, dtype=int)[axis]), x.dtype)


def other_dtype(x):
    return x.astype(jnp.int32 if x.dtype == jnp.float32 else jnp.float32)


def variants(change_each):
    for name, parts in CALLS.items():
        for side, arrays in enumerate(parts):
            for what, x in arrays.items():
                for how, changed in change_each(name, what, x):
                    new = [*parts]
                    new[side] = {**arrays, what: changed}
                    label = f"{name}-{['operand', 'result'][side]}-{what}-{how}"
                    yield pytest.param(name, *new, id=label)


def wrong_sizes(name, what, x):
    for axis in range(x.ndim):
        if (name, what, axis) not in FREE:
            yield axis, grown(x, axis)


def wrong_types(name, what, x):
    if (name, what) not in TABLES:
        yield "dtype", other_dtype(x)
        yield "rank", x[None]


def wrong_tables(name, what, x):
    if (name, what) in TABLES:
        yield "i32", x.astype(jnp.int32)
        yield "f16", x.astype(jnp.float16)
        yield "one less", x[0]
        yield "one more", x.astype(jnp.bfloat16)[None]


def test_the_table_of_calls_is_complete():
    assert {*CALLS, "fsparse_hold"} == set(TARGETS)


@pytest.mark.parametrize("held", [f32(B, D), i32(K), jnp.zeros((), jnp.uint8)])
def test_hold_passes_any_array_through(held):
    (got,) = call("fsparse_hold", {"held": held, "until": i32(3)}, {"held": held})
    np.testing.assert_array_equal(got, held)
    assert got.dtype == held.dtype


@pytest.mark.parametrize("result", [f32(D, B), f32(B), i32(B, D)])
def test_hold_refuses_results_of_another_type(result):
    with pytest.raises(
        jax.errors.JaxRuntimeError, match="fsparse_hold: each result must have the type"
    ):
        call("fsparse_hold", {"held": f32(B, D)}, {"held": result})
    with pytest.raises(jax.errors.JaxRuntimeError, match="operand for each result"):
        call("fsparse_hold", {"held": result}, {"held": result, "more": result})


@pytest.mark.parametrize("name", CALLS)
def test_correct_calls_run(name):
    for result in call(name, *CALLS[name]):
        assert np.isfinite(result).all()


@pytest.mark.parametrize(("name", "what"), sorted(TABLES))
def test_bf16_tables_run(name, what):
    operands, results = CALLS[name]
    half = {**operands, what: operands[what].astype(jnp.bfloat16)}
    for result, want in zip(
        call(name, half, results), call(name, *CALLS[name]), strict=True
    ):
        np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (operands, _) in CALLS.items()
        if "table" in operands and name.endswith("_rows")
    ],
)
def test_a_table_that_is_not_aliased_is_copied(name):
    """The calls above name row 0 alone."""
    table, *moments = call(name, *CALLS[name])
    assert (table[0] != 1).all()
    for result in (table, *moments):
        np.testing.assert_array_equal(result[1:].astype(np.float32), 1)


@pytest.mark.parametrize(("name", "operands", "results"), [*variants(wrong_sizes)])
def test_wrong_sizes_are_refused_by_name(name, operands, results):
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf"{name}: \S+.* must be \d+"):
        call(name, operands, results)


@pytest.mark.parametrize("name", OF_PARTS)
def test_other_numbers_of_parts_are_refused(name):
    for result in call(name, *CALLS[name], num_parts=1):
        assert np.isfinite(result).all()
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf"{name}: num_parts must be"):
        call(name, *CALLS[name], num_parts=2)


@pytest.mark.parametrize(("name", "operands", "results"), [*variants(wrong_types)])
def test_wrong_types_are_refused(name, operands, results):
    refusal = rf"Wrong buffer (dtype|rank)|{name}: .* must (be|have) .*; got .*\."
    with pytest.raises(jax.errors.JaxRuntimeError, match=refusal):
        call(name, operands, results)


@pytest.mark.parametrize(
    ("name", "operand"),
    [("fsparse_adam_rows", "mu"), ("fsparse_momentum_rows", "trace")],
)
def test_a_result_of_another_dtype_is_refused(name, operand):
    operands, results = CALLS[name]
    other = f32(N, D) if results[operand].dtype == jnp.bfloat16 else bf16(N, D)
    with pytest.raises(
        jax.errors.JaxRuntimeError, match=rf"{name}: result {operand} must be B?F"
    ):
        call(name, operands, {**results, operand: other})


def test_one_accumulator_a_row_is_f32():
    operands, results = CALLS["fsparse_rowwise_adagrad_rows"]
    low = {"acc": bf16(N)}
    with pytest.raises(jax.errors.JaxRuntimeError, match="acc must be F32; got BF16"):
        call("fsparse_rowwise_adagrad_rows", operands | low, results | low)


@pytest.mark.parametrize(("name", "operands", "results"), [*variants(wrong_tables)])
def test_wrong_tables_are_refused_by_name(name, operands, results):
    got = {"int32": "S32", "float16": "F16", "float32": "F32", "bfloat16": "BF16"}
    what, rank = ("x", 3) if name == "fsparse_hadamard_codes" else ("w", 2)
    w = operands[what]
    message = f"{name}: {what} must be F32 or BF16 of rank {rank}; got "
    message += f"{got[w.dtype.name]} of rank {w.ndim}"
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        call(name, operands, results)


@pytest.mark.parametrize("name", CALLS)
def test_missing_operands_are_refused(name):
    operands, results = CALLS[name]
    fewer = dict(list(operands.items())[:-1])
    with pytest.raises(jax.errors.JaxRuntimeError, match="Wrong number of arguments"):
        call(name, fewer, results)


def test_one_module_touches_jax_ffi():
    package = pathlib.Path(fsparse.__file__).parent
    uses = re.compile(r"jax\.ffi|jax import .*\bffi\b|jax\._src")
    users = [p.name for p in package.rglob("*.py") if uses.search(p.read_text())]
    assert users == ["_call.py"]


@pytest.mark.parametrize(
    "buckets", [(L, 0, C), (L, R, N - 1)], ids=["none", "few slots"]
)
def test_buckets_that_cannot_hold_all_rows_are_refused(buckets):
    tables, count, capacity = buckets
    results = [i32(tables, count + 1), i32(tables, count), i32(tables, capacity)]
    named = dict(zip(BUCKETS, results, strict=True))
    message = f"must be a bucket, and a slot for each row; got {count} and {capacity}"
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        call("fsparse_build_buckets", {"codes": u16(L, N)}, named)


@pytest.mark.parametrize("name", ["fsparse_move_rows", "fsparse_insert_entries"])
def test_a_state_that_is_not_aliased_is_copied(name):
    operands, results = CALLS[name]
    state = {k: operands[k] + 3 for k in STATE}
    for old, new in zip(
        state.values(), call(name, operands | state, results), strict=True
    ):
        changed = np.asarray(old != new)
        assert changed.sum() <= L  # at most what became of row 0


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_the_rows_of_a_sketch_are_refused(groups):
    operands, results = CALLS["fsparse_sketch_query"]
    sums = {"sums": f32(G, B, groups, K)}
    message = f"must be a divisor of the {R} rows; got {groups}"
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        call("fsparse_sketch_query", operands, results | sums)


def test_a_sketch_that_is_not_aliased_is_copied():
    operands, results = CALLS["fsparse_sketch_update"]
    (table,) = call("fsparse_sketch_update", operands, results)
    np.testing.assert_array_equal(table[:, 0], 1 + B)  # all fell into cell 0
    np.testing.assert_array_equal(table[:, 1:], 1)
