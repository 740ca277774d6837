"""``fsparse.value_and_grad`` against ``jax.value_and_grad`` of dense losses.

The losses and their oracles are those of loss_cases.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import bag, one_hot, take
from jax.sharding import Mesh, PartitionSpec
from loss_cases import (
    ACTIVE,
    IDS,
    LOSSES,
    PARAMS,
    D,
    N,
    branched,
    branched_dense,
    make_ids,
    tables,
    two_layers,
    two_layers_dense,
)

from fsparse import (
    RowGrad,
    Table,
    embedding_bag,
    grad,
    sampled_matmul,
    take_rows,
    value_and_grad,
)

every_loss = pytest.mark.parametrize("name", LOSSES)


def dense(grads):
    """Row gradients as arrays."""
    is_rows = lambda x: isinstance(x, RowGrad)  # noqa: E731
    return jax.tree.map(
        lambda g: g.to_dense() if is_rows(g) else g, grads, is_leaf=is_rows
    )


def assert_close(got, want, tol=1e-4):
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    for a, b in leaves:
        assert a.shape == b.shape
        largest = max(1.0, float(jnp.max(jnp.abs(b), initial=0)))
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * largest)


def ours(loss):
    """Value and dense gradients of a loss, of arrays."""

    def call(params, ids):
        value, grads = value_and_grad(loss)(tables(params), ids)
        assert isinstance(grads["t"], RowGrad)
        assert isinstance(grads["u"], RowGrad)
        return value, dense(grads)

    return call


WAYS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "scan": lambda f: (
        lambda p, ids: jax.tree.map(
            lambda x: x[1], jax.lax.scan(lambda c, _: (c, f(p, ids)), 0, length=2)[1]
        )
    ),
}


@every_loss
@pytest.mark.parametrize("way", WAYS)
def test_equals_the_dense_gradient(name, way):
    loss, oracle = LOSSES[name]
    got = WAYS[way](ours(loss))(PARAMS, IDS)
    assert_close(got, jax.value_and_grad(oracle)(PARAMS, IDS))


def test_either_branch_of_a_condition():
    flipped = PARAMS | {"t": -PARAMS["t"]}
    values = [jnp.sum(bag(p["t"], IDS)) > 0 for p in (PARAMS, flipped)]
    assert values[0] != values[1]
    for params in (PARAMS, flipped):
        got = ours(branched)(params, IDS)
        assert_close(got, jax.value_and_grad(branched_dense)(params, IDS))


@every_loss
def test_equals_the_gradient_of_jax(name):
    """jax.grad sees a table as a container of its array."""
    loss, _ = LOSSES[name]
    want = jax.grad(loss)(tables(PARAMS), IDS)
    got = dense(grad(loss)(tables(PARAMS), IDS))
    assert_close(got, want)


@every_loss
@pytest.mark.parametrize(
    "in_axes", [(0, 0), (None, 0), (0, None)], ids=["both", "ids", "params"]
)
def test_vmap_of_the_gradient(name, in_axes):
    loss, oracle = LOSSES[name]
    params = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x[::-1]]), PARAMS)
    args = (
        params if in_axes[0] == 0 else PARAMS,
        (jnp.stack([IDS, make_ids(1)]) if in_axes[1] == 0 else IDS),
    )
    got = jax.jit(jax.vmap(ours(loss), in_axes))(*args)
    assert_close(got, jax.vmap(jax.value_and_grad(oracle), in_axes)(*args))


def curved(f):
    """A scalar of a gradient, to differentiate again."""

    def call(params, ids):
        _, grads = f(params, ids)
        return sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(grads))

    return call


@every_loss
@pytest.mark.parametrize(
    "transform", [jax.grad, jax.jacfwd], ids=["reverse", "forward"]
)
def test_second_derivatives(name, transform):
    loss, oracle = LOSSES[name]
    got = jax.jit(transform(curved(ours(loss))))(PARAMS, IDS)
    want = jax.jit(transform(curved(jax.value_and_grad(oracle))))(PARAMS, IDS)
    assert_close(got, want, tol=1e-3)


def test_gradient_of_a_gradient_by_itself():
    """Tables outside and inside: the inner gradient is a loss that reads tables."""

    def inner(p, ids):
        return grad(two_layers)(p, ids)["w"]

    def outer(p, ids):
        return jnp.sum(jnp.sin(inner(p, ids)))

    def outer_dense(p, ids):
        return jnp.sum(jnp.sin(jax.grad(two_layers_dense)(p, ids)["w"]))

    got = dense(jax.jit(grad(outer))(tables(PARAMS), IDS))
    assert_close(got, jax.jit(jax.grad(outer_dense))(PARAMS, IDS), tol=1e-3)


# ---- the signature ------------------------------------------------------------------


def of_two(p, q, ids):
    aux = {"h": embedding_bag(p["t"], ids), "table": p["t"]}
    return jnp.sum(aux["h"] @ take_rows(q, ACTIVE).T), aux


def of_two_dense(p, q, ids):
    h = bag(p["t"], ids)
    return jnp.sum(h @ take(q, ACTIVE).T), {"h": h, "table": p["t"]}


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1, 0), (1,)], ids=str)
def test_argnums_and_aux(argnums):
    args = (PARAMS, PARAMS["u"], IDS)
    marked = (tables(PARAMS), Table(PARAMS["u"]), IDS)
    (value, aux), grads = value_and_grad(of_two, argnums, has_aux=True)(*marked)
    (want, want_aux), want_grads = jax.value_and_grad(of_two_dense, argnums, True)(
        *args
    )
    assert_close((value, aux, dense(grads)), (want, want_aux, want_grads))
    assert isinstance(aux["table"], Table)
    only, same_aux = grad(of_two, argnums, has_aux=True)(*marked)
    assert_close((dense(only), same_aux), (want_grads, want_aux))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_aux_may_hold_keys_and_constants(wrap):
    """An update waits for aux, too, whatever types it has."""

    def loss(p, key):
        aux = {"key": jax.random.split(key)[1], "rate": 0.5, "flag": True}
        return jnp.sum(embedding_bag(p["t"], IDS)), aux

    key = jax.random.key(3)
    (_, aux), _ = wrap(value_and_grad(loss, has_aux=True))(tables(PARAMS), key)
    assert (aux["rate"], aux["flag"]) == (0.5, True)
    assert aux["key"] == jax.random.split(key)[1]


def test_arguments_that_are_not_differentiated_may_be_anything():
    def loss(p, name, *, scale):
        return scale[name] * jnp.sum(embedding_bag(p["t"], IDS))

    got = grad(loss)(tables(PARAMS), "double", scale={"double": 2.0})
    want = 2 * one_hot(IDS, N).sum((0, 1))[:, None] * jnp.ones(D)
    np.testing.assert_allclose(got["t"].to_dense(), want, rtol=1e-6)
    assert grad(loss).__name__ == "loss"


def test_frozen_tables_are_constants():
    frozen = Table(PARAMS["u"])

    def loss(w, p, ids):
        return two_layers(p | {"w": w, "u": frozen}, ids)

    got = grad(loss)(PARAMS["w"], tables(PARAMS), IDS)
    assert_close(got, jax.grad(two_layers_dense)(PARAMS, IDS)["w"])


def test_without_tables_it_is_that_of_jax():
    got = value_and_grad(two_layers_dense)(PARAMS, IDS)
    assert_close(got, jax.value_and_grad(two_layers_dense)(PARAMS, IDS), tol=1e-6)
    assert grad(lambda x: x**2)(3.0) == 6.0


def test_gradients_of_a_bfloat16_table_are_float32():
    params = tables(PARAMS) | {"t": Table(PARAMS["t"].astype(jnp.bfloat16))}
    rounded = PARAMS | {"t": PARAMS["t"].astype(jnp.bfloat16).astype(jnp.float32)}
    got = grad(two_layers)(params, IDS)
    assert got["t"].dtype == jnp.float32
    assert_close(dense(got), jax.grad(two_layers_dense)(rounded, IDS))
    of_jax = jax.grad(two_layers)(params, IDS)["t"].value
    assert of_jax.dtype == jnp.bfloat16
    np.testing.assert_array_equal(of_jax, got["t"].to_dense().astype(jnp.bfloat16))


# ---- memory -------------------------------------------------------------------------


def array_sizes(jaxpr):
    """Elements of every array that is formed, at any depth."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.size for var in eqn.outvars)
        for sub in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from array_sizes(sub)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"constants"}))
