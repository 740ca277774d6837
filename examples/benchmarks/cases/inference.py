"""The best five labels: by exact search and by hash tables, for one query and many."""

from jobs import Case, Job, Phase, Shape
from traffic import BYTES

import fsparse

_SIZES = {"labels": 670_091, "width": 128, "k": 5}
_TINY = {"labels": 3000, "width": 16, "k": 5}
_MODULE = "systems.inference:"
_TORCH = "systems.inference_torch:top_k"
DENSE: dict[str, str] = {  # system -> type of the weights
    "fsparse": "float32",
    "fsparse bf16": "bfloat16",
    **({"fsparse int8": "int8"} if hasattr(fsparse, "quantize_rows") else {}),
}


def read_all(shape: Shape, dtype: str) -> tuple[Phase, ...]:
    """Each row once, and a product of it with each query."""
    flops = "flops_f32" if dtype == "float32" else "flops_bf16"
    numbers = shape["labels"] * shape["width"]
    read = numbers * BYTES[dtype]
    return ({"read": read, flops: 2.0 * numbers * shape["batch"]},)


def dense(quick: bool) -> list[Job]:
    """Ours in each type of weights, beside matmul and top-k."""
    jobs = []
    for batch in (1, 4) if quick else (1, 16, 256):
        shape = (_TINY if quick else _SIZES) | {"batch": batch}
        tail, room = batch == 1, 1.5 + 8e-9 * shape["labels"] * batch
        for system, dtype in DENSE.items():
            work = read_all(shape, dtype)
            make = _MODULE + "dense"
            jobs.append(Job(shape, system, make, {"dtype": dtype}, work, room))
        f32, bf16 = read_all(shape, "float32"), read_all(shape, "bfloat16")
        peers = [
            Job(shape, "jax matmul, top_k", _MODULE + "plain", {}, f32, room),
            Job(
                shape, "torch matmul, topk", _TORCH, {"dtype": "float32"}, f32, room
            )._replace(package="torch"),
            Job(
                shape, "torch matmul, topk bf16", _TORCH, {"dtype": "bfloat16"}, bf16
            )._replace(package="torch", gigabytes=room),
        ]
        alone = batch == 1
        jobs += [
            job._replace(is_dense=not alone, tries_huge_pages=alone) for job in peers
        ]
        jobs = [job._replace(has_tail=True) if tail else job for job in jobs]
    return [job._replace(has_tail=job.shape["batch"] == 1) for job in jobs]


def sparse(quick: bool) -> list[Job]:
    """Half a percent of the rows scored, beside exact search by us and by peers."""
    jobs = []
    for batch in (1, 4) if quick else (1, 16, 256):
        shape = (_TINY if quick else _SIZES) | {"batch": batch}
        size = shape["labels"] // 200
        scored = ({"random_read": 4.0 * shape["width"] * size * batch},)
        arguments = {"size": size}
        make = _MODULE + "sparse"
        jobs += [
            Job(shape, "fsparse", make, arguments, scored, 2.0),
            Job(
                shape,
                "fsparse dense",
                _MODULE + "dense",
                {"dtype": "float32"},
                read_all(shape, "float32"),
                1.5,
            ),
            Job(
                shape,
                "torch matmul, topk",
                _TORCH,
                {"dtype": "float32"},
                read_all(shape, "float32"),
                1.5 + 8e-9 * shape["labels"] * batch,
                "torch",
            ),
        ]
    return [job._replace(has_tail=job.shape["batch"] == 1) for job in jobs]


CASES = {
    "inference-dense": Case("the 5 best of all 670,091 rows, exactly", dense),
    "inference-sparse": Case("the 5 best of the rows that hash tables find", sparse),
}
