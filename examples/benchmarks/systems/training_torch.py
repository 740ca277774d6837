"""The same step in PyTorch: all labels with fused Adam, some with SparseAdam."""

import os
from collections.abc import Callable
from itertools import cycle

import synthetic
import torch

Tensor = torch.Tensor


def use_all_cores() -> None:
    """As many threads as this process may use; small floats are flushed, as in XLA."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)


def random_table(n: int, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A parameter with rows of a length near 0.5, every page of it touched."""
    return torch.nn.Parameter((0.5 / d**0.5 * torch.randn(n, d)).to(dtype))


def train(
    features: int,
    nonzeros: int,
    labels: int,
    labels_per_example: int,
    width: int,
    batch: int,
    negatives: int,
    sampled: bool,
    dtype: str = "float32",
    products: str = "highest",
) -> Callable[[], None]:
    """A step in place. The bag is sparse in both."""
    use_all_cores()
    torch.set_float32_matmul_precision(products)
    embedding = random_table(features, width)
    output = random_table(labels, width, getattr(torch, dtype))
    wide = [embedding, output] if sampled else [embedding]
    optimizers = [torch.optim.SparseAdam(wide, lr=1e-3)]
    if not sampled:
        optimizers += [torch.optim.Adam([output], lr=1e-3, fused=True)]
    loss_of = sampled_loss if sampled else dense_loss
    data = cycle(as_tensors(features, nonzeros, labels, labels_per_example, batch))

    def call() -> None:
        ids, targets = next(data)
        bag = torch.nn.functional.embedding_bag(ids, embedding, mode="sum", sparse=True)
        loss = loss_of(torch.relu(bag), output, targets, negatives)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return call


def sampled_loss(h: Tensor, output: Tensor, targets: Tensor, negatives: int) -> Tensor:
    """Over the batch's labels and uniform ones."""
    drawn = torch.randint(len(output), (negatives,), dtype=targets.dtype)
    active = torch.unique(torch.cat([targets.flatten(), drawn]))
    rows = torch.nn.functional.embedding(active, output, sparse=True)
    return cross_entropy(h @ rows.T, torch.searchsorted(active, targets))


def dense_loss(h: Tensor, output: Tensor, targets: Tensor, negatives: int) -> Tensor:
    """Over all labels."""
    del negatives
    return cross_entropy(h.to(output.dtype) @ output.T, targets)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over examples, whose labels share the mass."""
    chosen = logits.gather(1, targets).mean(1)
    return (torch.logsumexp(logits, 1) - chosen).mean()


def as_tensors(*shape: int) -> list[tuple[Tensor, Tensor]]:
    """The batches, in the integers that PyTorch indexes by."""
    return [
        (torch.from_numpy(x.astype("int64")), torch.from_numpy(y.astype("int64")))
        for x, y in synthetic.batches(*shape)
    ]
