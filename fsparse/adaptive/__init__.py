"""Adaptive sampling: which candidates to train on, by scores, and without bias."""

from fsparse.adaptive._carry import (
    CarryOver,
    carry_init,
    carry_pop,
    carry_push,
    threshold,
)
from fsparse.adaptive._exact_scorers import exact, exact_kernel
from fsparse.adaptive._gain import Gain, gain_init, gain_update, variance_reduction
from fsparse.adaptive._grain import grain_dataset
from fsparse.adaptive._infobatch import infobatch, infobatch_epoch, infobatch_step
from fsparse.adaptive._iterator import AdaptiveIterator
from fsparse.adaptive._mixing import mixed
from fsparse.adaptive._paper import paper_step
from fsparse.adaptive._pools import Pool, Pools, pool_order
from fsparse.adaptive._scorers import Scorer, cache, class_mean, uniform
from fsparse.adaptive._selection import (
    Selection,
    Selector,
    effective_sample_size,
    priority,
    systematic,
    take_selected,
    top,
)
from fsparse.adaptive._sketched import excess, sketched
from fsparse.adaptive._step import (
    AdaptiveInfo,
    AdaptiveState,
    AdaptiveStep,
    adaptive_step,
)
from fsparse.adaptive._targets import (
    binary_gradient_norm,
    excess_loss,
    sampled_softmax_gradient_norm,
    softmax_gradient_norm,
)
from fsparse.adaptive._threshold_step import (
    ThresholdInfo,
    ThresholdState,
    ThresholdStep,
    threshold_step,
)

__all__ = [
    "AdaptiveInfo",
    "AdaptiveIterator",
    "AdaptiveState",
    "AdaptiveStep",
    "CarryOver",
    "Gain",
    "Pool",
    "Pools",
    "Scorer",
    "Selection",
    "Selector",
    "ThresholdInfo",
    "ThresholdState",
    "ThresholdStep",
    "adaptive_step",
    "binary_gradient_norm",
    "cache",
    "carry_init",
    "carry_pop",
    "carry_push",
    "class_mean",
    "effective_sample_size",
    "exact",
    "exact_kernel",
    "excess",
    "excess_loss",
    "gain_init",
    "gain_update",
    "grain_dataset",
    "infobatch",
    "infobatch_epoch",
    "infobatch_step",
    "mixed",
    "paper_step",
    "pool_order",
    "priority",
    "sampled_softmax_gradient_norm",
    "sketched",
    "softmax_gradient_norm",
    "systematic",
    "take_selected",
    "threshold",
    "threshold_step",
    "top",
    "uniform",
    "variance_reduction",
]
