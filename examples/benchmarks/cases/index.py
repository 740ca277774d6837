"""What hash tables cost: to build, to keep, to ask."""

from jobs import Case, Job

_SIZES = {"labels": 670_091, "width": 128}
_TINY = {"labels": 3000, "width": 16}
_MODULE = "systems.hash_tables:"


def index(quick: bool) -> list[Job]:
    """Beside each: the products of as many hashes, all built anew, exact search."""
    sizes = _TINY if quick else _SIZES
    building = sizes | {"task": "build"}
    jobs = [
        Job(building, "fsparse", _MODULE + "build", gigabytes=2.0),
        Job(building, "jax products of its hashes", _MODULE + "products"),
    ]
    for moved in (16, 64) if quick else (256, 1024, 4096, 16_384):
        shape = sizes | {"task": "refresh", "rows_moved": moved}
        jobs += [Job(shape, "fsparse", _MODULE + "refresh", gigabytes=2.5)]
    for batch in (1, 4) if quick else (1, 256):
        shape = sizes | {"task": "query", "batch": batch}
        jobs += [
            Job(shape, "fsparse", _MODULE + "query", gigabytes=2.0),
            Job(shape, "fsparse exact search", _MODULE + "search", gigabytes=1.5),
        ]
    return jobs


CASES = {"index": Case("hash tables of 670,091 rows: build, refresh, query", index)}
