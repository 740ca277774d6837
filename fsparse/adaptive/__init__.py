"""Adaptive sampling: which candidates to train on, by scores, and without bias."""

from fsparse.adaptive._carry import (
    CarryOver,
    carry_init,
    carry_pop,
    carry_push,
    threshold,
)
from fsparse.adaptive._gain import Gain, gain_init, gain_update, variance_reduction
from fsparse.adaptive._mixing import mixed
from fsparse.adaptive._selection import (
    Selection,
    Selector,
    effective_sample_size,
    priority,
    systematic,
    take_selected,
    top,
)
from fsparse.adaptive._targets import (
    binary_gradient_norm,
    excess_loss,
    sampled_softmax_gradient_norm,
    softmax_gradient_norm,
)

__all__ = [
    "CarryOver",
    "Gain",
    "Selection",
    "Selector",
    "binary_gradient_norm",
    "carry_init",
    "carry_pop",
    "carry_push",
    "effective_sample_size",
    "excess_loss",
    "gain_init",
    "gain_update",
    "mixed",
    "priority",
    "sampled_softmax_gradient_norm",
    "softmax_gradient_norm",
    "systematic",
    "take_selected",
    "threshold",
    "top",
    "variance_reduction",
]
