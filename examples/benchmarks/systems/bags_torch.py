"""PyTorch's embedding bag."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import synthetic
import torch

from systems.training_torch import use_all_cores


def bag(width: int, **shape: Any) -> Callable[[], None]:
    """Forward only."""
    use_all_cores()
    table = torch.randn(shape["rows"], width)
    ids = synthetic.bag_ids(**shape).astype("int64")
    batches = cycle(torch.from_numpy(ids))

    @torch.inference_mode()
    def call() -> None:
        torch.nn.functional.embedding_bag(next(batches), table, mode="sum")

    return call