def test_nothing_of_the_size_of_a_table_is_formed(name):
    """But where the loss itself reads a whole table, as a constant."""
    n, loss = 100_000, LOSSES[name][0]
    big = jax.ShapeDtypeStruct((n, D), jnp.float32)
    w = jax.ShapeDtypeStruct((D, D), jnp.float32)
    params = {"t": Table(big), "u": Table(big), "w": w}
    traced = jax.make_jaxpr(value_and_grad(loss))(params, IDS)
    assert max(array_sizes(traced.jaxpr)) < n


def test_per_example_sets_form_no_rows():
    """Nothing of size b k d: ids, cotangents and the hidden layer only."""
    b, k, d, n = 8, 50, 40, 10_000
    table = Table(jax.ShapeDtypeStruct((n, d), jnp.float32))
    h, ids = jnp.ones((b, d)), jnp.zeros((b, k), jnp.int32)
    loss = lambda t: jnp.sum(jnp.sin(sampled_matmul(h, t, ids)))  # noqa: E731
    traced = jax.make_jaxpr(grad(loss))(table)
    assert max(array_sizes(traced.jaxpr)) <= b * k


# ---- shard_map ----------------------------------------------------------------------

MESH = Mesh(np.array(jax.devices()[:2]), ("i",))


@pytest.mark.parametrize(
    "name", ["two_layers", "per_example", "tied", "mapped", "scanned"]
)
def test_shared_tables_in_shard_map_have_the_gradients_of_all_shards(name):
    loss, oracle = LOSSES[name]
    both = jnp.stack([IDS, make_ids(1)])

    def of_shard(params, ids):
        return value_and_grad(lambda p: jax.lax.pmean(loss(p, ids[0]), "i"))(params)

    sharded = jax.shard_map(
        of_shard,
        mesh=MESH,
        in_specs=(PartitionSpec(), PartitionSpec("i")),
        out_specs=PartitionSpec(),
    )
    value, grads = jax.jit(sharded)(tables(PARAMS), both)
    mean = lambda p: (oracle(p, both[0]) + oracle(p, both[1])) / 2  # noqa: E731
    assert_close((value, dense(grads)), jax.value_and_grad(mean)(PARAMS))


