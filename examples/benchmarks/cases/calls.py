"""What does not depend on the data: imports, compilation, the cost of a call."""

from jobs import Case, Job

from cases import training

_SYSTEMS = "systems.calls:"


def imports(quick: bool) -> list[Job]:
    """In fresh interpreters; that of fsparse is what it adds to jax's."""
    del quick
    return [
        Job({}, "fsparse, after jax", _SYSTEMS + "imported", {"name": "fsparse"}),
        Job({}, "jax", _SYSTEMS + "imported", {"name": "jax"}),
        Job({}, "torch", _SYSTEMS + "imported", {"name": "torch"}, package="torch"),
    ]


def compiling(quick: bool) -> list[Job]:
    """Tracing, lowering and compiling the step of train-amazon670k."""
    shape = training.TINY if quick else training.AMAZON
    ours = [Job(shape, "fsparse", _SYSTEMS + "compiled", {"how": "fsparse"})]
    peers = {"jax sampled": "sampled", "jax dense": "dense"}
    peers["jax sampled, rows by hand"] = "by hand"
    return ours + [
        Job(shape, system, _SYSTEMS + "compiled", {"how": how}, package="optax")
        for system, how in peers.items()
    ]


def overhead(quick: bool) -> list[Job]:
    """Products of 4 numbers: a chain in one program, and a program for each."""
    length = 100 if quick else 1000
    return [
        Job({"calls": n, "in": where}, system, _SYSTEMS + "chain", {"ours": mine})
        for n, where in ((length, "one program"), (1, "a program each"))
        for system, mine in (("fsparse", True), ("jax", False))
    ]


CASES = {
    "import-time": Case("import fsparse beside import jax", imports),
    "compile-time": Case("jit of a training step", compiling),
    "ffi-overhead": Case("a custom call that computes next to nothing", overhead),
}
