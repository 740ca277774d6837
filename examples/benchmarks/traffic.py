"""What a training step must move and compute, phase by phase.

Each distinct row is counted once a phase, however many examples name it: a kernel that
visits rows in order finds the others in cache. What is as small as a batch (logits,
their gradients, h) stays in cache and is not counted.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import synthetic
from jobs import Phase

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


class Visits(NamedTuple):
    """Means over the batches."""

    features: float  # distinct rows of the embedding
    output: float  # distinct rows of the output
    products: float  # of an example and a row


@cache
def visits(
    features: int,
    nonzeros: int,
    labels: int,
    labels_per_example: int,
    batch: int,
    negatives: int,
    per_example: bool = False,
    **_: object,
) -> Visits:
    """Of the synthetic batches, with uniform negatives."""
    some = synthetic.batches(features, nonzeros, labels, labels_per_example, batch, 4)
    used = np.mean([synthetic.distinct(b.features) for b in some])
    of_labels = np.mean([synthetic.distinct(b.labels) for b in some])
    drawn = batch * negatives if per_example else min(negatives, labels)
    others = labels * -np.expm1(-drawn / labels) if per_example else drawn
    output = min(float(of_labels + others), labels)
    products = batch * (negatives if per_example else output)
    return Visits(float(used), output, float(products))


def training(
    counted: Visits,
    width: int,
    dtype: str = "float32",
    moment_dtype: str = "float32",
    products: str = "float32",
) -> tuple[Phase, ...]:
    """Forward, backward and Adam on the rows that are active."""
    row = width * BYTES[dtype]
    state = row + 2 * width * BYTES[moment_dtype]
    flops = "flops_bf16" if products == "bfloat16" else "flops_f32"
    product = 2 * width * counted.products
    return (
        {"sorted_read": counted.features * row},  # embedding bag
        {"sorted_read": counted.output * row, flops: product},  # logits
        {  # gradients of h and of rows, and the rows' update
            "random_update": 2 * counted.output * state,
            flops: 2 * product,
        },
        {"random_update": 2 * counted.features * state},
    )


def dense_training(labels: int, width: int, batch: int, size: int) -> tuple[Phase, ...]:
    """Over all labels, of ``size`` bytes a number, and fused Adam: 3 arrays in place.

    Logits and their gradient are written and read, since they fit in no cache.
    """
    weights, logits = labels * width * size, labels * batch * size
    flops = "flops_bf16" if size == 2 else "flops_f32"
    product = 2.0 * labels * width * batch
    return (
        {"read": weights + 2 * logits, flops: product},
        {"read": weights + 4 * logits, flops: 2 * product},
        {"copy": 2 * weights * 3, "read": 2 * weights},
    )
