"""Sums of rows: the sparse input layer."""

from functools import partial

import synthetic
from jobs import Case, Job
from traffic import BYTES

_SIZES = {"rows": 670_091, "width": 128, "batch": 4096, "nonzeros": 75}
_TINY = {"rows": 300, "width": 8, "batch": 4, "nonzeros": 3}
_TORCH = "systems.bags_torch:bag"


def bags(quick: bool) -> list[Job]:
    """Forward, with ids by Zipf's law and uniform ones."""
    jobs = []
    for ids in ("Zipf", "uniform"):
        shape = (_TINY if quick else _SIZES) | {"ids": ids}
        rows = synthetic.distinct(synthetic.bag_ids(**shape)[0])
        size = shape["width"] * rows

        def work(dtype: str, size: int = size) -> tuple[dict[str, float], ...]:
            return ({"sorted_read": float(size * BYTES[dtype])},)

        peer = partial(
            Job, shape, work=work("float32"), gigabytes=1.5, tries_huge_pages=True
        )
        f32, bf16 = {"dtype": "float32"}, {"dtype": "bfloat16"}
        made = "systems.bags:"
        jobs += [
            Job(shape, "fsparse", made + "fsparse_bag", f32, work("float32")),
            Job(shape, "fsparse bf16", made + "fsparse_bag", bf16, work("bfloat16")),
            peer("torch EmbeddingBag", _TORCH, package="torch"),
            peer("jax take, sum", made + "plain_bag"),
        ]
    return jobs


CASES = {"embedding-bag": Case("sums of 75 rows for each example", bags)}
