"""PyTorch's optimizers that take sparse gradients."""

from collections.abc import Callable

import torch

from systems.optimizers import named
from systems.training_torch import random_table, use_all_cores

_RULES = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.SparseAdam,
}


def update(
    labels: int, width: int, rows_named: int, optimizer: str
) -> Callable[[], None]:
    """From a sorted, coalesced gradient: sorting is not charged."""
    use_all_cores()
    table = random_table(labels, width)
    rule = _RULES[optimizer]([table], lr=1e-3)
    ids = torch.from_numpy(named(labels, rows_named)).long()[None]
    values = torch.randn(rows_named, width)
    table.grad = torch.sparse_coo_tensor(ids, values, table.shape).coalesce()
    return lambda: rule.step()
