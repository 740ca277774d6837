"""Every instruction set passes the checks that the default one passes. This file is
also the program that runs them at the level of ``FSPARSE_CPU_LEVEL``.
"""

import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import test_exact_adam
import test_fused_softmax
import test_hadamard_codes
import test_losses
import test_matmul
import test_precision
import test_quantized
import test_rounding
import test_rows
import test_shared_grads
import test_sign_codes
import test_topk

from fsparse import _ffi

AVX512 = {"avx512f", "avx512vl", "avx512dq", "avx512bw"}
NEEDS = {
    "baseline": set(),
    "avx2": {"avx2", "fma"},
    "avx512": AVX512,
    "amx": AVX512 | {"amx_tile", "amx_bf16"},
}


def cpu_flags():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [line.split(":")[1].split() for line in lines if line.startswith("flags")]
    return set(flags[0]) if flags else set()


def check_all():
    rng = np.random.default_rng(0)
    for size in [(9, 64, 3, 65), (65, 65, 8, 100), *test_matmul.LARGE]:
        for shared in (False, True):
            operands = test_matmul.make(rng, *size, shared)
            test_matmul.check_family(*operands)
            test_matmul.check_bf16(*operands)
    for size in test_shared_grads.SIZES:
        test_shared_grads.test_matches_float64(rng, size)
        test_shared_grads.test_bf16_has_the_bits_of_f32(rng, size)
    for size in test_fused_softmax.SIZES:
        test_fused_softmax.test_matches_float64(rng, size)
        test_fused_softmax.test_bf16_has_the_bits_of_f32(rng, size)
    test_fused_softmax.test_logits_of_all_magnitudes(rng)
    test_shared_grads.test_values_of_all_magnitudes(rng)
    for size in test_precision.SIZES:
        test_precision.test_operands_are_rounded_and_sums_are_not(rng, size)
        test_precision.test_bf16_tables_have_the_bits_of_f32_tables(rng, size)
    for d in (20, 300):
        test_precision.test_the_fused_loss_is_that_of_rounded_logits(rng, d)
    test_matmul.test_bf16_has_the_bits_of_f32_for_every_rest_of_a_vector(rng)
    for shared in (False, True):
        test_matmul.test_every_bf16_is_widened(shared)
        for dtype in (jnp.float32, jnp.bfloat16):
            test_matmul.test_family_matches_its_twin(rng, shared, dtype)
            test_matmul.test_padding_hides_nan(rng, 9, shared, dtype)
    for name in test_rows.OPTIMIZERS:
        for dtype in (test_rows.F32, test_rows.BF16):
            test_rows.test_matches_dense_float64_over_steps(
                rng, name, dtype, (264, 33, 65, 40)
            )
    for name in test_rows.OPS:
        for dtypes in test_rows.DTYPES:
            test_rows.test_matches_its_twin(rng, name, dtypes)
    test_matmul.check_magnitudes()
    for size in test_losses.SIZES:
        test_losses.test_matches_its_twin(rng, size)
    test_losses.test_exp_is_right_within_two_units()
    test_exact_adam.test_catching_up_by_formula(rng, "kernel", 4)
    test_rounding.test_the_noise_is_the_documented_hash(rng)
    test_rounding.test_representable_values_stay()
    for size in test_topk.SIZES:
        test_topk.test_matches_a_stable_sort(rng, size)
        test_topk.test_bf16_has_the_bits_of_f32(rng, size)
    for size in test_topk.AMONG:
        test_topk.test_among_given_rows_matches_a_stable_sort(rng, size)
    for size in test_quantized.SIZES:  # the same bits at every level
        test_quantized.test_scores_are_exact_sums_of_integers(rng, size)
        test_quantized.test_has_the_bits_of_its_twin(rng, size)
    for dtype in (jnp.float32, jnp.bfloat16):
        test_topk.test_matches_its_twin(rng, (5, 300, 7), dtype)
        for size in test_sign_codes.SIZES:
            test_sign_codes.test_matches_float64(rng, size, dtype)
            test_sign_codes.test_matches_its_twin_to_the_bit(rng, size, dtype)
        for d in (3, 64, 700):
            test_sign_codes.test_a_row_has_the_same_codes_alone_and_in_any_batch(
                rng, d, dtype
            )
    for bad in (np.nan, np.inf):
        test_sign_codes.test_rows_that_are_not_finite_are_zeros(rng, bad, 9)
    for size in (*test_hadamard_codes.SIZES, test_hadamard_codes.MANY_PASSES):
        for dtype in (jnp.float32, jnp.bfloat16):
            test_hadamard_codes.test_matches_its_twin_to_the_bit(rng, size, dtype)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Of XLA's programs, which are the same at every level: they call the kernels."""
    folder = tmp_path_factory.getbasetemp()
    of_a_worker = "PYTEST_XDIST_WORKER" in os.environ
    return (folder.parent if of_a_worker else folder) / "compiled"


def run(level, cache):
    settings = {
        "FSPARSE_CPU_LEVEL": level,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(
        [sys.executable, __file__],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=900,  # with other work beside it
    )


@pytest.mark.parametrize("level", NEEDS)
def test_level_passes_the_checks(level, cache):
    missing = NEEDS[level] - cpu_flags()
    done = run(level, cache)
    if missing and "ImportError: fsparse: FSPARSE_CPU_LEVEL" in done.stderr:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [level]


@pytest.mark.parametrize("level", ["avx1024", "AVX2", "unsupported"])
def test_other_names_are_refused(level, cache):
    done = run(level, cache)
    assert "must be one of baseline, avx2, avx512, amx, or unset" in done.stderr
    assert done.returncode != 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_the_best_level_is_the_default():
    usable = [level for level, needs in NEEDS.items() if needs <= cpu_flags()]
    assert _ffi.cpu_level == (os.environ.get("FSPARSE_CPU_LEVEL") or usable[-1])


if __name__ == "__main__":
    check_all()
    print(_ffi.cpu_level)
