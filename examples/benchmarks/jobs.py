"""What there is to measure: a job is one system at one shape; a case is some jobs."""

from collections.abc import Callable
from typing import Any, NamedTuple

Shape = dict[str, Any]
Phase = dict[str, float]  # kind of traffic or arithmetic (see roofline.py) -> amount
_NONE: dict[str, Any] = {}
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class Job(NamedTuple):
    """A system at a shape, in a process of its own.

    ``make``, ``"module:function"``, is called there with ``shape`` and ``arguments`` by
    name, and returns the call that is timed. A call ends when its result is there; if
    it returns a float, these are its seconds.
    """

    shape: Shape
    system: str
    make: str
    arguments: dict[str, Any] = _NONE
    work: tuple[Phase, ...] = ()  # that cannot be avoided, phase by phase
    gigabytes: float = 0.6  # of memory, at most
    package: str = "jax"  # that must be installed
    is_dense: bool = False  # has large temporaries, so it runs under tcmalloc, too
    tries_huge_pages: bool = False  # runs in them, too
    environment: dict[str, str] = _NONE  # variables, besides those of this process
    has_tail: bool = False  # the 99th percentile is a row, too
    of_memory: bool = False  # peak memory is compared, not time


class Case(NamedTuple):
    """The first job of each shape is fsparse, which the others are compared with."""

    summary: str
    jobs: Callable[[bool], list[Job]]  # of whether they are to be tiny


def variants(job: Job, tcmalloc: str | None) -> list[Job]:
    """The job in other environments, where these may make it faster."""
    found = []
    if job.is_dense and tcmalloc:
        found.append(_under(job, "tcmalloc", {"LD_PRELOAD": tcmalloc}))
    if job.tries_huge_pages:
        found.append(_under(job, "huge pages", _HUGE_PAGES))
    return found


def _under(job: Job, name: str, environment: dict[str, str]) -> Job:
    return job._replace(system=f"{job.system} ({name})", environment=environment)


def reference(jobs: list[Job], job: Job) -> Job | None:
    """The one that a job is compared with; None where fsparse could not run."""
    same = (each for each in jobs if each.shape == job.shape)
    return next((each for each in same if each.system.startswith("fsparse")), None)


def groups(jobs: list[Job], gigabytes: float) -> list[list[Job]]:
    """Jobs that take turns, as many as fit in memory, each beside its reference."""
    found: list[list[Job]] = [[]]
    for job in jobs:
        needed = _with_reference(jobs, job)
        joined = _union(found[-1], needed)
        if found[-1] and sum(each.gigabytes for each in joined) > gigabytes:
            found.append(needed)
        else:
            found[-1] = joined
    return found


def fits(jobs: list[Job], job: Job, gigabytes: float) -> bool:
    """Whether a job and its reference can run at all."""
    return sum(each.gigabytes for each in _with_reference(jobs, job)) <= gigabytes


def _with_reference(jobs: list[Job], job: Job) -> list[Job]:
    against = reference(jobs, job)
    return [job] if against in (None, job) else [against, job]


def _union(group: list[Job], more: list[Job]) -> list[Job]:
    joined = list(group)
    for job in more:
        if job not in joined:
            joined.append(job)
    return joined
