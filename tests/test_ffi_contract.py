"""The handlers defend themselves against calls that did not come through fsparse."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fsparse
from fsparse._call import TARGETS

B, K, D, N = 4, 3, 5, 7


def f32(*shape):
    return jnp.ones(shape, jnp.float32)


def i32(*shape):
    return jnp.zeros(shape, jnp.int32)


ROW_GRAD = {"ids": i32(B, K), "scale": f32(B, K), "x": f32(B, D)}
TABLE = f32(N, D)
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
        {**ROW_GRAD, "hyper": f32(1), "table": TABLE},
        {"table": TABLE},
    ),
    "fsparse_adagrad_rows": (
        {**ROW_GRAD, "hyper": f32(2), "table": TABLE, "acc": TABLE},
        {"table": TABLE, "acc": TABLE},
    ),
    "fsparse_adam_rows": (
        {**ROW_GRAD, "hyper": f32(6), "table": TABLE, "mu": TABLE, "nu": TABLE},
        {"table": TABLE, "mu": TABLE, "nu": TABLE},
    ),
    "fsparse_dense_top_k": (
        {"x": f32(B, D), "w": TABLE},
        {"scores": f32(B, K), "ids": i32(B, K)},
    ),
}
# Tables that are only read may be f32 or bf16: their handlers check them by name.
TABLES = {
    ("fsparse_sampled_matmul", "w"),
    ("fsparse_gather_matmul", "w"),
    ("fsparse_dense_top_k", "w"),
}
# Sizes that nothing else has to agree with: any number of rows of a table.
FREE = {
    ("fsparse_sampled_matmul", "w", 0),
    ("fsparse_gather_matmul", "w", 0),
    ("fsparse_scatter_outer", "out", 0),
    ("fsparse_dense_top_k", "w", 0),
}


def call(name, operands, results):
    types = [jax.ShapeDtypeStruct(r.shape, r.dtype) for r in results.values()]
    return jax.block_until_ready(jax.ffi.ffi_call(name, types)(*operands.values()))


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
        yield "rank1", x[0]
        yield "rank3", x.astype(jnp.bfloat16)[None]


def test_the_table_of_calls_is_complete():
    assert set(CALLS) == set(TARGETS)


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


@pytest.mark.parametrize("name", [name for name in CALLS if name.endswith("_rows")])
def test_a_table_that_is_not_aliased_is_copied(name):
    """The calls above name row 0 alone."""
    table, *moments = call(name, *CALLS[name])
    assert (table[0] != 1).all()
    for result in (table, *moments):
        np.testing.assert_array_equal(result[1:], 1)


@pytest.mark.parametrize(("name", "operands", "results"), [*variants(wrong_sizes)])
def test_wrong_sizes_are_refused_by_name(name, operands, results):
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf"{name}: \S+.* must be \d+"):
        call(name, operands, results)


@pytest.mark.parametrize(("name", "operands", "results"), [*variants(wrong_types)])
def test_wrong_types_are_refused(name, operands, results):
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"Wrong buffer (dtype|rank)"):
        call(name, operands, results)


@pytest.mark.parametrize(("name", "operands", "results"), [*variants(wrong_tables)])
def test_wrong_tables_are_refused_by_name(name, operands, results):
    got = {"int32": "S32", "float16": "F16", "float32": "F32", "bfloat16": "BF16"}
    w = operands["w"]
    message = f"{name}: w must be F32 or BF16 of rank 2; got {got[w.dtype.name]} of "
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"{message}rank {w.ndim}"):
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
