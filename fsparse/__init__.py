"""Very wide neural networks, trained and served on ordinary CPUs, from JAX."""

from importlib.metadata import version as _version

from fsparse import rows
from fsparse.matmul import (
    embedding_bag,
    gather_matmul,
    sampled_matmul,
    scatter_outer,
    take_rows,
)
from fsparse.rows import RowGrad, row_grad
from fsparse.topk import dense_top_k

__version__ = _version("fsparse")

__all__ = [
    "RowGrad",
    "dense_top_k",
    "embedding_bag",
    "gather_matmul",
    "row_grad",
    "rows",
    "sampled_matmul",
    "scatter_outer",
    "take_rows",
]
