"""Models of fsparse.nn: they train, and are ordinary JAX; their text and JSON."""

import json
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import fsparse
from fsparse import nn, rows
from fsparse.data import Batch

KEY = jax.random.key(0)
FEATURES, LABELS = 30, 12


def make_batch(rng, b=8, k=3):
    """Features that tell the label, which is random; the last example is padding."""
    label_ids = rng.integers(0, LABELS, (b, 1)).astype(np.int32)
    ids = (2 * label_ids + rng.integers(0, 2, (b, k))).astype(np.int32)
    label_ids[-1], ids[-1] = LABELS, FEATURES
    return Batch(ids, np.ones((b, k), np.float32), label_ids)


def make_classifier(head):
    body = nn.Sequential(
        [nn.EmbeddingBag(FEATURES, 6), nn.Dropout(0.1), nn.Residual(nn.Linear(6, 6))]
    )
    return nn.Classifier(body, head)


OF_INDEX = {"sampler": "mix", "num_tables": 2, "refresh_every": 2}
MODELS = {
    "popularity": make_classifier(nn.SparseLinear(6, LABELS, 5)),
    "mix": make_classifier(nn.SparseLinear(6, LABELS, 5, **OF_INDEX)),
    "softmax": make_classifier(nn.Softmax(6, LABELS)),
    "mach": make_classifier(nn.Mach(6, LABELS, 3, 5)),
    "towers": nn.TwoTower(
        nn.EmbeddingBag(FEATURES, 6),
        nn.EmbeddingBag(LABELS, 6),
        LABELS,
        num_negatives=2,
    ),
}


