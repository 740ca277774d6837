"""A process that makes the call of one job, and times it whenever it is its turn.

Reads the seconds of a turn, a line each, and answers with a line of JSON. It is started
by turns.py, not by hand.
"""

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

_WARM_CALLS = 3  # the first compiles, the next ones fault in what is reused


def main() -> None:
    """Warms up, answers once, then takes turns until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    make, arguments = json.loads(sys.argv[1])
    module, name = make.split(":")
    call = getattr(importlib.import_module(module), name)(**arguments)
    for _ in range(_WARM_CALLS):
        last = timed(call)
    gc.collect()
    gc.freeze()
    answer(answers, {"peak_bytes": peak_bytes()})
    for line in sys.stdin:
        seconds = turn(call, float(line), last)
        answer(answers, {"seconds": seconds, "peak_bytes": peak_bytes()})


def turn(call: Callable[[], Any], limit: float, expected: float) -> list[float]:
    """Seconds of each call; the first, which finds caches of others, is left out.

    Where a call is as long as a turn, it does not matter, and all are counted.
    """
    if expected < limit:
        timed(call)
    began, seconds = time.perf_counter(), []
    while not seconds or time.perf_counter() - began < limit:
        seconds.append(timed(call))
    return seconds


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call: what it says, or what it takes."""
    began = time.perf_counter()
    told = call()
    return told if isinstance(told, float) else time.perf_counter() - began


def answer(file: TextIO, what: dict[str, Any]) -> None:
    """Writes a line."""
    print(json.dumps(what), file=file, flush=True)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
