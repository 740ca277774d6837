"""Imports, compilations and calls, timed from inside."""

import importlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import fsparse
from systems import training_fsparse

_PROGRAM = """
import sys
sys.path[:0] = {path!r}
import time
{before}
began = time.perf_counter()
import {name}
print(time.perf_counter() - began)
"""


def imported(name: str) -> Callable[[], float]:
    """Seconds of an import in a new interpreter.

    Of a copy of fsparse: one that is installed as editable looks for changed sources.
    """
    folder = tempfile.TemporaryDirectory()
    shutil.copytree(Path(fsparse.__file__).parent, Path(folder.name) / "fsparse")
    extension = importlib.import_module("fsparse._ffi").__file__
    shutil.copy(str(extension), Path(folder.name) / "fsparse")
    before = "import jax" if name == "fsparse" else ""
    path = [folder.name, *sys.path]
    program = _PROGRAM.format(path=path, before=before, name=name)

    def call() -> float:
        assert folder
        command = [sys.executable, "-S", "-c", program]  # -S: no editable packages
        return float(subprocess.run(command, capture_output=True, check=True).stdout)

    return call


def compiled(how: str, **shape: Any) -> Callable[[], None]:
    """A new compilation each time, of shapes alone."""
    step, operands = (ours if how == "fsparse" else by_jax)(how, shape)

    def call() -> None:
        jax.clear_caches()
        step.lower(*operands).compile()

    return call


def ours(how: str, shape: dict[str, Any]) -> tuple[Any, Any]:
    """The step of fsparse with shared negatives, and its operands' shapes."""
    n, b = shape["labels"], shape["batch"]
    size = min(shape["negatives"] + b * shape["labels_per_example"], n)
    sizes = shape["features"], n, shape["width"]
    made: list[Any] = []

    def init() -> Any:
        params, optimizer, state = training_fsparse.init(*sizes, "float32", "float32")
        made.append(optimizer)
        return params, state

    params, state = jax.eval_shape(init)
    choose = training_fsparse.uniform_set(n, shape["negatives"], size, False)
    step = training_fsparse.step_of(made[0], choose)
    return jax.jit(step, donate_argnums=(0, 1)), (params, state, None, *batch(shape))


def by_jax(how: str, shape: dict[str, Any]) -> tuple[Any, Any]:
    """The step of plain JAX, and its operands' shapes."""
    from systems import training_jax

    sizes = shape["features"], shape["labels"], shape["width"]
    made: list[Any] = []

    def init() -> Any:
        params = training_jax.init(*sizes)
        step, state = training_jax.step_of(how, shape["negatives"], params)
        made.append(step)
        return params, state

    params, state = jax.eval_shape(init)
    return made[0], (params, state, *batch(shape))


def batch(shape: dict[str, Any]) -> tuple[Any, ...]:
    """A seed, features and labels, as shapes."""
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    names = "nonzeros", "labels_per_example"
    ids = (jax.ShapeDtypeStruct((shape["batch"], shape[x]), jnp.int32) for x in names)
    return seed, *ids


def chain(calls: int, ours: bool, **_: Any) -> Callable[[], float]:
    """Seconds of one of so many products, each of which waits for the last."""
    w, ids = jnp.eye(4), jnp.arange(4, dtype=jnp.int32)
    x = jnp.ones((1, 4))

    def product(_: Any, x: jax.Array) -> jax.Array:
        return fsparse.sampled_matmul(x, w, ids) if ours else x @ w.T

    run = jax.jit(lambda x: jax.lax.fori_loop(0, calls, product, x))

    def call() -> float:
        began = time.perf_counter()
        run(x).block_until_ready()
        return (time.perf_counter() - began) / calls

    return call