def make_step(model, rate=0.05):
    optimizer = fsparse.multi_transform(
        {"tables": rows.adam(rate), "dense": optax.adam(rate)}
    )

    def step(carry, batch_and_key):
        params, moments, state = carry
        batch, key = batch_and_key

        def mean_loss(params):
            losses, new = model.loss(params, state, batch, key=key)
            return losses.mean(), new

        (loss, state), grads = fsparse.value_and_grad(mean_loss, has_aux=True)(params)
        params, moments = optimizer.step(params, moments, grads)
        return (params, moments, state), loss

    def start(key):
        params, state = model.init(key)
        return params, optimizer.init(params), state

    return start, step


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# ---- training, as JAX programs ------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_steps_in_scan_are_steps_in_a_loop_and_learn(rng, name):
    model = MODELS[name]
    start, step = make_step(model)
    batches = [make_batch(rng) for _ in range(60)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    keys = jax.random.split(KEY, 60)
    scanned, losses = jax.jit(partial(jax.lax.scan, step))(start(KEY), (stacked, keys))
    assert losses[-10:].mean() < 0.7 * losses[:10].mean()

    carry, one = start(KEY), jax.jit(step, donate_argnums=0)
    for i in range(3):
        carry, loss = one(carry, (batches[i], keys[i]))
        np.testing.assert_allclose(loss, losses[i], rtol=1e-4)

    params, _, state = scanned
    batch = make_batch(rng, 64)
    _, ids = model.predict(params, state, batch, k=1)
    hits = np.asarray(ids)[:-1] == batch.label_ids[:-1]
    assert hits.mean() > 0.8


@pytest.mark.parametrize("name", MODELS)
def test_models_under_vmap_are_models_alone(rng, name):
    model, batch = MODELS[name], make_batch(rng)
    keys = jax.random.split(KEY, 2)
    params, state = jax.vmap(model.init)(keys)

    def loss_and_best(params, state, key):
        loss = lambda p: model.loss(p, state, batch, key=key)[0].sum()  # noqa: E731
        value, grads = fsparse.value_and_grad(loss)(params)
        dense = jax.tree.map(
            lambda g: g.to_dense() if isinstance(g, fsparse.RowGrad) else g,
            grads,
            is_leaf=lambda g: isinstance(g, fsparse.RowGrad),
        )
        return value, dense, model.predict(params, state, batch, 2)

    together = jax.jit(jax.vmap(loss_and_best))(params, state, keys)
    for i in range(2):
        own = jax.tree.map(lambda x, i=i: x[i], (params, state, keys))
        alone = jax.jit(loss_and_best)(*own)
        for x, y in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(x, y[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_state_come_back_from_a_file(tmp_path, name):
    model = MODELS[name]
    saved = model.init(KEY)
    fsparse.checkpoint.save(tmp_path / "model", saved, {"model": nn.to_config(model)})
    config = fsparse.checkpoint.load_metadata(tmp_path / "model")["model"]
    like = jax.eval_shape(nn.from_config(config).init, KEY)
    assert_equal_trees(fsparse.checkpoint.load(tmp_path / "model", like)[0], saved)


@pytest.mark.parametrize("name", MODELS)
def test_an_example_of_padding_has_no_loss_and_measuring_no_noise(rng, name):
    model, batch = MODELS[name], make_batch(rng)
    params, state = model.init(KEY)
    losses, new = model.loss(params, state, batch, train=False)
    assert losses.shape == (8,)
    assert losses[-1] == 0
    assert (losses[:-1] > 0).all()
    assert_equal_trees(new, state)
    assert isinstance(model, fsparse.train.Model)
    np.testing.assert_array_equal(
        losses, model.loss(params, state, batch, train=False)[0]
    )


@pytest.mark.parametrize("sampler", ["popularity", "lsh"])
def test_a_step_of_training_copies_no_table(rng, sampler):
    """Temporaries are smaller than a table, or than an index where one is rebuilt."""
    n = 20_000
    head = {"num_negatives": 64, "sampler": sampler, "num_tables": 2}
    model = nn.extreme_classifier(n, n, width=32, **head)
    start, step = make_step(model)
    shapes = jax.eval_shape(start, KEY)
    batch = jax.tree.map(jnp.asarray, make_batch(rng))
    compiled = jax.jit(step, donate_argnums=0).lower(shapes, (batch, KEY)).compile()
    used = compiled.memory_analysis()
    assert used.temp_size_in_bytes < 4 * n * 32
    assert used.alias_size_in_bytes > 6 * 4 * n * 31


def test_a_classifier_is_its_body_and_its_head(rng):
    model, batch = MODELS["softmax"], make_batch(rng)
    params, state = model.init(KEY)
    h, _ = model.body.apply(
        params["body"], state["body"], batch.feature_ids, batch.feature_weights
    )
    kernel = jax.random.normal(KEY, params["head"]["kernel"].shape)
    params["head"] = {"kernel": kernel}
    want, _ = model.head.loss(params["head"], (), h, batch.label_ids)
    got, _ = model.loss(params, state, batch, train=False)
    np.testing.assert_array_equal(got, want)
    scores, ids = model.predict(params, state, batch, k=3)
    logits = np.asarray(model.head.apply(params["head"], (), h)[0])
    np.testing.assert_array_equal(ids, np.argsort(-logits, axis=1)[:, :3])
    np.testing.assert_allclose(scores, -np.sort(-logits, axis=1)[:, :3], rtol=1e-5)


def test_label_counts_reach_the_head():
    model = MODELS["popularity"]
    _, state = model.init(KEY)
    counts = np.arange(LABELS)
    got = model.with_label_counts(state, counts)["head"]
    assert_equal_trees(got, model.head.with_label_counts(state["head"], counts))
    assert (
        got["popularity"]["log_miss"] != state["head"]["popularity"]["log_miss"]
    ).any()


def test_the_extreme_classifier_starts_at_the_mean_of_its_features(rng):
    model = nn.extreme_classifier(FEATURES, LABELS, width=8, length=3.0)
    params, state = model.init(KEY)
    batch = make_batch(rng)
    h, _ = model.encode(params, state, batch)
    table = np.pad(np.asarray(params["body"][0]["table"].value), ((0, 1), (0, 0)))
    bag = table[batch.feature_ids].sum(1)
    want = 3 * bag[:-1] / np.linalg.norm(bag[:-1], axis=1, keepdims=True)
    np.testing.assert_allclose(h[:-1], want, rtol=1e-4, atol=1e-5)
    assert not h[-1].any()
    assert params["head"]["table"].shape == (LABELS, 8)


# ---- two towers ---------------------------------------------------------------------


@pytest.fixture
def towers(rng):
    """Items with two features each, and counts that differ."""
    model = nn.TwoTower(
        nn.EmbeddingBag(FEATURES, 4), nn.EmbeddingBag(9, 4), LABELS, item_capacity=2
    )
    params, state = model.init(KEY)
    ids = rng.integers(0, 10, (LABELS, 2)).astype(np.int32)
    weights = rng.standard_normal((LABELS, 2)).astype(np.float32)
    counts = rng.integers(1, 50, LABELS)
    state = model.with_label_counts(model.with_items(state, ids, weights), counts)
    return model, params, state, counts


def cosines(params, state, batch):
    """By numpy, of all queries and items."""
    left, right = (np.asarray(params[t]["table"].value) for t in ("left", "right"))
    x = np.pad(left, ((0, 1), (0, 0)))[batch.feature_ids].sum(1)
    own = np.pad(right, ((0, 1), (0, 0)))[np.asarray(state["item_ids"])]
    y = np.einsum("nk,nkd->nd", state["item_weights"], own)
    lengths = [np.maximum(np.linalg.norm(z, axis=1), 1e-9) for z in (x, y)]
    return x @ y.T / lengths[0][:, None] / lengths[1]


@pytest.mark.parametrize("log_q", [True, False])
def test_towers_have_the_softmax_of_the_items_of_the_batch(rng, towers, log_q):
    model, params, state, counts = towers
    model, batch = replace(model, log_q=log_q), make_batch(rng)
    logits = 20 * cosines(params, state, batch)
    if log_q:
        q = (counts + 1) / (counts + 1).sum()
        logits -= np.log(1 - (1 - q) ** (len(batch.label_ids) - 1))
    own = batch.label_ids[:-1, 0]
    logits[:, [j for j in range(LABELS) if j not in own]] = -np.inf
    want = -special.log_softmax(logits[:-1], axis=1)[np.arange(len(own)), own]
    got, _ = model.loss(params, state, batch, train=False)
    np.testing.assert_allclose(got[:-1], want, rtol=1e-3, atol=1e-4)
    assert got[-1] == 0


def test_towers_predict_the_nearest_items(rng, towers):
    model, params, state, _ = towers
    batch = make_batch(rng)
    want = cosines(params, state, batch)[:-1]
    scores, ids = model.predict(params, state, batch, k=3)
    np.testing.assert_allclose(
        scores[:-1], -np.sort(-want)[:, :3], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        np.take_along_axis(want, np.asarray(ids)[:-1], axis=1), scores[:-1], rtol=1e-4
    )
    cached = model.with_item_vectors(params, state)
    assert_equal_trees(model.predict(params, cached, batch, k=3), (scores, ids))
    assert cached["vectors"].shape == (LABELS, 4)


def test_vectors_of_many_items_are_made_block_by_block():
    n = 2050
    model = nn.TwoTower(
        nn.EmbeddingBag(3, 2), nn.EmbeddingBag(n, 2), n, normalize=False
    )
    params, state = model.init(KEY)
    got = jax.jit(model.encode_items)(params, state)
    np.testing.assert_array_equal(got, params["right"]["table"].value)


# ---- text ---------------------------------------------------------------------------


def test_summary_counts_what_there_is():
    model = MODELS["popularity"]
    params, state = model.init(KEY)
    lines = nn.summary(model).splitlines()
    assert model.summary() == nn.summary(model)
    assert len(lines) == 1 + 3 + 1  # the names, layers with parameters, all
    table = f"table f32[{LABELS},7]"
    head = next(line for line in lines if line.startswith("head SparseLinear"))
    assert table in head
    assert "41.7 %" in head
    count = sum(x.size for x in jax.tree.leaves(params))
    state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
    figures = [int(x.replace(",", "")) for x in lines[-1].split()[1:]]
    assert figures == [count, 4 * count, 12 * count, state_bytes]


@pytest.mark.parametrize("name", [*MODELS, "graph", "hashed"])
def test_a_specification_is_json(name):
    others = {
        "graph": nn.Graph(["x"], {"y": (nn.LayerNorm(3), "x")}, "y"),
        "hashed": nn.Sequential([nn.HashedEmbedding(9, 16, 32), nn.UnitNorm(2)]),
    }
    model = (MODELS | others)[name]
    text = json.dumps(nn.to_config(model))
    again = nn.from_config(json.loads(text))
    assert again == model
    assert hash(again) == hash(model)
    assert json.dumps(nn.to_config(again)) == text


CONFIGS = {
    "list": ([1], TypeError, "config must be a dict; got list"),
    "type": ({"type": "Liner"}, ValueError, "type of config must be one of .*'Liner'"),
    "none": ({}, ValueError, "must be one of .*Activation, .*; got None"),
    "base": ({"type": "Layer"}, ValueError, "got 'Layer'"),
    "field": (
        {"type": "Linear", "in_width": 3, "widht": 2},
        ValueError,
        "among in_width, width, bias, init_scale; got 'widht'",
    ),
    "missing": ({"type": "Linear", "in_width": 3}, ValueError, "got none named width"),
    "nested": (
        {"type": "Sequential", "layers": [{"type": "relu"}]},
        ValueError,
        r"type of config.layers\[0\] must be",
    ),
    "value": ({"type": "Dropout", "rate": 3}, ValueError, r"rate must be in \[0, 1\]"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_do_not_fit_are_named(case):
    config, error, message = CONFIGS[case]
    with pytest.raises(error, match=message):
        nn.from_config(config)


@dataclass(frozen=True)
class Shift(nn.Layer):
    by: float

    def apply(self, params, state, x, *, key=None, train=False):
        return x + self.by, state


def test_layers_of_users_go_where_ours_go():
    net = nn.Sequential([Shift(2.0), nn.Activation("relu")])
    np.testing.assert_array_equal(
        net.apply(*net.init(KEY), jnp.array([-3.0, 1.0]))[0], [0, 3]
    )
    assert nn.from_config(nn.to_config(net)) == net
    with pytest.raises(TypeError, match="names of layers must differ"):
        type("Linear", (nn.Layer,), {})
    with pytest.raises(TypeError, match=r"Shift.by must be a layer, .*; got complex"):
        nn.to_config(Shift(1j))


# ---- errors -------------------------------------------------------------------------


def test_models_say_what_is_wrong(rng, towers):
    bag, batch = nn.EmbeddingBag(3, 2), make_batch(rng)
    with pytest.raises(TypeError, match="head must be a head"):
        nn.Classifier(bag, nn.Linear(2, 3))
    with pytest.raises(ValueError, match="num_items must be at least 1"):
        nn.TwoTower(bag, bag, 0)
    with pytest.raises(ValueError, match=r"scale must be in"):
        nn.TwoTower(bag, bag, 3, scale=-1.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'negatives'"):
        nn.extreme_classifier(9, 9, negatives=3)
    with pytest.raises(ValueError, match="width must be at least 2; got 1"):
        nn.extreme_classifier(9, 9, width=1)
    with pytest.raises(TypeError, match="model must be of type Spec"):
        nn.summary(3)
    model, params, state, _ = towers
    with pytest.raises(ValueError, match=r"\[num_items, item_capacity\], \[12, 2\]"):
        model.with_items(state, np.zeros((3, 2), np.int32), np.zeros((3, 2), "f4"))
    with pytest.raises(ValueError, match="counts must have 12 entries"):
        model.with_label_counts(state, np.ones(3))
    with pytest.raises(ValueError, match=r"nn.TwoTower: key must be given to train"):
        model.loss(params, state, batch)
    narrow = nn.TwoTower(nn.EmbeddingBag(FEATURES, 3), nn.EmbeddingBag(9, 4), LABELS)
    with pytest.raises(ValueError, match=r"one width; got left: f32\[8,3\], right:"):
        narrow.loss(*narrow.init(KEY), batch, train=False)
    wrong = make_classifier(nn.Softmax(7, LABELS))
    with pytest.raises(ValueError, match=r"Softmax: x must be .*7\].*\[8,6\]"):
        wrong.loss(*wrong.init(KEY), batch, train=False)
