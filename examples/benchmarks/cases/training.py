"""Training steps: three shapes of data, growing numbers of labels, batches, memory."""

from functools import partial
from typing import Any

import traffic
from jobs import Case, Job, Shape

AMAZON = {
    "features": 135_909,
    "nonzeros": 75,
    "labels": 670_091,
    "labels_per_example": 5,
    "width": 128,
    "batch": 256,
    "negatives": 3350,
}
_WIKI = AMAZON | {
    "features": 1_617_899,
    "nonzeros": 42,
    "labels": 325_056,
    "labels_per_example": 3,
    "negatives": 1625,
}
_FIFTY = AMAZON | {"labels": 50_000, "negatives": 2000}
TINY = {"features": 500, "nonzeros": 5, "labels": 800, "labels_per_example": 2}
TINY |= {"width": 8, "batch": 4, "negatives": 16}

_FSPARSE = "systems.training_fsparse:"
_BF16 = {"dtype": "bfloat16", "moment_dtype": "bfloat16"}
HELD = "fsparse, logits held"  # as all are, where they are few
OURS: dict[str, dict[str, Any]] = {  # system -> arguments
    "fsparse": {},
    "fsparse, small pages": {"huge_pages": False},
    "fsparse bf16 tables": {"dtype": "bfloat16"},
    "fsparse bf16 tables, moments": _BF16,
    "fsparse, bf16 products": {"products": "bfloat16"},
    "fsparse bf16 tables, moments, products": {**_BF16, "products": "bfloat16"},
    "fsparse per example": {"per_example": True},
    HELD: {"fused": False},
}


def ours(shape: Shape, system: str) -> Job:
    """A step with uniform negatives."""
    arguments = OURS[system]
    counted = traffic.visits(**shape, per_example=arguments.get("per_example", False))
    types = {k: v for k, v in arguments.items() if k.endswith("dtype")}
    products = arguments.get("products", types.get("dtype", "float32"))
    work = traffic.training(counted, shape["width"], **types, products=products)
    return Job(
        shape, system, _FSPARSE + "sampled", arguments, work, gigabytes(shape, **types)
    )


def gigabytes(
    shape: Shape, dtype: str = "float32", moment_dtype: str = "float32"
) -> float:
    """Tables and moments in place, logits and their gradient, and room for the rest."""
    active = shape["negatives"] + shape["batch"] * shape["labels_per_example"]
    logits = 8 * shape["batch"] * active
    number = traffic.BYTES[dtype] + 2 * traffic.BYTES[moment_dtype]
    rows = shape["features"] + shape["labels"]
    return 0.8 + (number * rows * shape["width"] + logits) / 1e9


def hashed(shape: Shape) -> list[Job]:
    """Steps with hard negatives, and both ways to keep tables up."""
    ways = {
        "fsparse hash tables, refreshed": True,
        "fsparse hash tables, rebuilt": False,
    }
    return [
        Job(
            shape,
            system,
            _FSPARSE + "hashed",
            {"refresh": refresh},
            gigabytes=1.5 * gigabytes(shape),
        )
        for system, refresh in ways.items()
    ]


def sampled_peers(shape: Shape) -> list[Job]:
    """The same neurons in plain JAX, with dense gradients and by hand, and PyTorch."""
    counted = traffic.visits(**shape)
    by_rows = traffic.training(counted, shape["width"])
    room = gigabytes(shape)
    torch = "systems.training_torch:train"
    jax = "systems.training_jax:train"
    return [
        Job(
            shape,
            "torch sampled",
            torch,
            {"sampled": True},
            by_rows,
            room,
            "torch",
            tries_huge_pages=True,
        ),
        Job(
            shape,
            "torch sampled, bf16 products",
            torch,
            {"sampled": True, "products": "medium"},
            traffic.training(counted, shape["width"], products="bfloat16"),
            room,
            "torch",
            tries_huge_pages=True,
        ),
        Job(
            shape,
            "jax sampled, rows by hand",
            jax,
            {"how": "by hand"},
            by_rows,
            room,
            "optax",
            tries_huge_pages=True,
        ),
        Job(
            shape,
            "jax sampled",
            jax,
            {"how": "sampled"},
            gigabytes=2 * room,
            package="optax",
            is_dense=True,
        ),
    ]


def dense_peers(shape: Shape) -> list[Job]:
    """Softmax over all labels, with fused or compiled Adam."""
    sizes = shape["labels"], shape["width"], shape["batch"]
    logits = 3 * 4e-9 * shape["labels"] * shape["batch"]
    room = 2 * gigabytes(shape) + logits
    torch = "systems.training_torch:train"
    by_torch = Job(
        shape,
        "torch dense",
        torch,
        {"sampled": False},
        traffic.dense_training(*sizes, 4),
        room,
        "torch",
        is_dense=True,
    )
    bf16 = by_torch._replace(
        system="torch dense bf16",
        arguments={"sampled": False, "dtype": "bfloat16"},
        work=traffic.dense_training(*sizes, 2),
    )
    by_jax = by_torch._replace(
        system="jax dense",
        make="systems.training_jax:train",
        arguments={"how": "dense"},
        package="optax",
    )
    return [by_torch, bf16, by_jax]


def at_shape(shape: Shape, quick: bool) -> list[Job]:
    """All systems at the shape of one data set."""
    shape = TINY if quick else shape
    mine = [ours(shape, system) for system in OURS if system != HELD]
    return [*mine, *hashed(shape), *sampled_peers(shape), *dense_peers(shape)]


def scaling(quick: bool) -> list[Job]:
    """From 10,000 to 10 million labels; tables and moments in bf16, at every size."""
    sizes = (100, 1000) if quick else (10_000, 100_000, 1_000_000, 10_000_000)
    jobs = []
    for labels in sizes:
        shape = (TINY if quick else AMAZON) | {"labels": labels}
        job = ours(shape, "fsparse bf16 tables, moments")._replace(system="fsparse")
        jobs.append(job)
        if labels <= 1_000_000:  # f32 is larger than many machines' memory beyond
            in_f32 = ours(shape, "fsparse")._replace(system="fsparse f32")
            jobs += [in_f32, sampled_peers(shape)[0]]
    return jobs


def batch_sizes(quick: bool) -> list[Job]:
    """From single examples to 4,096 at once."""
    sizes = (1, 8) if quick else (1, 4, 16, 64, 256, 1024, 4096)
    jobs = []
    for batch in sizes:
        shape = (TINY if quick else AMAZON) | {"batch": batch}
        systems = ["fsparse", "fsparse, bf16 products"]
        if batch >= 1024:
            systems.append(HELD)
        mine = [ours(shape, system) for system in systems]
        jobs += [*mine, *sampled_peers(shape)[:3]]
    return jobs


def memory(quick: bool) -> list[Job]:
    """Peak memory of training, state included; ratios are of bytes."""
    return [job._replace(of_memory=True, work=()) for job in at_shape(AMAZON, quick)]


CASES = {
    "train-amazon670k": Case(
        "a training step at Amazon-670K's shape", partial(at_shape, AMAZON)
    ),
    "train-wikilshtc325k": Case(
        "a training step at WikiLSHTC-325K's shape", partial(at_shape, _WIKI)
    ),
    "train-50k": Case("a training step with 50,000 labels", partial(at_shape, _FIFTY)),
    "scaling": Case("a step with 10,000 to 10 million labels", scaling),
    "batch-size": Case("a step on 1 to 4,096 examples", batch_sizes),
    "memory": Case("peak memory of training at Amazon-670K's shape", memory),
}
