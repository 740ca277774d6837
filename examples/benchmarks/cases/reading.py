"""Files of sparse examples: fsparse beside plain Python and scikit-learn."""

from jobs import Case, Job

_MODULE = "systems.reading:"


def reading(quick: bool) -> list[Job]:
    """Seconds for each megabyte of a file in the extreme classification format."""
    shape = {"megabytes": 1 if quick else 100}
    python = "read_plain_python"
    return [
        Job(shape, "fsparse", _MODULE + "reader", {"name": "read_fsparse"}),
        Job(shape, "plain Python", _MODULE + "reader", {"name": python}, gigabytes=1),
        Job(
            shape,
            "scikit-learn",
            _MODULE + "reader",
            {"name": "read_scikit_learn"},
            gigabytes=2,
            package="scikit-learn",
        ),
    ]


CASES = {"read-xc": Case("reading text files, seconds for each megabyte", reading)}
