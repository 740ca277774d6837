"""The model for very many labels, ready to train."""

from typing import Any

from fsparse import _checks
from fsparse.nn._activation import Activation
from fsparse.nn._classifier import Classifier
from fsparse.nn._embedding import EmbeddingBag
from fsparse.nn._linear import Linear
from fsparse.nn._norms import UnitNorm
from fsparse.nn._sequential import Residual, Sequential
from fsparse.nn._sparse_linear import SparseLinear


def extreme_classifier(
    num_features: int,
    num_labels: int,
    *,
    width: int = 128,
    length: float = 12.0,
    dtype: str = "float32",
    **head: Any,
) -> Classifier:
    """A classifier of very many labels: embedding bag, hidden layer, wide output.

    ``u = bag(ids, weights)`` of length ``sqrt(d)``; ``h = u + v relu(w u + b)`` of
    length ``length``, with ``v`` zero at first, so that examples start at the mean of
    their features; ``logits = [h, 1] . table[active]``.

    Args:
      num_features: rows of the embedding bag.
      num_labels: rows of the output.
      width: of the output's rows, the bias among them: ``d = width - 1``. A multiple
        of 16 is fastest.
      length: of ``h``, the largest logit of a unit row.
      dtype: of both tables, "float32" or "bfloat16".
      **head: further settings of :class:`SparseLinear`, such as ``num_negatives``.

    Returns:
      A :class:`Classifier`, to which parts can be added by making one by hand.

    Raises:
      TypeError: if a size is no integer, or ``head`` has a setting that is none.
      ValueError: if a number is out of range.

    Example:
      >>> model = extreme_classifier(1000, 500, width=16, num_negatives=64)
      >>> model.head.width, model.head.num_labels
      (15, 500)
    """
    fn = "nn.extreme_classifier"
    _checks.require_count(fn, 2, width=width)
    d = width - 1
    hidden = Sequential(
        (
            Linear(d, d, init_scale=2**0.5),
            Activation("relu"),
            Linear(d, d, bias=False, init_scale=0.0),
        )
    )
    body = Sequential(
        (
            EmbeddingBag(num_features, d, dtype=dtype),
            UnitNorm(d**0.5),
            Residual(hidden),
            UnitNorm(length),
        )
    )
    return Classifier(body, SparseLinear(d, num_labels, dtype=dtype, **head))
