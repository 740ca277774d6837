"""Layers, heads and models: static specifications, pure functions, explicit state.

A layer says what it does and holds no arrays::

    layer = nn.Linear(128, 10)
    params, state = layer.init(key)
    y, state = layer.apply(params, state, x, key=key, train=True)

``params`` and ``state`` are pytrees; wide tables among them are :class:`fsparse.Table`,
of which :func:`fsparse.value_and_grad` gives row gradients. A head is a last layer: it
has ``loss`` and ``top_k`` beside. A model is a :class:`fsparse.train.Model`, with
``init``, ``loss`` and ``predict`` of batches. All of it is ordinary JAX: ``jit``,
``vmap`` over models, ``scan`` over steps.
"""

from fsparse.nn._activation import Activation
from fsparse.nn._classifier import Classifier
from fsparse.nn._combine import Concatenate, DotProduct
from fsparse.nn._config import from_config, to_config
from fsparse.nn._dropout import Dropout
from fsparse.nn._embedding import EmbeddingBag
from fsparse.nn._extreme import extreme_classifier
from fsparse.nn._graph import Graph
from fsparse.nn._hashed_embedding import HashedEmbedding
from fsparse.nn._linear import Linear
from fsparse.nn._mach import Mach
from fsparse.nn._norms import LayerNorm, UnitNorm
from fsparse.nn._sequential import Residual, Sequential
from fsparse.nn._softmax import Softmax
from fsparse.nn._sparse_linear import SparseLinear
from fsparse.nn._spec import Head, Layer
from fsparse.nn._summary import summary
from fsparse.nn._two_tower import TwoTower

__all__ = [
    "Activation",
    "Classifier",
    "Concatenate",
    "DotProduct",
    "Dropout",
    "EmbeddingBag",
    "Graph",
    "HashedEmbedding",
    "Head",
    "Layer",
    "LayerNorm",
    "Linear",
    "Mach",
    "Residual",
    "Sequential",
    "Softmax",
    "SparseLinear",
    "TwoTower",
    "UnitNorm",
    "extreme_classifier",
    "from_config",
    "summary",
    "to_config",
]
