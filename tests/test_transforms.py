"""Every public op under every transformation, against its dense oracle."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from quick import quick_jit
from transform_cases import CASES

from fsparse._call import TARGETS

SIZE = 3  # of a mapped axis


def is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


every_case = named(CASES)
differentiable = named(
    [c for c in CASES if any(map(is_float, jax.tree.leaves(c.args)))]
)


def assert_same(got, want, tol=2e-5):
    """Same shapes and dtypes, same integers, floats up to rounding."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if is_float(a):
            np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
        else:
            np.testing.assert_array_equal(a, b)


def assert_same_under(transform, case, *args, tol=2e-5):
    """One compilation for the op and its oracle."""

    def both(*args):
        return transform(case.fn)(*args), transform(case.oracle)(*args)

    # Second derivatives of 8-bit scores lose half of their digits, and more where a
    # program rounds each product.
    jit = jax.jit if case.name.endswith("int8_top_k") else quick_jit
    assert_same(*jit(both)(*args), tol=tol)


# ---- ways to call -------------------------------------------------------------------


def in_scan(f):
    def call(*args):
        _, outs = jax.lax.scan(lambda c, _: (c, f(*c)), args, length=2)
        return jax.tree.map(lambda out: out[1], outs)

    return call


def zeros_of(f, *args):
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, *args))


def in_while_loop(f):
    def call(*args):
        first = (jnp.int32(0), zeros_of(f, *args))
        body = lambda state: (state[0] + 1, f(*args))  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < 2, body, first)[1]

    return call


def in_cond(f):
    def call(*args):
        yes = (
            jnp.sum(jnp.isnan(jax.tree.leaves(args)[0])) == 0
        )  # known at run time only
        return jax.lax.cond(yes, f, partial(zeros_of, f), *args)

    return call


WAYS = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "scan": in_scan,
    "while_loop": in_while_loop,
    "cond": in_cond,
}


@every_case
def test_eager(case):
    assert_same(case.fn(*case.args), case.oracle(*case.args))


@every_case
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_call(case, way):
    assert_same_under(WAYS[way], case, *case.args)


@every_case
def test_disable_jit(case):
    with jax.disable_jit():
        got = case.fn(*case.args)
    assert_same(got, case.oracle(*case.args))


@every_case
def test_x64_stays_32_bit(case):
    want = case.oracle(*case.args)
    with jax.enable_x64(True):
        assert_same(jax.jit(case.fn)(*case.args), want)


