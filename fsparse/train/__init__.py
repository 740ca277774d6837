"""Training, evaluation and prediction: loops around one compiled step."""

from fsparse.train._callbacks import TensorBoard
from fsparse.train._evaluate import evaluate, predict
from fsparse.train._fit import Fitted, Interrupted, fit
from fsparse.train._history import History, plot
from fsparse.train._loop import Every
from fsparse.train._step import (
    Adaptive,
    Model,
    Step,
    StepInfo,
    TrainState,
    default_optimizer,
    make_step,
)

__all__ = [
    "Adaptive",
    "Every",
    "Fitted",
    "History",
    "Interrupted",
    "Model",
    "Step",
    "StepInfo",
    "TensorBoard",
    "TrainState",
    "default_optimizer",
    "evaluate",
    "fit",
    "make_step",
    "plot",
    "predict",
]
