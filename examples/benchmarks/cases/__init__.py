"""All cases by name, in the order in which they run."""

from jobs import Case

from cases import (
    bags,
    calls,
    index,
    inference,
    optimizers,
    reading,
    sketches,
    steps,
    training,
)

CASES: dict[str, Case] = {
    **training.CASES,
    **inference.CASES,
    **index.CASES,
    **bags.CASES,
    **optimizers.CASES,
    **sketches.CASES,
    **calls.CASES,
    **steps.CASES,
    **reading.CASES,
}
