"""Compilation without optimization, for large programs that run once.

XLA's own code need not be fast there; handlers are C++ anyhow. What is said about bits,
copies or memory is said of programs that are compiled as users compile them.
"""

from functools import partial

import jax

OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
quick_jit = partial(jax.jit, compiler_options=OPTIONS)
