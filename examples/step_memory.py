"""What a training step allocates beside its parameters, at Amazon-670K's shape.

A batch of 256 examples of 75 features, an embedding bag of 135,909 features, a layer of
670,091 neurons of width 128, Adam on everything. Three steps are compiled, not run, and
XLA is asked for the memory it has planned:

  shared       4,096 active neurons, the same for all examples
  per example  3,350 active neurons of each example
  dense        the same two losses, by jax.value_and_grad and optax.adam, with the same
               active neurons: gradients and updates are as large as the tables

Beside XLA's plan, the custom calls use 32 bytes for each occurrence of a row to group
them by row; it is counted in what is printed.

Example:
  python examples/step_memory.py --json step_memory.json
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import fsparse
from fsparse import Table, rows

_GROUPING_BYTES = 32  # of ffi/group.cc, at most, for each id


class Shape(NamedTuple):
    """Sizes of the model and of a batch."""

    num_features: int = 135_909
    num_labels: int = 670_091
    width: int = 128
    batch_size: int = 256
    num_nonzeros: int = 75
    num_shared: int = 4096
    num_per_example: int = 3350


class Batch(NamedTuple):
    """Features and active neurons; the first of an example's is its label."""

    feature_ids: jax.Array  # i32[b, 75]
    active_ids: jax.Array  # i32[m] or i32[b, k]
    targets: jax.Array  # i32[b, 1], where an example's label stands in its set


class Report(NamedTuple):
    """Of one step, in bytes."""

    temp_bytes: int
    table_copies: int  # instructions that copy an array of a table's size


def loss(params: dict[str, Any], batch: Batch, num_labels: int) -> jax.Array:
    """Softmax cross-entropy in the active set."""
    h = jax.nn.relu(fsparse.embedding_bag(params["embedding"], batch.feature_ids))
    logits = fsparse.sampled_matmul(h, params["output"], batch.active_ids)
    is_active = batch.active_ids < num_labels
    return fsparse.sampled_softmax_loss(logits, batch.targets, is_active).mean()


def dense_loss(params: dict[str, Any], batch: Batch, num_labels: int) -> jax.Array:
    """The same by indexing."""

    def take(table: jax.Array, ids: jax.Array) -> jax.Array:
        return table.at[ids].get(mode="fill", fill_value=0)

    h = jax.nn.relu(take(params["embedding"], batch.feature_ids).sum(1))
    active = take(params["output"], batch.active_ids)
    equation = "bd,md->bm" if batch.active_ids.ndim == 1 else "bd,bmd->bm"
    logits = jnp.einsum(equation, h, active)
    log_z = jax.nn.logsumexp(logits, axis=1)
    return jnp.mean(log_z - jnp.take_along_axis(logits, batch.targets, 1)[:, 0])


def make_step(shape: Shape) -> tuple[Any, Callable[..., Any]]:
    """An optimizer, and a step of fsparse."""
    optimizer = fsparse.multi_transform({"tables": rows.adam(1e-3)})

    def step(params: Any, state: Any, batch: Batch) -> Any:
        differentiate = fsparse.value_and_grad(loss)
        value, grads = differentiate(params, batch, shape.num_labels)
        return *optimizer.step(params, state, grads), value

    return optimizer, step


def make_dense_step(shape: Shape) -> tuple[Any, Callable[..., Any]]:
    """An optimizer, and a step of plain JAX."""
    optimizer = optax.adam(1e-3)

    def step(params: Any, state: Any, batch: Batch) -> Any:
        differentiate = jax.value_and_grad(dense_loss)
        value, grads = differentiate(params, batch, shape.num_labels)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    return optimizer, step


def compiled_step(
    shape: Shape, make: Callable[..., Any], mark: Callable[..., Any], shared: bool
) -> Any:
    """The step as XLA would run it, parameters and state donated."""
    optimizer, step = make(shape)
    d = shape.width
    params = {
        "embedding": mark(jax.ShapeDtypeStruct((shape.num_features, d), jnp.float32)),
        "output": mark(jax.ShapeDtypeStruct((shape.num_labels, d), jnp.float32)),
    }
    state = jax.eval_shape(optimizer.init, params)
    b = shape.batch_size
    active = (shape.num_shared,) if shared else (b, shape.num_per_example)
    sizes = (b, shape.num_nonzeros), active, (b, 1)
    batch = Batch(*(jax.ShapeDtypeStruct(size, jnp.int32) for size in sizes))
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, batch).compile()


def report(shape: Shape, compiled: Any) -> Report:
    """Reads the plan of a compiled step."""
    tables = [f"f32[{n},{shape.width}]" for n in (shape.num_features, shape.num_labels)]
    copies = [
        line
        for line in compiled.as_text().splitlines()
        if " copy(" in line and any(table in line for table in tables)
    ]
    return Report(compiled.memory_analysis().temp_size_in_bytes, len(copies))


def measure(shape: Shape) -> dict[str, int]:
    """The figures of all steps, in bytes."""
    ours = {
        shared: report(shape, compiled_step(shape, make_step, Table, shared))
        for shared in (True, False)
    }
    dense = {
        shared: report(
            shape, compiled_step(shape, make_dense_step, lambda x: x, shared)
        )
        for shared in (True, False)
    }
    b, features = shape.batch_size, shape.batch_size * shape.num_nonzeros
    ids = {
        True: features + shape.num_shared,
        False: features + b * shape.num_per_example,
    }
    return {
        "temp_bytes_shared": ours[True].temp_bytes + _GROUPING_BYTES * ids[True],
        "temp_bytes_per_example": ours[False].temp_bytes + _GROUPING_BYTES * ids[False],
        "table_bytes": 4 * shape.width * (shape.num_features + shape.num_labels),
        "table_copies": ours[True].table_copies + ours[False].table_copies,
        "dense_temp_bytes": dense[True].temp_bytes,
        "dense_temp_bytes_per_example": dense[False].temp_bytes,
        "dense_table_copies": dense[True].table_copies + dense[False].table_copies,
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    for name, default in Shape()._asdict().items():
        option = f"--{name.replace('_', '-')}"
        add(option, type=int, default=default, help=f"(default: {default:,})")
    add("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    arguments = vars(parse_arguments())
    path = arguments.pop("json")
    figures = measure(Shape(**arguments))
    for name, value in figures.items():
        unit = f"{value / 1e6:12,.1f} MB" if "bytes" in name else f"{value:12,d}"
        print(f"{name:<30}{unit}")
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
