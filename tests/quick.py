"""Compilation without optimization, for large programs that run once.

XLA's own code need not be fast there; handlers are C++ anyhow. What is said about bits,
copies or memory is said of programs that are compiled as users compile them.
"""

from functools import partial

import jax

OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    OPTIONS["xla_cpu_use_fusion_emitters"] = False  # later ones know no other way
quick_jit = partial(jax.jit, compiler_options=OPTIONS)
