"""From rows of a table to labels: a fitted schema and a trained model, in one file."""

from fsparse.pipeline._explain import Reason
from fsparse.pipeline._export import Exported, export, load_exported
from fsparse.pipeline._pipeline import Pipeline, Prediction, Search
from fsparse.pipeline._predictor import TablePredictor
from fsparse.pipeline._train import default_model, train_table

__all__ = [
    "Exported",
    "Pipeline",
    "Prediction",
    "Reason",
    "Search",
    "TablePredictor",
    "default_model",
    "export",
    "load_exported",
    "train_table",
]
