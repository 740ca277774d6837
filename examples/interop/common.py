"""What the programs of this folder share: made-up documents, two options, a report."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fsparse import ActiveSet, sample_active_set, samplers

Array = jax.Array
NUM_LABELS = 1000
WORDS_OF_LABEL = 8
NUM_WORDS = NUM_LABELS * WORDS_OF_LABEL


class Documents(NamedTuple):
    """A batch of bags of words, to be classified."""

    words: Array  # i32[b, 6], below NUM_WORDS
    labels: Array  # i32[b, 1], below NUM_LABELS
    active: ActiveSet  # of all labels, those of the batch among them


@partial(jax.jit, static_argnums=1)
def documents(key: Array, batch_size: int) -> Documents:
    """Four words that the label is known by, and two that any document may have.

    The active set has the labels of the batch, and at least as many negatives.
    """
    of_words, of_negatives = jax.random.split(key)
    below = jnp.array([NUM_LABELS, *4 * [WORDS_OF_LABEL], *2 * [NUM_WORDS]])
    drawn = jax.random.randint(of_words, (batch_size, 7), 0, below)
    labels, own, noise = jnp.split(drawn, [1, 5], axis=1)
    words = jnp.concatenate([labels * WORDS_OF_LABEL + own, noise], axis=1)
    negatives, query = samplers.uniform(NUM_LABELS), samplers.Query(labels)
    active = sample_active_set(negatives, of_negatives, query, size=2 * batch_size)
    return Documents(words, labels, active)


def difference(tree: Any, other: Any) -> float:
    """The largest between any two arrays of two trees, on whatever devices."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def make_parser(file: str, doc: str, steps: int) -> argparse.ArgumentParser:
    """The options that every program has; ``doc`` is its docstring."""
    example = f"example: python examples/interop/{Path(file).name} --steps {steps}"
    parser = argparse.ArgumentParser(
        description=doc,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=steps, help="%(default)s")
    parser.add_argument("--json", metavar="FILE", type=Path, help="for the figures")
    return parser


def report(args: argparse.Namespace, losses: Sequence[Array], **more: float) -> None:
    """Prints some points of the loss curve, and the figures in the last line."""
    for step in sorted({round(i * (len(losses) - 1) / 5) for i in range(6)}):
        print(f"step {step + 1:4d}: loss {losses[step]:.4f}")
    figures = {"first_loss": losses[0], "last_loss": losses[-1], **more}
    figures = {name: float(value) for name, value in figures.items()}
    print(*(f"{name}={value:.4g}" for name, value in figures.items()))
    if args.json:
        args.json.write_text(json.dumps(figures))
