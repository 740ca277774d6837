"""Very wide neural networks, trained and served on ordinary CPUs, from JAX."""

from importlib.metadata import version as _version

from fsparse import checkpoint, data, metrics, rows
from fsparse.differentiate import grad, value_and_grad
from fsparse.losses import sampled_softmax_loss
from fsparse.matmul import (
    embedding_bag,
    gather_matmul,
    sampled_matmul,
    scatter_outer,
    take_rows,
)
from fsparse.row_grad import RowGrad, row_grad
from fsparse.sampling import ActiveSet, shared_active_set
from fsparse.table import Table
from fsparse.topk import dense_top_k

__version__ = _version("fsparse")

__all__ = [
    "ActiveSet",
    "RowGrad",
    "Table",
    "checkpoint",
    "data",
    "dense_top_k",
    "embedding_bag",
    "gather_matmul",
    "grad",
    "metrics",
    "row_grad",
    "rows",
    "sampled_matmul",
    "sampled_softmax_loss",
    "scatter_outer",
    "shared_active_set",
    "take_rows",
    "value_and_grad",
]
