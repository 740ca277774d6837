"""Adaptive sampling beside the training that it steers."""

from jobs import Case, Job

_SIZES = {"width": 938, "batch": 512, "rows": 32, "bits": 8}
_TINY = {"width": 5, "batch": 4, "rows": 2, "bits": 2}
_MODULE = "systems.sketches:"


def sketches(quick: bool) -> list[Job]:
    """Hashing, query and update; each part; and the paper's network on the batch."""
    jobs = []
    for candidates in (1, 4):
        sizes = (_TINY if quick else _SIZES) | {"candidates": candidates}
        for kind in ("dense", "hadamard"):
            shape = sizes | {"kind": kind}
            jobs.append(Job(shape, "fsparse", _MODULE + "part", {"name": "all"}))
            for name in ("hash", "query", "update"):
                made = Job(shape, f"fsparse {name}", _MODULE + "part", {"name": name})
                jobs.append(made)
            hidden = {"hidden": 4 if quick else 800, "layers": 4}
            system = "jax forward, backward of 4 x 800"
            jobs.append(Job(shape, system, _MODULE + "training", hidden))
    return jobs


CASES = {"sketch": Case("a sketch's step beside a network's", sketches)}
