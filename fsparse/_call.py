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
            "fsparse: FSPARSE_CPU_LEVEL names an instruction set that this CPU or build "
            "lacks; it must be one of baseline, avx2, avx512, or unset."
        )
    for name, capsule in _ffi.registrations().items():
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")


_register()


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

    def on_cpu(*xs: jax.Array) -> Any:
        call = jax.ffi.ffi_call(
            name, tuple(out_types), input_output_aliases=dict(aliases or {})
        )
        return tuple(call(*xs))

    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=twin)
