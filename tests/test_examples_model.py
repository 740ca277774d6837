"""Parts of the trainer's model against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_cases import example, make_state

from fsparse import Table
from fsparse.data import Batch

extreme_model = example("extreme_model")
Config = extreme_model.Config
D, NUM_FEATURES, NUM_LABELS, B = 8, 30, 12, 4
CONFIG = Config(width=D, batch_size=B, num_negatives=0)


def test_dropout_keeps_the_mean():
    weights = jnp.full((100, 200), 2.0)
    kept = extreme_model._dropout(0.25, jax.random.PRNGKey(0), weights)
    assert set(np.unique(kept)) == {0, np.float32(2 / 0.75)}
    np.testing.assert_allclose(np.mean(kept), 2, rtol=0.02)
    assert extreme_model._dropout(0.0, None, weights) is weights


def test_hidden_layer_starts_as_the_identity():
    hidden = extreme_model.init(CONFIG, 3, 3, 0).params.hidden
    bag = np.random.default_rng(1).standard_normal((6, D)).astype(np.float32)
    h = extreme_model.hidden_layer(CONFIG, hidden, jnp.asarray(bag))
    length = np.linalg.norm(bag, axis=1, keepdims=True)
    np.testing.assert_allclose(
        h[:, :-1], CONFIG.scale * (bag / length)[:, :-1], rtol=1e-5
    )
    np.testing.assert_array_equal(h[:, -1], 1)


def test_unit_of_zeros():
    rows = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        extreme_model.unit(rows), [[0, 0], [0.6, 0.8]], rtol=1e-6
    )
    grad = jax.grad(
        lambda x: jnp.sum(extreme_model.unit(x) ** 2 + extreme_model.unit(x))
    )
    np.testing.assert_array_equal(grad(rows)[0], [0, 0])
    assert np.isfinite(grad(rows)).all()


def make_examples(m, seed=0):
    """Padded rows: ids, weights and labels."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, NUM_FEATURES + 1, (m, 4)).astype(np.int32)
    weights = np.where(ids < NUM_FEATURES, rng.standard_normal((m, 4)), 0)
    labels = np.array(
        [rng.choice(NUM_LABELS + 1, 3, replace=False) for _ in range(m)], np.int32
    )
    return Batch(ids, weights.astype(np.float32), labels)


def test_start_at_centroids():
    config = CONFIG._replace(margin=0.4)
    state = extreme_model.init(config, NUM_FEATURES, NUM_LABELS, 0)
    examples = make_examples(40)
    table = np.vstack([state.params.table.value, np.zeros(D)])
    sums = np.zeros((NUM_LABELS + 1, D))
    for ids, weights, labels in zip(*examples, strict=True):
        bag = weights @ table[ids]
        direction = bag / np.linalg.norm(bag)
        direction[-1] = 0  # the bias has no part in it
        sums[labels] += direction
    lengths = np.linalg.norm(sums[:-1], axis=1)
    assert lengths.min() > 0

    got = jnp.zeros((NUM_LABELS, D))
    for start in range(0, 40, B):
        batch = Batch(*(x[start : start + B] for x in examples))
        got = extreme_model.add_to_centroids(config, got, state.params, batch)
    np.testing.assert_allclose(got, sums[:-1], atol=2e-5)
    started = extreme_model.start_at_centroids(config, state, got)
    want = sums[:-1] / lengths[:, None]
    np.testing.assert_allclose(started.params.output.value, want, atol=2e-5)
    margin = 0.4 * config.scale / np.maximum(lengths, 1)
    np.testing.assert_allclose(started.facts.margin, margin, rtol=1e-4)


def test_centroids_are_rounded_once():
    """To the nearest bfloat16, of sums in float32."""
    config = CONFIG._replace(table_dtype="bfloat16")
    state = extreme_model.init(config, NUM_FEATURES, NUM_LABELS, 0)
    sums = jnp.zeros((NUM_LABELS, D))
    for _ in range(300):  # 256 + 1 is 256 in bfloat16
        sums = extreme_model.add_to_centroids(
            config, sums, state.params, make_examples(B)
        )
    assert sums.dtype == jnp.float32
    assert np.linalg.norm(sums, axis=1).max() > 256
    started = extreme_model.start_at_centroids(config, state, sums)
    np.testing.assert_array_equal(
        started.params.output.value, extreme_model.unit(sums).astype(jnp.bfloat16)
    )


