"""Layers of fsparse.nn, against numpy; and what holds them together."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import fsparse
from fsparse import nn

KEY = jax.random.key(0)


def run(layer, *inputs, **options):
    """The output of a fresh layer."""
    return layer.apply(*layer.init(KEY), *inputs, **options)[0]


def features(rng, b, k, n):
    """Ids with padding of two kinds, and weights."""
    ids = rng.integers(-1, n + 2, (b, k)).astype(np.int32)
    return ids, rng.standard_normal((b, k)).astype(np.float32)


# ---- embeddings ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embedding_bag_sums_rows(rng, dtype):
    layer = nn.EmbeddingBag(7, 3, dtype=dtype)
    params, state = layer.init(KEY)
    ids, weights = features(rng, 4, 5, 7)
    table = np.pad(np.asarray(params["table"].value, np.float32), ((1, 2), (0, 0)))
    want = np.einsum("bk,bkd->bd", weights, table[ids + 1])
    got, new = layer.apply(params, state, ids, weights)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert params["table"].dtype.name == dtype
    assert new == state == ()


def test_embeddings_start_with_rows_of_length_about_one():
    rows = nn.EmbeddingBag(500, 16).init(KEY)[0]["table"].value
    assert 0.9 < float(jnp.mean(jnp.sum(rows**2, axis=1))) < 1.1


def test_hashed_embedding_is_made_of_rows_of_its_memory(rng):
    """By brute force over features and blocks, and by gradients of rows."""
    layer = nn.HashedEmbedding(50, 6, memory=24, block=2)
    params, state = layer.init(KEY)
    ids, weights = features(rng, 3, 4, 50)
    memory = np.asarray(params["memory"].value)
    assert memory.shape == (12, 2)
    blocks = np.asarray(layer.blocks(jnp.asarray(ids))).reshape(3, 3, 4)
    want = np.zeros((3, 6))
    for i, c, j in np.ndindex(3, 3, 4):
        if 0 <= ids[i, j] < 50:
            own = memory[blocks[i, c, j]]
            want[i, 2 * c : 2 * c + 2] += weights[i, j] * own
        else:
            assert blocks[i, c, j] == 12
    got, _ = layer.apply(params, state, ids, weights)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

    loss = lambda p: jnp.sum(layer.apply(p, state, ids, weights)[0] ** 2)  # noqa: E731
    rows, dense = fsparse.grad(loss)(params)["memory"], jax.grad(loss)(params)["memory"]
    np.testing.assert_allclose(rows.to_dense(), dense.value, rtol=1e-5, atol=1e-5)


def test_a_feature_has_one_row_wherever_it_stands():
    layer = nn.HashedEmbedding(10**9, 8, memory=64, block=4)
    params, _ = layer.init(KEY)
    ids = jnp.array([[5, 10**9], [999_999_999, 5]], jnp.int32)
    alone = layer.apply(params, (), jnp.array([[5], [999_999_999]], jnp.int32))[0]
    got = layer.apply(params, (), ids)[0]
    np.testing.assert_array_equal(got[0], alone[0])
    np.testing.assert_allclose(got[1], alone[0] + alone[1], rtol=1e-6)


def test_hashed_blocks_spread_evenly_and_independently():
    """Chi-square of 10,000 features over 16 rows; pairs of blocks over 256."""
    layer = nn.HashedEmbedding(10_000, 4, memory=32, block=2)
    ids = jnp.arange(10_000, dtype=jnp.int32)[:, None]
    blocks = np.asarray(layer.blocks(ids)).reshape(-1, 2)
    pairs = np.bincount(16 * blocks[:, 0] + blocks[:, 1], minlength=256)
    expected = 10_000 / 256
    statistic = ((pairs - expected) ** 2 / expected).sum()
    assert special.chdtrc(255, statistic) > 1e-4
    other = nn.HashedEmbedding(10_000, 4, memory=32, block=2, seed=1)
    assert np.mean(np.asarray(other.blocks(ids)).reshape(-1, 2) == blocks) < 0.1


# ---- dense layers -------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_product(rng, bias):
    layer = nn.Linear(3, 2, bias=bias)
    params, state = layer.init(KEY)
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    if bias:
        params = params | {"bias": jnp.array([1.0, -2.0])}
    want = x @ np.asarray(params["kernel"]).T + (np.array([1, -2]) if bias else 0)
    got = layer.apply(params, state, x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_linear_starts_with_the_deviation_asked_for():
    kernel = nn.Linear(64, 64, init_scale=2.0).init(KEY)[0]["kernel"]
    assert 0.23 < float(jnp.std(kernel)) < 0.27
    assert not nn.Linear(4, 4, init_scale=0.0).init(KEY)[0]["kernel"].any()


def test_layer_norm_matches_its_formula(rng):
    layer = nn.LayerNorm(5, eps=1e-3)
    x = (3 + 2 * rng.standard_normal((4, 5))).astype(np.float32)
    params = {"scale": jnp.arange(5.0), "bias": jnp.ones(5)}
    centred = x - x.mean(1, keepdims=True)
    want = centred / np.sqrt(x.var(1, keepdims=True) + 1e-3) * np.arange(5) + 1
    np.testing.assert_allclose(layer.apply(params, (), x)[0], want, rtol=1e-5)


def test_unit_norm_has_the_length_and_no_nan(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    x[1] = 0
    got = run(nn.UnitNorm(5.0), x)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), [5, 0, 5], rtol=1e-5)
    grad = jax.grad(lambda x: run(nn.UnitNorm(), x).sum())(jnp.asarray(x))
    assert np.isfinite(grad).all()
    assert not grad[1].any()


ORACLES = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: x * special.ndtr(x),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": special.expit,
    "silu": lambda x: x * special.expit(x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", ORACLES)
def test_activations(name):
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    got = run(nn.Activation(name), x)
    tolerance = 2e-3 if name == "gelu" else 1e-6  # JAX's is the approximation by tanh
    np.testing.assert_allclose(got, ORACLES[name](x), rtol=1e-5, atol=tolerance)


def test_dropout_keeps_the_mean_and_drops_the_share():
    x = jnp.ones((100, 100))
    got = run(nn.Dropout(0.25), x, key=jax.random.key(1), train=True)
    assert abs(float(jnp.mean(got == 0)) - 0.25) < 0.02
    assert set(np.unique(got)) <= {np.float32(0), np.float32(1 / 0.75)}
    np.testing.assert_array_equal(run(nn.Dropout(0.25), x), x)
    np.testing.assert_array_equal(run(nn.Dropout(0.0), x, train=True), x)


# ---- several inputs -----------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate(axis):
    x = jnp.arange(6.0).reshape(2, 3)
    want = np.concatenate([x, x + 1, x], axis)
    np.testing.assert_array_equal(run(nn.Concatenate(axis), x, x + 1, x), want)


@pytest.mark.parametrize("normalize", [True, False])
def test_dot_product(rng, normalize):
    x, y = rng.standard_normal((2, 5, 3)).astype(np.float32)
    want = (x * y).sum(1)
    if normalize:
        want /= np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    got = run(nn.DotProduct(normalize=normalize), x, y)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


# ---- networks -----------------------------------------------------------------------


def test_sequential_and_residual_are_their_layers_in_turn(rng):
    first, second = nn.Linear(3, 3), nn.Activation("tanh")
    net = nn.Sequential([nn.Residual(first), second])
    params, state = net.init(KEY)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    own = params[0]["layer"]
    want = np.tanh(x + x @ np.asarray(own["kernel"]).T + np.asarray(own["bias"]))
    got, new = net.apply(params, state, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_layers_of_one_kind_draw_numbers_of_their_own():
    net = nn.Sequential([nn.Linear(3, 3), nn.Linear(3, 3), nn.Dropout(0.5)])
    params, _ = net.init(KEY)
    assert (params[0]["kernel"] != params[1]["kernel"]).any()
    twice = nn.Sequential([nn.Dropout(0.5), nn.Dropout(0.5)])
    got = run(twice, jnp.ones((1, 1000)), key=KEY, train=True)
    assert 0.2 < float(jnp.mean(got > 0)) < 0.3  # as one mask, it would be half


def test_the_first_layer_takes_all_inputs():
    net = nn.Sequential([nn.DotProduct(), nn.Activation("relu")])
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(run(net, x, -x), [0, 0])


def test_graph_orders_its_nodes(rng):
    nodes = {
        "sum": (nn.Concatenate(), "a", "b", "x"),
        "b": (nn.Activation("tanh"), "a"),
        "a": (nn.Linear(3, 2), "x"),
    }
    graph = nn.Graph(["x"], nodes, "sum")
    assert [name for name, _, _ in graph.nodes] == ["a", "b", "sum"]
    params, state = graph.init(KEY)
    x = rng.standard_normal((4, 3)).astype(np.float32)
    a = x @ np.asarray(params["a"]["kernel"]).T
    want = np.concatenate([a, np.tanh(a), x], 1)
    got, new = graph.apply(params, state, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert new.keys() == state.keys()
    assert hash(graph) == hash(nn.Graph(("x",), graph.nodes, "sum"))


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)), st.data())
def test_graphs_of_any_order_are_sums_over_paths(order, data):
    """Node ``i`` joins some of the nodes before it; their widths are sums."""
    joins = [data.draw(st.sets(st.integers(0, i), min_size=1)) for i in range(6)]
    names = ["x", *(f"n{i}" for i in range(6))]
    nodes = [
        (f"n{i}", nn.Concatenate(), tuple(names[j] for j in sorted(joins[i])))
        for i in range(6)
    ]
    used, widths = {6}, [1]
    for i in reversed(range(6)):
        used |= joins[i] if i + 1 in used else set()
    for i in range(6):
        widths.append(sum(widths[j] for j in joins[i]))
    given_nodes = [nodes[i] for i in order]
    if used < set(range(7)):
        with pytest.raises(ValueError, match="must lead to the output"):
            nn.Graph(["x"], given_nodes, "n5")
    else:
        graph = nn.Graph(["x"], given_nodes, "n5")
        shape = jax.eval_shape(lambda x: run(graph, x), jnp.ones((2, 1))).shape
        assert shape == (2, widths[-1])


# ---- errors -------------------------------------------------------------------------

A = nn.Activation("relu")
SPECIFICATIONS = {
    "size": (lambda: nn.Linear(0, 3), ValueError, "in_width must be at least 1; got 0"),
    "type": (lambda: nn.Linear(2.5, 3), TypeError, "in_width must be a static integer"),
    "scale": (lambda: nn.Linear(2, 3, init_scale=-1), ValueError, "init_scale must be"),
    "dtype": (lambda: nn.EmbeddingBag(9, 3, "float16"), ValueError, "one of float32, "),
    "block": (
        lambda: nn.HashedEmbedding(9, 6, memory=16, block=4),
        ValueError,
        "block must divide width and memory; got block 4, width 6 and memory 16",
    ),
    "rate": (lambda: nn.Dropout(1.0), ValueError, "rate must be less than 1"),
    "rates": (lambda: nn.Dropout(-0.1), ValueError, r"rate must be in \[0, 1\]"),
    "nan": (lambda: nn.UnitNorm(math.nan), ValueError, "length must be in"),
    "eps": (lambda: nn.LayerNorm(3, eps=-1.0), ValueError, "eps must be in"),
    "name": (lambda: nn.Activation("cube"), ValueError, "elu, gelu, .*; got 'cube'"),
    "axis": (lambda: nn.Concatenate(0.5), TypeError, "axis must be an integer"),
    "empty": (lambda: nn.Sequential([]), ValueError, "layers must be one or more"),
    "class": (
        lambda: nn.Sequential([nn.Linear]),
        TypeError,
        "0. must be.*Linear",
    ),
    "function": (lambda: nn.Residual(jnp.tanh), TypeError, "layer must be a layer"),
    "cycle": (
        lambda: nn.Graph(["x"], {"a": (A, "b"), "b": (A, "a")}, "a"),
        ValueError,
        "no cycle; got one among a, b",
    ),
    "source": (
        lambda: nn.Graph(["x"], {"a": (A, "y")}, "a"),
        ValueError,
        "inputs of 'a' must be among x, a; got 'y'",
    ),
    "twice": (
        lambda: nn.Graph(["x"], [("x", A, ("x",))], "x"),
        ValueError,
        "names must differ; got x twice",
    ),
    "unused": (
        lambda: nn.Graph(["x", "y"], {"a": (A, "x")}, "a"),
        ValueError,
        "got y, which do not",
    ),
    "output": (
        lambda: nn.Graph(["x"], {"a": (A, "x")}, "b"),
        ValueError,
        "output must be one of x, a; got 'b'",
    ),
    "node": (lambda: nn.Graph(["x"], {"a": (3, "x")}, "a"), TypeError, "got int"),
}


@pytest.mark.parametrize("case", SPECIFICATIONS)
def test_specifications_say_what_is_wrong(case):
    make, error, message = SPECIFICATIONS[case]
    with pytest.raises(error, match=message):
        make()


X = jnp.ones((2, 3))
GRAPH = nn.Graph(["x"], {"a": (A, "x")}, "a")
CALLS = {
    "width": (
        nn.Linear(4, 2),
        (X,),
        ValueError,
        r"f32\[2,3\]. Give this layer in_width=3",
    ),
    "scalar": (nn.LayerNorm(4), (1.0,), ValueError, r"must be f32\[..., 4\]"),
    "int": (nn.Linear(3, 2), (X.astype(int),), TypeError, "x must be float32"),
    "key": (
        nn.Dropout(0.5),
        (X,),
        ValueError,
        "key must be given to train",
    ),
    "shapes": (nn.DotProduct(), (X, X[:1]), ValueError, "x and y must be alike"),
    "axes": (nn.Concatenate(), (X, X[:1]), ValueError, "all other axes"),
    "axis": (nn.Concatenate(2), (X, X), ValueError, "axis 2"),
    "nothing": (nn.Concatenate(), (), ValueError, "one or more"),
    "residual": (
        nn.Residual(nn.Linear(3, 2)),
        (X,),
        ValueError,
        r"x: f32\[2,3\], output: f32\[2,2\]",
    ),
    "graph": (
        nn.Graph(["x"], {"a": (A, "x")}, "a"),
        (X, X),
        ValueError,
        "must be x; got 2",
    ),
    "ids": (nn.EmbeddingBag(9, 3), (X,), TypeError, "ids must be int32"),
    "hashed": (nn.HashedEmbedding(9, 16, 32), (X,), TypeError, "ids must be int32"),
    "weights": (
        nn.HashedEmbedding(9, 16, 32),
        (jnp.ones((2, 3), int), X[:1]),
        ValueError,
        "weights and ids must have one shape",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_inputs_that_do_not_fit_are_named(case):
    layer, inputs, error, message = CALLS[case]
    with pytest.raises(error, match=message):
        run(layer, *inputs, train=True)