# ---- what cannot work ---------------------------------------------------------------


def in_while_loop(p):
    body = lambda s: (s[0] + 1, s[1] + jnp.sum(embedding_bag(p["t"], IDS)))  # noqa: E731
    return jax.lax.while_loop(lambda s: s[0] < 2, body, (0, 0.0))[1]


def in_shard_map(p):
    spec = PartitionSpec()
    read = lambda t: jnp.sum(embedding_bag(t, IDS))  # noqa: E731
    return jax.shard_map(read, mesh=MESH, in_specs=spec, out_specs=spec)(p["t"].value)


def in_carry(p):
    def body(tables, _):
        return tables[::-1], jnp.sum(embedding_bag(tables[0], IDS))

    return jnp.sum(jax.lax.scan(body, (p["t"], p["u"]), length=2)[1])


def in_custom_rule(p):
    @jax.custom_vjp
    def read(t):
        return jnp.sum(embedding_bag(t, IDS))

    read.defvjp(lambda t: (read(t), t), lambda t, ct: (t,))
    return read(p["t"].value)


def from_checkpoint(p):
    t = jax.checkpoint(lambda t, x: (t, x * 2))(p["t"].value, p["w"])[0]
    return jnp.sum(embedding_bag(t, IDS))


REFUSED = {
    "square": (lambda p: jnp.sum(p["t"].value ** 2), r"`integer_pow` .*stop_gradient"),
    "matmul": (lambda p: jnp.sum(p["w"] @ p["t"].value.T), "take_rows"),
    "index": (lambda p: jnp.sum(p["t"].value[IDS]), "take_rows, embedding_bag"),
    "cast": (lambda p: jnp.sum(p["t"].value.astype(jnp.bfloat16)), "an array in place"),
    "while": (in_while_loop, r"`while` .*use scan"),
    "shard_map": (in_shard_map, "inside of shard_map"),
    "carry": (in_carry, r"`scan` .*outside of the carry"),
    "custom_rule": (in_custom_rule, "outside of the function with a custom rule"),
    "returned": (from_checkpoint, "Do not return it"),
    "as_input": (
        lambda p: jnp.sum(sampled_matmul(p["t"], p["w"], ACTIVE)),
        "take_rows",
    ),
}


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", REFUSED)
def test_other_reads_are_refused_by_name(name, jitted):
    loss, message = REFUSED[name]
    call = grad(loss)
    with pytest.raises(TypeError, match=message) as raised:
        (jax.jit(call) if jitted else call)(tables(PARAMS))
    assert re.match(r"value_and_grad: .*args\[0\]\['t'\]", str(raised.value))
    assert f"[{N},{D}]" in str(raised.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grad(lambda p: 2 * PARAMS["w"])(PARAMS), TypeError, "scalar"),
        (lambda: grad(lambda x: 1.0 * x)(3), TypeError, "real"),
        (
            lambda: value_and_grad(lambda p: 1.0, has_aux=True)(PARAMS),
            TypeError,
            r"must return a pair \(value, aux\); got float",
        ),
        (
            lambda: grad(lambda t: 1.0)(Table(jnp.ones((2, N, D)))),
            ValueError,
            r"the table args\[0\] must have 2 axes; .*f32\[2,7,5\]",
        ),
        (
            lambda: grad(lambda t: 1.0)(Table(jnp.ones((N, D), jnp.float16))),
            TypeError,
            r"must be float32 or bfloat16; .*f16\[7,5\]",
        ),
        (
            lambda: grad(lambda p: 1.0, argnums=1)(PARAMS),
            ValueError,
            r"argnums .*; got 1",
        ),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
