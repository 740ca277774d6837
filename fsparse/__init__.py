"""Very wide neural networks, trained and served on ordinary CPUs, from JAX."""

import importlib as _importlib
import typing as _typing
from importlib.metadata import version as _version

from fsparse import lsh, metrics, rows, samplers
from fsparse._autotune import Trial, Tuned, autotune
from fsparse._bolt import BoltConfig, bolt_autotune
from fsparse._plans import Plan, default_plans
from fsparse._warnings import EfficiencyWarning, NonFiniteWarning
from fsparse.accumulate import accumulate, clip_by_global_norm
from fsparse.active_sets import ActiveSet, active_set, sample_active_set
from fsparse.differentiate import grad, value_and_grad
from fsparse.distinct import first_distinct
from fsparse.losses import (
    fused_softmax_loss,
    sampled_sigmoid_loss,
    sampled_softmax_loss,
)
from fsparse.matmul import (
    embedding_bag,
    gather_matmul,
    sampled_matmul,
    scatter_outer,
    take_rows,
)
from fsparse.memory import use_huge_pages
from fsparse.optimizer import (
    Optimizer,
    SkipState,
    multi_transform,
    skip_nonfinite,
)
from fsparse.quantized import Int8Rows, quantize_rows
from fsparse.row_gradients import RowGrad, row_grad
from fsparse.rows import global_norm
from fsparse.table import Table
from fsparse.topk import dense_top_k, sampled_top_k

if _typing.TYPE_CHECKING:
    from fsparse import (
        adaptive,
        checkpoint,
        data,
        nn,
        pipeline,
        serve,
        sketch,
        tabular,
        train,
    )
    from fsparse.pipeline import Pipeline, export, load_exported, train_table
    from fsparse.train import Fitted, evaluate, fit, make_step, predict

__version__ = _version("fsparse")

__all__ = [
    "ActiveSet",
    "BoltConfig",
    "EfficiencyWarning",
    "Fitted",
    "Int8Rows",
    "NonFiniteWarning",
    "Optimizer",
    "Pipeline",
    "Plan",
    "RowGrad",
    "SkipState",
    "Table",
    "Trial",
    "Tuned",
    "accumulate",
    "active_set",
    "adaptive",
    "autotune",
    "bolt_autotune",
    "checkpoint",
    "clip_by_global_norm",
    "data",
    "default_plans",
    "dense_top_k",
    "embedding_bag",
    "evaluate",
    "export",
    "first_distinct",
    "fit",
    "fused_softmax_loss",
    "gather_matmul",
    "global_norm",
    "grad",
    "load_exported",
    "lsh",
    "make_step",
    "metrics",
    "multi_transform",
    "nn",
    "pipeline",
    "predict",
    "quantize_rows",
    "row_grad",
    "rows",
    "sample_active_set",
    "sampled_matmul",
    "sampled_sigmoid_loss",
    "sampled_softmax_loss",
    "sampled_top_k",
    "samplers",
    "scatter_outer",
    "serve",
    "sketch",
    "skip_nonfinite",
    "tabular",
    "take_rows",
    "train",
    "train_table",
    "use_huge_pages",
    "value_and_grad",
]


_ROOM_OF = {
    name: room
    for room, names in {
        "pipeline": ("Pipeline", "export", "load_exported", "train_table"),
        "train": ("Fitted", "evaluate", "fit", "make_step", "predict"),
        **dict.fromkeys(
            ("adaptive", "checkpoint", "data", "nn", "serve", "sketch", "tabular"), ()
        ),
    }.items()
    for name in (room, *names)
}


def __getattr__(name: str) -> _typing.Any:
    """Imports the rooms that many programs never enter where they are first named."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'fsparse' has no attribute {name!r}")
    room = _importlib.import_module(f"fsparse.{_ROOM_OF[name]}")
    return room if name == _ROOM_OF[name] else getattr(room, name)
