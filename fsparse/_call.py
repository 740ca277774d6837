"""The only user of ``jax.ffi``: registers the custom calls and runs them on CPU.

A call is ``custom_call(name, out_types, *operands)`` for an op whose operands and
results are exactly those of the C++ handler of that name. Elsewhere than on CPU the
op's pure-JAX twin is lowered in its place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from fsparse import _ffi

TARGETS = tuple(_ffi.registrations())


def _register() -> None:
    if _ffi.cpu_level == "unsupported":
        raise ImportError(
            "fsparse: FSPARSE_CPU_LEVEL names an instruction set that this CPU or "
            "build lacks; it must be one of baseline, avx2, avx512, or unset."
        )
    for name, capsule in _ffi.registrations().items():
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")


_register()


def vary_together(*xs: jax.Array) -> tuple[jax.Array, ...]:
    """Marks arrays as varying over the mesh axes that any of them varies over.

    Only ``shard_map`` tells arrays apart this way, and a custom call wants its operands
    and results alike. Done ahead of a VJP rule, it sums the gradient of an operand that
    all shards share. Nothing is copied.
    """
    axes = [_varying_axes(x) for x in xs]
    every = frozenset[str]().union(*axes)
    return tuple(
        jax.lax.pcast(x, tuple(every - own), to="varying") if every - own else x
        for x, own in zip(xs, axes, strict=True)
    )


def _varying_axes(x: jax.Array) -> frozenset[str]:
    aval: Any = jax.typeof(x)
    return frozenset(aval.mat.varying if hasattr(aval, "mat") else aval.vma)


def custom_call(
    name: str,
    out_types: Sequence[jax.ShapeDtypeStruct],
    twin: Callable[..., Any],
    *operands: jax.Array,
    aliases: Mapping[int, int] | None = None,
) -> Any:
    """Runs the handler ``name`` on CPU, and ``twin`` on every other platform.

    Args:
      name: a target of ``_ffi.registrations()``.
      out_types: shapes and dtypes of the handler's results.
      twin: pure-JAX function of the same operands, returning a tuple like
        ``out_types``.
      *operands: the handler's operands.
      aliases: operand index -> result index, for results that overwrite operands.

    Returns:
      A tuple of arrays.
    """
    call = jax.ffi.ffi_call(
        name, tuple(out_types), input_output_aliases=dict(aliases or {})
    )

    def varying(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *xs: vary_together(xs[0], *run(*xs))[1:]

    return jax.lax.platform_dependent(
        *vary_together(*operands), cpu=varying(call), default=varying(twin)
    )
