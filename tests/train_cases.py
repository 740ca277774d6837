"""A small model and data for the training loop, and what its tests share."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import fsparse
from fsparse import Table, adaptive, train
from fsparse.data import Dataset, from_lists

NUM_FEATURES, NUM_LABELS = 12, 6
ADAPTIVE = train.Adaptive(
    adaptive.class_mean(lambda batch: batch.label_ids[:, 0], NUM_LABELS), pool=2
)


@dataclass(frozen=True)
class Tiny:
    """A bag of features to labels: a table, dense parameters, noise and a counter."""

    num_features: int = NUM_FEATURES
    num_labels: int = NUM_LABELS
    noise: float = 0.01

    def init(self, key):
        w = 0.1 * jax.random.normal(key, (self.num_features, self.num_labels))
        return {"w": Table(w), "bias": jnp.zeros(self.num_labels)}, {"calls": 0}

    def logits(self, params, batch):
        ids, weights = batch.feature_ids, batch.feature_weights
        return fsparse.embedding_bag(params["w"], ids, weights) + params["bias"]

    def loss(self, params, state, batch, *, key=None, train=True):
        logits = self.logits(params, batch)
        if train:
            logits += self.noise * jax.random.normal(key, logits.shape)
            state = {"calls": state["calls"] + 1}
        active = jnp.ones(self.num_labels, bool)
        return fsparse.sampled_softmax_loss(logits, batch.label_ids, active), state

    def predict(self, params, state, batch, k):
        return jax.lax.top_k(self.logits(params, batch), k)


def examples(m, seed=0, num_features=NUM_FEATURES, num_labels=NUM_LABELS):
    """Examples with a feature for their label, most of the time, and others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_labels, size=m)
    telling = np.where(rng.random(m) < 0.1, rng.integers(num_labels, size=m), labels)
    others = [rng.integers(num_labels, num_features, rng.integers(3)) for _ in range(m)]
    features = [[int(f), *o.tolist()] for f, o in zip(telling, others, strict=True)]
    labels = [[int(label)] for label in labels]
    return Dataset(from_lists(features, num_features), from_lists(labels, num_labels))


def arrays_of(tree):
    """Leaves as numbers, typed keys too."""
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    ]
    return [np.asarray(x) for x in leaves]


def assert_same_bits(one, other):
    ours, its = arrays_of(one), arrays_of(other)
    assert len(ours) == len(its)
    for a, b in zip(ours, its, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def course(history):
    """Without the times."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history]
