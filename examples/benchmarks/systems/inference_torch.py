"""Exact search by a matmul in PyTorch."""

from collections.abc import Callable
from itertools import cycle

import torch

from systems.training_torch import use_all_cores

_NUM_QUERIES = 64


def top_k(
    labels: int, width: int, k: int, batch: int, dtype: str
) -> Callable[[], None]:
    """The largest of all products; one query is a matrix times a vector."""
    use_all_cores()
    table = torch.randn(labels, width).to(getattr(torch, dtype))
    asked = cycle(torch.randn(_NUM_QUERIES, batch, width).to(table.dtype))

    @torch.inference_mode()
    def call() -> None:
        x = next(asked)
        scores = torch.mv(table, x[0])[None] if batch == 1 else x @ table.T
        torch.topk(scores, k)

    return call
