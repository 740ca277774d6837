"""The machine's limits, measured in the same run, and how long work must take by them.

Kinds of work, and what the rate of each is the best of several trials of:

  read           bytes read in order
  copy           bytes copied, each read and written: 2 for a byte
  random_read    bytes of rows of 512 bytes, read in random order
  sorted_read    the same rows in rising order
  random_update  bytes of such rows, sorted, read and written: 2 for a byte
  flops_f32      multiplications and additions of f32 in registers
  flops_bf16     those of bf16 products that are summed in f32, if the CPU has them

A small C++ program (roofline.cc) is compiled by the user's compiler, $CXX or g++, for
this machine. Without one, rates are unknown, and fractions null.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from jobs import Phase

Rates = dict[str, float]  # kind -> bytes or operations a second

_SOURCE = Path(__file__).with_name("roofline.cc")
_ROW = 128  # f32 values: 512 bytes
_NUM_ROWS = 670_088  # as train-amazon670k: caches hold as much of both tables
_PARTS = 8
_TRIALS = 7


class NoProbesError(Exception):
    """Why nothing can be measured here."""


def compiled() -> ctypes.CDLL:
    """The probes."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not compiler:
        raise NoProbesError("there is no g++, and $CXX names no other compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "roofline.so"
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-std=c++17"]
        flags += ["-shared", "-fPIC", "-pthread", "-o", str(library)]
        command = [compiler, *flags, str(_SOURCE)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise NoProbesError(f"{compiler} failed: {made.stderr[:500]}")
        probes = ctypes.CDLL(str(library))  # stays mapped when the file is gone
    probes.multiply_f32.restype = probes.multiply_bf16.restype = ctypes.c_double
    return probes


def measure(threads: int, *, quick: bool = False) -> Rates:
    """The rates of this machine on so many threads."""
    probes = compiled()
    trials = 2 if quick else _TRIALS
    num_rows = 20_000 if quick else _NUM_ROWS
    steps = 100_000 if quick else 5_000_000
    rates = of_memory(probes, num_rows, threads, trials)
    for kind in ("f32", "bf16"):
        probe = getattr(probes, f"multiply_{kind}")
        done = probe(ctypes.c_int64(steps), threads)
        if done:
            seconds = best(lambda p=probe: p(ctypes.c_int64(steps), threads), trials)
            rates[f"flops_{kind}"] = done / seconds
    return rates


def of_memory(probes: ctypes.CDLL, num_rows: int, threads: int, trials: int) -> Rates:
    """Bytes a second of each kind of access."""
    table = np.ones((num_rows, _ROW), np.float32)
    other = np.ones_like(table)
    p, q, size = pointer(table), pointer(other), ctypes.c_int64(table.size)
    order = np.random.default_rng(0).permutation(num_rows).astype(np.int32)
    parts = order.reshape(_PARTS, -1)  # others each time: caches hold none of them
    random, rising = cycle(parts), cycle(np.sort(parts))
    rows = ctypes.c_int64(parts.shape[1]), ctypes.c_int64(_ROW), threads
    part = table.nbytes // _PARTS

    def visit(probe: Any, ids: Iterator[np.ndarray]) -> Callable[[], object]:
        return lambda: probe(p, pointer(next(ids)), *rows)

    calls: dict[str, tuple[float, Callable[[], object]]] = {
        "read": (table.nbytes, lambda: probes.read_all(p, size, threads)),
        "copy": (2 * table.nbytes, lambda: probes.copy_all(q, p, size, threads)),
        "random_read": (part, visit(probes.read_rows, random)),
        "sorted_read": (part, visit(probes.read_rows, rising)),
        "random_update": (2 * part, visit(probes.update_rows, rising)),
    }
    return {kind: amount / best(call, trials) for kind, (amount, call) in calls.items()}


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """To its first element."""
    return ctypes.c_void_p(array.ctypes.data)


def best(call: Callable[[], object], trials: int) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(trials + 1):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def least_seconds(work: tuple[Phase, ...], rates: Rates) -> float | None:
    """The sum over phases of the longer of moving and computing; None if unknown."""
    if not work or any(kind not in rates for phase in work for kind in phase):
        return None
    return sum(max(_seconds(p, rates, True), _seconds(p, rates, False)) for p in work)


def amount(work: tuple[Phase, ...]) -> float | None:
    """The bytes of the work, or its operations if it moves none."""
    totals = [_amounts(work, computed) for computed in (False, True)]
    return totals[0] or totals[1] or None


def _seconds(phase: Phase, rates: Rates, computed: bool) -> float:
    parts = (
        n / rates[k] for k, n in phase.items() if k.startswith("flops") == computed
    )
    return sum(parts)


def _amounts(work: tuple[Phase, ...], computed: bool) -> float:
    return sum(
        n for p in work for k, n in p.items() if k.startswith("flops") == computed
    )
