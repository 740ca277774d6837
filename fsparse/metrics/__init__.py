"""How good predictions are: of each example by functions, of a data set by names."""

from fsparse.metrics._named import Metric, Ranked, find
from fsparse.metrics._ranking import (
    count_labels,
    hit_at,
    hits,
    inverse_propensities,
    ndcg_at,
    precision_at,
    propensity_gains,
    recall_at,
)
from fsparse.metrics._scores import Auc, Mean, auc, log_loss

__all__ = [
    "Auc",
    "Mean",
    "Metric",
    "Ranked",
    "auc",
    "count_labels",
    "find",
    "hit_at",
    "hits",
    "inverse_propensities",
    "log_loss",
    "ndcg_at",
    "precision_at",
    "propensity_gains",
    "recall_at",
]
