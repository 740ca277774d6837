"""Losses of heads, by name: functions of logits, targets and which are active."""

from fsparse.losses import sampled_sigmoid_loss, sampled_softmax_loss

OBJECTIVES = {"softmax": sampled_softmax_loss, "sigmoid": sampled_sigmoid_loss}
