"""Evaluation and prediction: of every example once, against brute force."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.stats import rankdata
from train_cases import Tiny, examples

from fsparse import adaptive, data, evaluate, predict
from fsparse.data import Dataset, from_lists
from fsparse.metrics import auc, find, inverse_propensities, log_loss

N, M = 6, 23
NAMES = ["p@2", "hit@3", "recall@2", "ndcg@4", "psp@2", "loss", "log_loss"]


@dataclass(frozen=True)
class Fixed:
    """Scores that the parameters are, one row for each value of the first feature."""

    num_labels: int = N

    def init(self, key):
        return jnp.zeros((M, self.num_labels)), ()

    def loss(self, params, state, batch, *, key=None, train=True):
        assert key is not None
        assert not train
        return params[batch.feature_ids[:, 0], 0], state

    def predict(self, params, state, batch, k):
        return jax.lax.top_k(params[batch.feature_ids[:, 0]], k)


def dataset(label_lists, n=N):
    rows = [[i] for i in range(len(label_lists))]
    return Dataset(from_lists(rows, M), from_lists(label_lists, n))


@pytest.fixture
def lists(rng):
    """Up to three labels each; some examples have none."""
    return [rng.choice(N, rng.integers(0, 4), replace=False).tolist() for _ in range(M)]


def brute_force(scores, lists, weights):
    """Means over the examples that have labels, one label after another."""
    order = np.argsort(-scores, axis=1)
    sums = {name: [] for name in ["p@2", "hit@3", "recall@2", "ndcg@4", "log_loss"]}
    gained = possible = 0.0
    for row, own in zip(order, map(set, lists), strict=True):
        if not own:
            continue
        hit = [i in own for i in row.tolist()]
        sums["p@2"].append(sum(hit[:2]) / 2)
        sums["hit@3"].append(any(hit[:3]))
        sums["recall@2"].append(sum(hit[:2]) / len(own))
        discounts = 1 / np.log2(np.arange(4) + 2)
        best = discounts[: min(4, len(own))].sum()
        sums["ndcg@4"].append(discounts @ hit[:4] / best)
        gained += sum(weights[i] for i in row[:2] if i in own)
        possible += sum(sorted((weights[i] for i in own), reverse=True)[:2])
    for x, own in zip(scores, lists, strict=True):
        if own:
            sums["log_loss"].append(special.logsumexp(x) - np.mean(x[own]))
    figures = {name: np.mean(values) for name, values in sums.items()}
    return figures | {"psp@2": gained / possible, "loss": np.mean(scores[:, 0])}


def test_metrics_are_those_of_brute_force(rng, lists):
    """The last batch has 23 - 2 * 8 = 7 examples and one of padding."""
    scores = rng.standard_normal((M, N)).astype(np.float32)
    weights = inverse_propensities(rng.integers(1, 50, N), 100)
    options = {"batch_size": 8, "label_weights": weights}
    found = evaluate(Fixed(), scores, (), dataset(lists), NAMES, **options)
    wanted = brute_force(scores.astype(np.float64), lists, weights)
    assert found.keys() == wanted.keys()
    for name in NAMES:
        assert found[name] == pytest.approx(wanted[name], rel=1e-5), name


def test_streams_give_the_same(rng, lists):
    """Short batches, pools with invalid examples, and batches as dicts."""
    scores = rng.standard_normal((M, N)).astype(np.float32)
    whole = dataset(lists)
    room = {"feature_capacity": 1, "label_capacity": 3}
    names = ["p@1", "loss"]
    wanted = evaluate(Fixed(), scores, (), whole, names, batch_size=8)

    def stream(epoch):
        assert epoch == 0
        (batch,) = data.batches(whole, np.arange(M), M, **room)
        yield data.Batch(*(x[:5] for x in batch))
        ids = np.r_[5:M, 0, 0].astype(int)
        yield adaptive.Pool(data.Batch(*(x[ids] for x in batch)), ids > 0)

    found = evaluate(Fixed(), scores, (), stream, names, batch_size=20)
    assert found == pytest.approx(wanted, rel=1e-6)
    scores_of, ids = predict(Fixed(), scores, (), stream, 2, batch_size=20)
    np.testing.assert_array_equal(ids, np.argsort(-scores, axis=1)[:, :2])
    np.testing.assert_array_equal(scores_of[:, 0], scores.max(1))


@pytest.mark.parametrize("n", [1, 2])
def test_binary_models(rng, n):
    """Of a single label, examples without it are the negative ones."""
    scores = rng.integers(-3, 4, (M, n)).astype(np.float32)
    positive = rng.random(M) < 0.4
    lists = [[n - 1] if p else [0] * (n - 1) for p in positive]
    margin = scores[:, -1] - (scores[:, 0] if n == 2 else 0)
    found = evaluate(Fixed(n), scores, (), dataset(lists, n), ["auc", "log_loss"])
    ranks = rankdata(margin)[positive]
    p, q = positive.sum(), (~positive).sum()
    area = (ranks.sum() - p * (p + 1) / 2) / (p * q)
    losses = np.logaddexp(0, np.where(positive, -margin, margin))
    assert found["auc"] == pytest.approx(area, rel=1e-12)
    assert found["log_loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_examples_without_a_label_are_unknown_to_an_auc_of_two():
    scores = np.array([[0, 1], [1, 0], [0, 9]], np.float32)
    found = evaluate(Fixed(2), scores, (), dataset([[1], [0], []], 2), ["auc", "p@1"])
    assert found == {"auc": 1.0, "p@1": 1.0}


def test_auc_of_all_pairs(rng):
    for levels in (2, 5, 1000):
        scores = rng.integers(0, levels, 60) / levels
        positive = rng.random(60) < 0.3
        pairs = np.sign(scores[positive][:, None] - scores[~positive][None])
        assert auc(scores, positive) == pytest.approx((1 + pairs.mean()) / 2, rel=1e-14)


def test_auc_at_its_edges():
    inf, nan = np.inf, np.nan
    assert auc([-inf, 0.0, inf], [False, False, True]) == 1
    assert auc([inf, inf], [False, True]) == 0.5
    assert auc([-0.0, 0.0], [False, True]) == 0.5
    assert np.isnan(auc([nan, 1.0], [False, True]))
    assert np.isnan(auc([1.0, 2.0], [True, True]))
    assert np.isnan(auc([], []))
    with pytest.raises(ValueError, match="vectors of one length"):
        auc([1.0], [True, False])


def test_scores_that_are_not_finite():
    """Ranks are the model's; means with NaN are NaN."""
    scores = np.array([[np.nan, 0], [0, 1], [-np.inf, 0]], np.float32)
    names = ["log_loss", "auc", "loss", "p@1"]
    found = evaluate(Fixed(2), scores, (), dataset([[0], [1], [1]], 2), names)
    assert all(np.isnan(found[name]) for name in ["log_loss", "auc", "loss"])
    _, ids = predict(Fixed(2), scores, (), dataset([[0], [1], [1]], 2), 1)
    assert found["p@1"] == np.mean(ids[:, 0] == [0, 1, 1])
    ids, label = jnp.array([[0, 1]]), jnp.array([[0]])
    loss = log_loss(jnp.array([[-jnp.inf, 0.0]]), ids, label, num_labels=2)
    assert loss[0] == jnp.inf


