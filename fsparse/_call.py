"""The only user of ``jax.ffi``: custom calls as ops that JAX can transform.

An op is a JAX primitive. On CPU it lowers to the C++ handler of its name, elsewhere to
its pure-JAX twin, which takes and returns exactly what the handler does. As a primitive
it keeps its identity in a jaxpr under every transformation, which is what
``fsparse.value_and_grad`` looks for.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from fsparse import _ffi

TARGETS = tuple(_ffi.registrations())
Operands = tuple[Any, ...]


def _register() -> None:
    if _ffi.cpu_level == "unsupported":
        raise ImportError(
            "fsparse: FSPARSE_CPU_LEVEL names an instruction set that this CPU or "
            "build lacks; it must be one of baseline, avx2, avx512, amx, or unset."
        )
    for name, capsule in _ffi.registrations().items():
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")


_register()


def define(
    name: str,
    out_types: Callable[..., Sequence[jax.ShapeDtypeStruct]],
    twin: Callable[..., tuple[Any, ...]],
    *,
    batch: Callable[..., tuple[Any, ...]],
    transposes: Mapping[int, Callable[..., Any]] | None = None,
    jvp: Callable[..., tuple[Any, Any]] | None = None,
    linear: Callable[..., Any] | None = None,
    aliases: Mapping[int, int] | None = None,
    attributes: Mapping[str, int] | None = None,
) -> Callable[..., tuple[Any, ...]]:
    """Makes an op of the handler ``name``: ``op(*operands, **params) -> results``.

    ``params`` are static and hashable, and every function below is given them, too.

    Args:
      name: a target of ``_ffi.registrations()``.
      out_types: shapes and dtypes of the results, of the operands' avals.
      twin: the same function in plain JAX.
      batch: ``(size, batched, *operands) -> results``, the rule for ``vmap``. Operands
        for which ``batched`` is true, and all results, have the mapped axis first.
      transposes: for an op whose first result is linear in each of some operands, and
        whose others are scratch: operand index -> ``(ct, *operands) -> ct of that
        operand``, which stands among the operands as a shape. Forward mode follows.
      jvp: ``(primals, tangents) -> (results, tangents)`` for any other op, where a
        tangent is None if it is zero; by default that of the twin.
      linear: the transpose of an op that is linear in its first operand, and not in the
        others: as in ``transposes``. Forward mode is by ``jvp``.
      aliases: operand index -> result index, for results that overwrite operands.
      attributes: params that the handler is given, too, as i32, and their defaults.

    Returns:
      A function of arrays that vary over the same axes of a mesh (`vary_together`).
    """
    op = Primitive(name)
    op.multiple_results = True

    def call(*operands: Any, **params: Any) -> tuple[Any, ...]:
        return tuple(op.bind(*operands, **params))

    def on_cpu(*operands: Any, **params: Any) -> Any:
        out = tuple(out_types(*operands, **params))
        alias = dict(aliases or {})
        given = {k: np.int32(params.get(k, x)) for k, x in (attributes or {}).items()}
        custom_call = jax.ffi.ffi_call(name, out, input_output_aliases=alias)
        return custom_call(*operands, **given)

    op.def_impl(_compiled(call))
    op.def_abstract_eval(_typed(out_types, aliases or {}))
    mlir.register_lowering(op, mlir.lower_fun(twin, multiple_results=True))
    on_cpu_rule = mlir.lower_fun(on_cpu, multiple_results=True)
    mlir.register_lowering(op, on_cpu_rule, platform="cpu")
    batching.primitive_batchers[op] = _batched(batch)
    if transposes is None:
        ad.primitive_jvps[op] = _jvp(call, twin, jvp)
        if linear is not None:
            ad.primitive_transposes[op] = _transposed({0: linear})
    else:
        ad.primitive_jvps[op] = _linear_jvp(call, transposes)
        ad.primitive_transposes[op] = _transposed(transposes)
    return call


def vary_together(*xs: jax.Array) -> tuple[jax.Array, ...]:
    """Marks arrays as varying over the mesh axes that any of them varies over.

    Only ``shard_map`` tells arrays apart this way, and an op wants its operands alike.
    The gradient of an operand that all shards share is then summed. Nothing is copied.
    """
    every = frozenset[str]().union(*map(varying_axes, xs))
    return tuple(vary_over(x, every) for x in xs)


def vary_over(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """Marks an array as varying over mesh axes, too."""
    missing = tuple(axes - varying_axes(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def varying_axes(x: Any) -> frozenset[str]:
    """The mesh axes over which an array differs between shards."""
    aval: Any = jax.typeof(x)
    return frozenset(aval.mat.varying if hasattr(aval, "mat") else aval.vma)


# ---- the rules of a primitive -------------------------------------------------------


def _compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """Eager calls: compiled once for each set of parameters and types."""

    @cache
    def with_params(params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
        return jax.jit(lambda *operands: call(*operands, **dict(params)))

    def impl(*operands: Any, **params: Any) -> Any:
        with jax.disable_jit(False):
            return with_params(tuple(sorted(params.items())))(*operands)

    return impl


def _typed(
    out_types: Callable[..., Any], aliases: Mapping[int, int]
) -> Callable[..., list[Any]]:
    """Results vary over a mesh as the operands that they overwrite, or the first."""
    overwritten = {result: operand for operand, result in aliases.items()}

    def typed(like: Any, out: jax.ShapeDtypeStruct) -> Any:
        spec = PartitionSpec(*[None] * len(out.shape))
        sharding = NamedSharding(like.sharding.mesh, spec)
        return like.update(out.shape, out.dtype, weak_type=False, sharding=sharding)

    def abstract_eval(*avals: Any, **params: Any) -> list[Any]:
        outs = enumerate(out_types(*avals, **params))
        return [typed(avals[overwritten.get(i, 0)], out) for i, out in outs]

    return abstract_eval


def _batched(batch: Callable[..., Any]) -> Callable[..., Any]:
    def rule(operands: Operands, dims: tuple[int | None, ...], **params: Any) -> Any:
        pairs = list(zip(operands, dims, strict=True))
        size = next(x.shape[dim] for x, dim in pairs if dim is not None)
        first = [x if dim is None else jnp.moveaxis(x, dim, 0) for x, dim in pairs]
        outs = batch(size, [dim is not None for dim in dims], *first, **params)
        return outs, [0] * len(outs)

    return rule


def _linear_jvp(call: Callable[..., Any], transposes: Mapping[int, Any]) -> Any:
    """The product rule: one call for each operand that moves."""

    def rule(primals: Operands, tangents: Operands, **params: Any) -> Any:
        outs = call(*primals, **params)
        moved = [
            call(*primals[:i], tangents[i], *primals[i + 1 :], **params)[0]
            for i in transposes
            if not isinstance(tangents[i], ad.Zero)
        ]
        zeros = list(map(_symbolic_zero, outs))
        return outs, [sum(moved[1:], moved[0]) if moved else zeros[0], *zeros[1:]]

    return rule


def _transposed(transposes: Mapping[int, Any]) -> Any:
    def rule(cts: Sequence[Any], *operands: Any, **params: Any) -> list[Any]:
        ct = cts[0]
        (unknown,) = [i for i in transposes if ad.is_undefined_primal(operands[i])]
        out: list[Any] = [None] * len(operands)
        if not isinstance(ct, ad.Zero):
            known = [None if ad.is_undefined_primal(x) else x for x in operands]
            aval = operands[unknown].aval
            known[unknown] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
            out[unknown] = transposes[unknown](ct, *known, **params)
        return out

    return rule


def _jvp(call: Callable[..., Any], twin: Callable[..., Any], jvp: Any) -> Any:
    def of_twin(primals: Operands, tangents: Operands, **params: Any) -> Any:
        dense = tuple(map(_instantiate, primals, tangents))
        _, moved = jax.jvp(lambda *xs: twin(*xs, **params), primals, dense)
        return call(*primals, **params), moved

    def rule(primals: Operands, tangents: Operands, **params: Any) -> Any:
        known = tuple(None if isinstance(t, ad.Zero) else t for t in tangents)
        outs, moved = (jvp or of_twin)(primals, known, **params)
        return outs, [
            _symbolic_zero(y) if dy is None or dy.dtype == jax.dtypes.float0 else dy
            for y, dy in zip(outs, moved, strict=True)
        ]

    return rule


def _symbolic_zero(primal: Any) -> ad.Zero:
    return ad.Zero(jax.typeof(primal).to_tangent_aval())


def _instantiate(primal: Any, tangent: Any) -> Any:
    """Zeros in place of no tangent, as ``jax.jvp`` wants them."""
    if tangent is not None:
        return tangent
    if jnp.issubdtype(primal.dtype, jnp.floating):
        return vary_over(jnp.zeros_like(primal), varying_axes(primal))
    return np.zeros(primal.shape, jax.dtypes.float0)