@every_case
def test_strict_promotion(case):
    """Nothing is promoted, by dtype or by rank, behind the user's back."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(case.fn, *case.args)
        jax.eval_shape(jax.vmap(case.fn), *stacked(case.args))


@every_case
def test_eval_shape(case):
    got, want = (jax.eval_shape(f, *case.args) for f in (case.fn, case.oracle))
    assert [(s.shape, s.dtype) for s in jax.tree.leaves(got)] == [
        (s.shape, s.dtype) for s in jax.tree.leaves(want)
    ]


# ---- vmap ---------------------------------------------------------------------------


def stacked(args, size=SIZE):
    """Other values for each index of a new leading axis, the first as they were."""

    def stack(x):
        return jnp.stack(
            [jnp.roll(x, i, axis=0) if x.ndim else x + i for i in range(size)]
        )

    return jax.tree.map(stack, args)


def pick(args, in_axes, size=SIZE):
    """The arguments, stacked where mapped."""
    pairs = zip(args, in_axes, strict=True)
    return [a if axis is None else stacked(a, size) for a, axis in pairs]


def subsets(case):
    every = product([0, None], repeat=len(case.args))
    return [in_axes for in_axes in every if 0 in in_axes]


@every_case
def test_vmap_over_every_subset(case):
    def each_subset(f):
        return lambda: [
            jax.vmap(f, in_axes)(*pick(case.args, in_axes)) for in_axes in subsets(case)
        ]

    assert_same_under(each_subset, case)


@every_case
def test_nested_vmap(case):
    """Outside over all arguments but the first, inside over the first only."""
    first, *rest = case.args
    outer, inner = [None] + [0] * len(rest), [0] + [None] * len(rest)

    def nested(f):
        return jax.vmap(jax.vmap(f, inner), outer)

    assert_same_under(nested, case, stacked(first), *stacked(rest))


# ---- derivatives --------------------------------------------------------------------


def total(f):
    """A scalar of all floats that ``f`` returns; curved, so that no order vanishes."""

    def call(*args):
        floats = filter(is_float, jax.tree.leaves(f(*args)))
        return sum(jnp.sum(jnp.sin(x)) for x in floats)

    return call


def grad(f):
    """The gradient in every float among the arguments, as a list."""

    def call(*args):
        leaves, tree = jax.tree.flatten(args)
        where = [i for i, x in enumerate(leaves) if is_float(x)]

        def of_floats(floats):
            new = dict(enumerate(leaves)) | dict(zip(where, floats, strict=True))
            return f(*tree.unflatten(list(new.values())))

        return jax.grad(of_floats)([leaves[i] for i in where])

    return call


DERIVATIVES = {
    "grad": lambda f: grad(total(f)),
    "grad_grad": lambda f: grad(total(grad(total(f)))),
    "vmap_grad": lambda f: jax.vmap(grad(total(f))),
    "grad_scan_checkpoint": lambda f: grad(total(in_scan(jax.checkpoint(f)))),
}


@differentiable
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(case, name):
    args = stacked(case.args) if "vmap" in name else case.args
    assert_same_under(DERIVATIVES[name], case, *args, tol=2e-4)


@differentiable
def test_gradient_through_vmap(case):
    """The first argument (often the table) is shared by all, and so is its gradient."""
    in_axes = [None] + [0] * (len(case.args) - 1)
    args = pick(case.args, in_axes)
    assert_same_under(
        lambda f: grad(total(jax.vmap(f, in_axes))), case, *args, tol=2e-4
    )


def jvp(f):
    """The values of ``f`` and their derivatives, along a direction of every float."""

    def call(*args):
        tangent = lambda x: (  # noqa: E731
            jnp.cos(3 * x) if is_float(x) else np.zeros(x.shape, jax.dtypes.float0)
        )
        outs, tangents = jax.jvp(f, args, jax.tree.map(tangent, args))
        floats = zip(*map(jax.tree.leaves, (outs, tangents)), strict=True)
        return outs, [dy for y, dy in floats if is_float(y)]

    return call


FORWARD = {
    "jvp": jvp,
    "vmap_jvp": lambda f: jax.vmap(jvp(f)),
    "jvp_scan": lambda f: jvp(in_scan(f)),
    "jvp_grad": lambda f: jvp(grad(total(f))),
    "grad_jvp": lambda f: grad(total(jvp(f))),
}


@differentiable
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(case, name):
    args = stacked(case.args) if "vmap" in name else case.args
    assert_same_under(FORWARD[name], case, *args, tol=2e-4)


@differentiable
def test_gradient_through_while_loop_is_refused(case):
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.eval_shape(grad(total(in_while_loop(case.fn))), *case.args)


# ---- devices and platforms ----------------------------------------------------------


def sharded(f, in_axes):
    """``jax.vmap(f, in_axes)``, with an index of the mapped axis on each device."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))
    specs = tuple(PartitionSpec(None if a is None else "i") for a in in_axes)

    def one(*args):
        own = [
            x if a is None else jax.tree.map(lambda leaf: leaf[0], x)
            for a, x in zip(in_axes, args, strict=True)
        ]
        return jax.tree.map(lambda out: out[None], f(*own))

    return jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("i"))


@every_case
@pytest.mark.parametrize("first", [0, None], ids=["all_sharded", "first_shared"])
def test_shard_map(case, first):
    in_axes = [first] + [0] * (len(case.args) - 1)
    args = pick(case.args, in_axes, 2)
    got = quick_jit(sharded(case.fn, in_axes))(*args)
    assert_same(got, quick_jit(jax.vmap(case.oracle, in_axes))(*args))


@differentiable
def test_gradient_through_shard_map(case):
    """A gradient of what all devices share is the sum over devices."""
    in_axes = [None] + [0] * (len(case.args) - 1)
    args = pick(case.args, in_axes, 2)
    got = quick_jit(grad(total(sharded(case.fn, in_axes))))(*args)
    want = quick_jit(grad(total(jax.vmap(case.oracle, in_axes))))(*args)
    assert_same(got, want, tol=2e-4)


def flat(case):
    """The op on a list of leaves: export knows no types of pytrees."""
    leaves, tree = jax.tree.flatten(case.args)
    return lambda *xs: jax.tree.leaves(case.fn(*tree.unflatten(xs))), leaves


@every_case
def test_export_round_trip(case):
    f, leaves = flat(case)
    allow = [jax.export.DisabledSafetyCheck.custom_call(target) for target in TARGETS]
    exported = jax.export.export(jax.jit(f), disabled_checks=allow)(*leaves)
    again = jax.export.deserialize(exported.serialize())
    assert_same(again.call(*leaves), case.oracle(*case.args))


@named([c for c in CASES if c.target])
def test_export_wants_the_custom_call_allowed(case):
    f, leaves = flat(case)
    with pytest.raises(
        ValueError, match=rf"no compat[\s\S]*custom_call @{case.target}"
    ):
        jax.export.export(jax.jit(f))(*leaves)


@named([c for c in CASES if c.target])
def test_other_platforms_lower_the_twin(case):
    def lowered(platform):
        traced = jax.jit(case.fn).trace(*case.args)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert case.target in lowered("cpu")
    for platform in ("cuda", "rocm", "tpu"):
        text = lowered(platform)
        assert not any(f"@{target}" in text for target in TARGETS)
