"""Systems that take turns, each in a process of its own.

PyTorch's threads spin for a while after each parallel loop, XLA's sleep; in one process
they would fight for the cores, and one would inherit the heap that the other left. So
each system is a child that sleeps until it reads a line, and only one computes at a
time. A slow minute of the machine falls on all of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jobs import Job

_WORKER = Path(__file__).with_name("worker.py")
_SHOWN_LINES = 8


class Found(NamedTuple):
    """What a job's turns gave."""

    seconds: list[list[float]]  # of each call of each round
    peak_bytes: int


class Child:
    """A running job."""

    def __init__(self, job: Job) -> None:
        self.job, self.turns, self.peak_bytes = job, [], 0
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        made = json.dumps([job.make, job.shape | job.arguments])
        self.process = subprocess.Popen(
            [sys.executable, "-u", _WORKER, made],
            env=os.environ | job.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def wait_until_warm(self) -> None:
        """Ends when it has made its first calls."""
        self._read()

    def turn(self, seconds: float) -> None:
        """Lets it compute for so long, and at least once."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has died, and reading tells why
            print(seconds, file=self.process.stdin, flush=True)
        self.turns.append(self._read()["seconds"])

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            told = "".join(self.errors.readlines()[-_SHOWN_LINES:])
            name = f"{self.job.system} at {self.job.shape}"
            raise ChildFailedError(f"{name} ended, {self.process.returncode}:\n{told}")
        found = json.loads(line)
        self.peak_bytes = found["peak_bytes"]
        return found

    def close(self) -> None:
        """Ends it and frees its memory."""
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            assert file
            with suppress(BrokenPipeError):
                file.close()


class ChildFailedError(Exception):
    """A system that did not start or did not finish."""


def take_turns(
    group: list[Job], rounds: int, seconds: float, tick: Callable[[str], None]
) -> tuple[list[tuple[Job, Found]], list[str]]:
    """What each job of a group found, and what went wrong."""
    with ExitStack() as stack:
        children, complaints = [], []
        for job in group:
            tick(f"start {job.system}")
            child = Child(job)
            stack.callback(child.close)
            try:
                child.wait_until_warm()
                children.append(child)
            except ChildFailedError as e:
                complaints.append(str(e))
        for _ in range(rounds):
            for child in list(children):
                tick(child.job.system)
                try:
                    child.turn(seconds)
                except ChildFailedError as e:
                    complaints.append(str(e))
                    children.remove(child)
        found = [(c.job, Found(c.turns, c.peak_bytes)) for c in children]
    return found, complaints
