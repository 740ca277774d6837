"""How precise products of shared sets are: as ``jax.default_matmul_precision`` asks.

Kernels take an f32 as the sum of three bf16, which loses nothing, or, where bfloat16 is
asked for, as the nearest one. Sums are in f32. A level that does not multiply bf16
computes in f32, which is no less precise than what is asked for.
"""

import jax

ALL_PARTS = 3
_BFLOAT16 = ("bfloat16", "BF16_BF16_F32")


def num_parts() -> int:
    """bf16 parts of an f32 operand, as JAX is configured where an op is called."""
    wanted = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return 1 if wanted in _BFLOAT16 else ALL_PARTS


def of_dot(num_parts: int) -> str:
    """The precision of the same product in plain JAX."""
    return "bfloat16" if num_parts == 1 else "highest"
