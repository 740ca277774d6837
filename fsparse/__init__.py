"""Very wide neural networks, trained and served on ordinary CPUs, from JAX."""

from importlib.metadata import version as _version

from fsparse import (
    adaptive,
    checkpoint,
    data,
    lsh,
    metrics,
    nn,
    pipeline,
    rows,
    samplers,
    sketch,
    tabular,
    train,
)
from fsparse._autotune import Trial, Tuned, autotune
from fsparse._bolt import BoltConfig, bolt_autotune
from fsparse._plans import Plan, default_plans
from fsparse._warnings import EfficiencyWarning, NonFiniteWarning
from fsparse.accumulate import accumulate, clip_by_global_norm
from fsparse.active_sets import ActiveSet, active_set, sample_active_set
from fsparse.differentiate import grad, value_and_grad
from fsparse.distinct import first_distinct
from fsparse.losses import sampled_sigmoid_loss, sampled_softmax_loss
from fsparse.matmul import (
    embedding_bag,
    gather_matmul,
    sampled_matmul,
    scatter_outer,
    take_rows,
)
from fsparse.optimizer import (
    Optimizer,
    SkipState,
    multi_transform,
    skip_nonfinite,
)
from fsparse.pipeline import Pipeline, export, load_exported, train_table
from fsparse.row_gradients import RowGrad, row_grad
from fsparse.rows import global_norm
from fsparse.table import Table
from fsparse.topk import dense_top_k, sampled_top_k
from fsparse.train import Fitted, evaluate, fit, make_step, predict

__version__ = _version("fsparse")

__all__ = [
    "ActiveSet",
    "BoltConfig",
    "EfficiencyWarning",
    "Fitted",
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
    "row_grad",
    "rows",
    "sample_active_set",
    "sampled_matmul",
    "sampled_sigmoid_loss",
    "sampled_softmax_loss",
    "sampled_top_k",
    "samplers",
    "scatter_outer",
    "sketch",
    "skip_nonfinite",
    "tabular",
    "take_rows",
    "train",
    "train_table",
    "value_and_grad",
]