def test_bytes_of_a_state():
    """Tables, two moments each, a count and a key of three words."""
    for dtype, itemsize in (("float32", 4), ("bfloat16", 2)):
        config = CONFIG._replace(table_dtype=dtype)
        state = extreme_model.init(config, NUM_FEATURES, NUM_LABELS, 0)
        want = 3 * (NUM_FEATURES + NUM_LABELS) * D * itemsize + 2 * 3 * 4
        assert extreme_model.state_bytes(state) == want


def test_centroid_of_a_label_without_examples_is_zero():
    state = extreme_model.init(CONFIG, NUM_FEATURES, NUM_LABELS, 0)
    started = extreme_model.start_at_centroids(
        CONFIG, state, jnp.zeros((NUM_LABELS, D))
    )
    np.testing.assert_array_equal(started.params.output.value, 0)
    assert np.isfinite(started.facts.margin).all()


def test_start_at_frequencies():
    """The chance to be active is that of sampling with these frequencies."""
    counts, num_examples = np.array([40, 3, 1, 0, 16]), 50
    config = CONFIG._replace(num_negatives=3, log_q=0.5, batch_size=10)
    state = extreme_model.init(config, 4, 5, 0)
    started = extreme_model.start_at_frequencies(
        config, state, jnp.asarray(counts, jnp.float32), num_examples
    )
    frequency = (counts + 0.5) / counts.sum()
    labels_a_batch = counts.sum() / num_examples * 10
    missed = (1 - np.minimum(frequency, 0.5)) ** labels_a_batch * (1 - 3 / 5)
    np.testing.assert_allclose(
        started.facts.log_q, 0.5 * np.log(1 - missed), rtol=1e-4, atol=1e-6
    )
    output = started.params.output.value
    np.testing.assert_allclose(
        output[:, -1], np.log(frequency) - np.log(frequency).mean(), rtol=1e-5
    )
    np.testing.assert_array_equal(output[:, :-1], 0)


def test_codes_of_alike_rows():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, D)).astype(np.float32)
    rows[100:200] = rows[:100]
    rows[200:300] = 2 * rows[:100]
    rows[300:400] = -rows[:100]
    rows[400] = 0
    key = jax.random.PRNGKey(3)
    table = Table(jnp.asarray(rows))
    codes = np.asarray(extreme_model.label_codes(table, key))
    assert codes.min() >= 0
    assert codes.max() < 2**20
    np.testing.assert_array_equal(codes[100:200], codes[:100])
    np.testing.assert_array_equal(codes[200:300], codes[:100])
    np.testing.assert_array_equal(codes[300:400], 2**20 - 1 - codes[:100])
    assert len(set(codes[:100].tolist())) > 90
    other = extreme_model.label_codes(table, jax.random.PRNGKey(4))
    assert not np.array_equal(other, codes)


@pytest.mark.parametrize("exclude_inputs", [False, True])
@pytest.mark.parametrize("k", [3, NUM_LABELS])
def test_predictions_by_brute_force(exclude_inputs, k):
    """Labels are the features' items; `n` fills up what is left of the `k`."""
    config = CONFIG._replace(exclude_inputs=exclude_inputs)
    params = make_state(config, (NUM_LABELS, NUM_LABELS)).params
    batch = make_examples(10)
    ids = np.minimum(batch.feature_ids, NUM_LABELS)
    weights = np.where(ids < NUM_LABELS, batch.feature_weights, 0)
    batch = Batch(ids, weights.astype(np.float32), batch.label_ids)
    got = np.asarray(extreme_model.predict(config, params, batch, k))
    scores = extreme_model.encode(config, params, batch) @ params.output.value.T
    for row, score, inputs in zip(got, np.asarray(scores), ids, strict=True):
        excluded = set(inputs.tolist()) if exclude_inputs else set()
        ranking = [i for i in np.argsort(-score).tolist() if i not in excluded]
        kept = [i for i in row.tolist() if i not in excluded and i < NUM_LABELS]
        assert kept == ranking[:k]
        assert row.tolist()[: len(kept)] == kept
