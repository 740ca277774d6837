"""The model of examples/extreme_model.py in PyTorch, for comparison."""

from collections.abc import Callable

import jax
import numpy as np
import torch
from extreme_model import Config, Params
from torch.nn.functional import embedding, embedding_bag, normalize

from fsparse.data import Batch
from systems.training_torch import use_all_cores


def step(config: Config, params: Params, *, sampled: bool) -> Callable[[Batch], float]:
    """A step of training by Adam from a copy of `params`; returns the loss."""
    use_all_cores()
    table, *hidden, output = (
        torch.nn.Parameter(torch.tensor(np.asarray(leaf)))
        for leaf in jax.tree.leaves(params)
    )
    sparse = [{"params": [table], "lr": config.embedding_learning_rate}]
    dense = hidden
    if sampled:
        sparse.append({"params": [output], "lr": config.learning_rate})
    else:
        dense = [*hidden, output]
    optimizers = [
        torch.optim.SparseAdam(sparse),
        torch.optim.Adam(dense, lr=config.learning_rate, fused=True),
    ]

    def run(batch: Batch) -> float:
        features, weights, labels = _tensors(batch)
        h = _hidden(config, table, hidden, features, weights)
        if sampled:
            loss = _sampled_loss(config, h, output, labels)
        else:
            loss = _loss(h @ output.T, labels, output.shape[0])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return run


def _tensors(batch: Batch) -> list[torch.Tensor]:
    """Ids, weights and labels; padding becomes row 0 with a weight of 0."""
    weights = np.asarray(batch.feature_weights)
    ids = np.where(weights != 0, np.asarray(batch.feature_ids), 0)
    arrays = (ids, weights, np.asarray(batch.label_ids))
    return [torch.from_numpy(np.array(a)) for a in arrays]


def _hidden(
    config: Config,
    table: torch.Tensor,
    hidden: list[torch.Tensor],
    features: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    w, b, v = hidden
    bag = embedding_bag(
        features, table, per_sample_weights=weights, mode="sum", sparse=True
    )
    u = normalize(bag)
    h = normalize(u + torch.relu(config.width**0.5 * u @ w.T + b) @ v.T)
    return torch.cat([config.scale * h[:, :-1], torch.ones_like(h[:, :1])], dim=1)


def _sampled_loss(
    config: Config, h: torch.Tensor, output: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Over the labels of the batch and uniform negatives."""
    n = output.shape[0]
    negatives = torch.randint(n, (config.num_negatives,))
    drawn = torch.cat([labels[labels < n].long(), negatives])
    active = torch.unique(drawn)
    targets = torch.where(labels < n, torch.searchsorted(active, labels.long()), n)
    rows = embedding(active, output, sparse=True)
    return _loss(h @ rows.T, targets, n)


def _loss(logits: torch.Tensor, targets: torch.Tensor, padding: int) -> torch.Tensor:
    """Mean cross-entropy of the labels, each against all columns."""
    row, column = torch.nonzero(targets != padding, as_tuple=True)
    target = targets[row, column].long()
    return torch.mean(torch.logsumexp(logits, dim=1)[row] - logits[row, target])
