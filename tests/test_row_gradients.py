"""Row gradients as pytrees: their arithmetic is that of the dense gradients."""

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from fsparse import RowGrad, row_grad

N, D = 7, 5
MESH = Mesh(np.array(jax.devices()[:2]), ("i",))


@pytest.fixture
def pair(rng):
    """Two row gradients of one table, with padding of ids and of sources."""

    def make(t, s):
        ids = rng.integers(-1, N + 2, t)
        source = rng.integers(-1, s + 2, t)
        scale, x = rng.standard_normal(t), rng.standard_normal((s, D))
        i32 = partial(jnp.asarray, dtype=jnp.int32)
        f32 = partial(jnp.asarray, dtype=jnp.float32)
        return RowGrad(i32(ids), f32(scale), i32(source), f32(x), N)

    return make(9, 4), make(5, 3)


def by_hand(grad):
    ids, scale, source, x = map(np.asarray, jax.tree.leaves(grad))
    out = np.zeros((grad.num_rows, x.shape[1]))
    for i, s, o in zip(ids, scale, source, strict=True):
        if 0 <= i < grad.num_rows and 0 <= o < len(x):
            out[i] += s * x[o].astype(float)
    return out


close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def test_to_dense_and_coalesce(pair):
    for g in pair:
        close(g.to_dense(), by_hand(g))
        rows = g.coalesce()
        close(rows.to_dense(), by_hand(g))
        ids = np.asarray(rows.ids)
        named = ids[ids < N]
        assert (np.diff(named) > 0).all()
        assert (ids[len(named) :] == N).all()


def test_arithmetic_is_that_of_the_dense_gradients(pair):
    a, b = pair
    close((a + b).to_dense(), by_hand(a) + by_hand(b))
    close((b + a).to_dense(), by_hand(a) + by_hand(b))
    close((a - b).to_dense(), by_hand(a) - by_hand(b))
    close(sum([a, b, a]).to_dense(), 2 * by_hand(a) + by_hand(b))
    close((-a).to_dense(), -by_hand(a))
    for factor in (3, 0.5, np.float32(0.5), jnp.float32(0.5), np.float64(0.5)):
        close((a * factor).to_dense(), factor * by_hand(a))
        close((factor * a).to_dense(), factor * by_hand(a))
        close((a / factor).to_dense(), by_hand(a) / factor)
        assert (factor * a).scale.dtype == jnp.float32
    half = a.astype(jnp.bfloat16)
    assert half.dtype == half.scale.dtype == jnp.bfloat16
    assert half.astype(jnp.float32).dtype == jnp.float32


def test_padding_hides_nan(pair):
    a, b = pair
    spoilt = RowGrad(
        jnp.append(a.ids, jnp.array([N, 1], jnp.int32)),
        jnp.append(a.scale, jnp.array([jnp.nan, jnp.inf])),
        jnp.append(a.source, jnp.array([0, 99], jnp.int32)),
        a.x,
        N,
    )
    close(spoilt.to_dense(), by_hand(a))
    close((spoilt + b).to_dense(), by_hand(a) + by_hand(b))
    close(spoilt.coalesce().to_dense(), by_hand(a))


def test_sums_over_stacked_axes(pair):
    a, _ = pair
    many = jax.tree.map(lambda x: jnp.stack([jnp.stack([x, x[::-1]])] * 3), a)
    each = [jax.tree.map(itemgetter(at), many) for at in np.ndindex(3, 2)]
    close(many.sum().to_dense(), sum(map(by_hand, each)))


@pytest.mark.parametrize(
    ("t", "s", "n", "d"), [(0, 0, 0, 0), (0, 2, 3, 1), (3, 2, 4, 0)]
)
def test_empty_row_gradients(t, s, n, d):
    g = RowGrad(
        jnp.zeros(t, jnp.int32),
        jnp.ones(t),
        jnp.zeros(t, jnp.int32),
        jnp.ones((s, d)),
        n,
    )
    assert g.shape == (n, d)
    np.testing.assert_array_equal(g.to_dense(), np.zeros((n, d)))
    np.testing.assert_array_equal((g + g).coalesce().to_dense(), np.zeros((n, d)))


def test_row_gradients_pass_through_transformations(pair):
    a, _ = pair
    same = [
        jax.jit(lambda g: g)(a),
        jax.tree.map(lambda x: x, a),
        jax.lax.scan(lambda c, _: (c, None), a, length=2)[0],
        jax.tree.map(
            lambda x: x[0], jax.vmap(lambda g: g)(jax.tree.map(lambda x: x[None], a))
        ),
        jax.jit(
            jax.shard_map(
                lambda g: g,
                mesh=MESH,
                in_specs=PartitionSpec(),
                out_specs=PartitionSpec(),
            )
        )(a),
    ]
    for b in same:
        assert isinstance(b, RowGrad)
        assert b.shape == a.shape
        close(b.to_dense(), by_hand(a))


def test_row_gradients_refuse_what_is_no_gradient_of_theirs(pair):
    a, _ = pair
    other = row_grad(jnp.zeros(1, jnp.int32), jnp.ones((1, D)), num_rows=N + 1)
    with pytest.raises(
        ValueError, match=r"one shape can be added; got \[7, 5\] and \[8, 5\]"
    ):
        a + other
    for mistake in (lambda: a + 1.0, lambda: a * jnp.ones(2), lambda: 1.0 + a):
        with pytest.raises(TypeError, match="multiply it by a scalar"):
            mistake()