def test_no_label_at_all_is_nan():
    found = evaluate(Fixed(), np.zeros((M, N), np.float32), (), dataset([[], []]))
    assert found["loss"] == 0
    assert np.isnan(found["p@1"])


def test_prediction_is_in_order_and_without_padding():
    model, whole = Tiny(), examples(10)
    params, state = model.init(jax.random.key(0))
    scores, ids = predict(model, params, state, whole, 3, batch_size=4)
    (batch,) = data.batches(
        whole, np.arange(10), 10, feature_capacity=3, label_capacity=1
    )
    wanted = model.predict(params, state, batch, 3)
    np.testing.assert_allclose(scores, wanted[0], rtol=1e-6)
    np.testing.assert_array_equal(ids, wanted[1])
    assert ids.dtype == np.int32


# ---- refusals ----------------------------------------------------------------------


EMPTY = Dataset(from_lists([], M), from_lists([], N))
UNEQUAL = Dataset(from_lists([[0]], M), from_lists([[0], [1]], N))
SCORES = np.zeros((M, N), np.float32)


class Nameless:
    """A model that does not say how many labels it has."""

    init = loss = None

    def predict(self, params, state, batch, k): ...


REFUSALS = {
    "unknown": (["accuracy"], dataset([[0]]), "one of p@k, hit@k, recall@k, ndcg@k"),
    "no cut-off": (["p@0"], dataset([[0]]), "got 'p@0'"),
    "too many": (["p@9"], dataset([[0]]), "no more labels than there are, 6; got p@9"),
    "many labels": (["auc"], dataset([[0]]), "must have 1 label, or 2"),
    "no weights": (["psp@1"], dataset([[0]]), "Pass label_weights="),
    "empty": (["loss"], EMPTY, "at least 1 example; got 0"),
    "empty stream": (["loss"], lambda epoch: [], "at least 1 example; got 0"),
    "unequal": (["loss"], UNEQUAL, "got 1 and 2 rows"),
}


@pytest.mark.parametrize(("names", "data", "words"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(names, data, words):
    with pytest.raises(ValueError, match=r"must") as e:
        evaluate(Fixed(), SCORES, (), data, names)
    assert words in str(e.value)


def test_refusals_of_types():
    with pytest.raises(TypeError, match="Wrap an iterator in a function"):
        evaluate(Fixed(), SCORES, (), iter([]))
    with pytest.raises(TypeError, match="which lacks init, loss, predict"):
        evaluate(object(), SCORES, (), dataset([[0]]))
    with pytest.raises(TypeError, match="must have label_ids"):
        evaluate(Fixed(), SCORES, (), [{"feature_ids": np.zeros((2, 1), int)}], ["p@1"])
    with pytest.raises(ValueError, match="without num_labels"):
        evaluate(Nameless(), SCORES, (), [{"label_ids": np.zeros((2, 1), int)}])
    with pytest.raises(ValueError, match=r"arrays of shapes \[\(3,\)\]"):
        evaluate(Fixed(), SCORES, (), [np.zeros(3)], ["loss"], batch_size=2)


def test_names_of_metrics():
    assert [find(n).sign for n in ("p@3", "auc", "loss", "log_loss")] == [1, 1, -1, -1]
