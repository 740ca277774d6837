"""What adaptive sampling costs: a Nadaraya-Watson sketch, and the training it steers.

Scores M candidates, 1 or 4 for each trained example, and adds the losses of b of them,
beside forward and backward of a perceptron on these b in plain JAX: the one of
arXiv:2311.13583, 938 -> 4 x 800 -> 1 with ReLU and binary cross-entropy.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fsparse import lsh
from fsparse.sketch import NWSketch, nw_decay, nw_init, nw_query, nw_update

Array = jax.Array
Layers = list[tuple[Array, Array]]
_CLASSES, _DECAY = 2, 0.995


def part(
    name: str, width: int, batch: int, rows: int, bits: int, candidates: int, kind: str
) -> Callable[[], Any]:
    """Hash M, query M, update b, or all of them as one program."""
    x, labels = examples(width, candidates * batch)
    sizes = {"num_tables": rows, "num_bits": bits}
    family = lsh.simhash(jax.random.key(2), width, **sizes, kind=kind)
    sketch = nw_init(family, num_slices=_CLASSES)
    call = sketch_calls(sketch, x, labels, batch)[name]
    return lambda: jax.block_until_ready(call())


def training(
    width: int, batch: int, hidden: int, layers: int, **_: Any
) -> Callable[[], Any]:
    """Forward and backward."""
    x, labels = examples(width, batch)
    targets = labels.astype(jnp.float32)
    params = init_layers(jax.random.key(3), [width, *[hidden] * layers, 1])
    train = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(train(params, x, targets))


def examples(width: int, count: int) -> tuple[Array, Array]:
    """Random ones."""
    x = jax.random.normal(jax.random.key(0), (count, width))
    return x, jax.random.randint(jax.random.key(1), (count,), 0, _CLASSES)


# ---- the sketch ---------------------------------------------------------------------


def sketch_calls(
    sketch: NWSketch, x: Array, labels: Array, b: int
) -> dict[str, Callable[[], Any]]:
    """The parts of a step, and all of them, with sketches that are updated in place."""
    hashes, query = jax.jit(lsh.codes), jax.jit(scores)
    update = jax.jit(add, donate_argnums=0)
    step = jax.jit(score_and_add, donate_argnums=0)
    family, codes = sketch.family, hashes(sketch.family, x)
    losses, own, own_labels = jnp.ones(b), codes[:b], labels[:b]
    full = jax.jit(add)(sketch, own, losses, own_labels)
    kept = {name: jax.tree.map(jnp.copy, full) for name in ("update", "all")}

    def updated() -> Any:
        kept["update"] = update(kept["update"], own, losses, own_labels)
        return kept["update"].totals

    def stepped() -> Any:
        kept["all"], mean = step(kept["all"], x, losses, labels)
        return mean

    return {
        "hash": lambda: hashes(family, x),
        "query": lambda: query(full, codes, labels),
        "update": updated,
        "all": stepped,
    }


def scores(sketch: NWSketch, codes: Array, labels: Array) -> Array:
    """The estimated loss of each candidate."""
    return nw_query(sketch, codes, labels).mean


def add(sketch: NWSketch, codes: Array, losses: Array, labels: Array) -> NWSketch:
    """Forgets a little, and adds what the step computed anyway."""
    return nw_update(nw_decay(sketch, _DECAY), codes, losses, labels)


def score_and_add(
    sketch: NWSketch, x: Array, losses: Array, labels: Array
) -> tuple[NWSketch, Array]:
    """A step without selection and training: rows are hashed once."""
    codes, b = lsh.codes(sketch.family, x), len(losses)
    mean = scores(sketch, codes, labels)
    return add(sketch, codes[:b], losses, labels[:b]), mean


# ---- the training -------------------------------------------------------------------


def init_layers(key: Array, widths: list[int]) -> Layers:
    """He's initial weights, and biases of zero."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n))
        for k, (m, n) in zip(keys, itertools.pairwise(widths), strict=True)
    ]


def loss(params: Layers, x: Array, y: Array) -> Array:
    """Binary cross-entropy of a perceptron."""
    *hidden, (w, b) = params
    for weights, bias in hidden:
        x = jax.nn.relu(x @ weights + bias)
    logits = (x @ w + b)[:, 0]
    return jnp.mean(jnp.logaddexp(0, logits) - y * logits)
