"""Updates of the rows that a gradient names, by each optimizer."""

from jobs import Case, Job

_SIZES = {"labels": 670_091, "width": 128, "rows_named": 16_384}
_TINY = {"labels": 3000, "width": 16, "rows_named": 64}
_MOMENTS = {  # arrays as large as the table that a rule reads and writes
    "sgd": 0,
    "momentum": 1,
    "adagrad": 1,
    "rowwise_adagrad": 0,
    "adam": 2,
    "exact_adam": 2,
}
_BY_TORCH = "sgd", "adagrad", "adam"
_BY_OPTAX = "sgd", "momentum", "adagrad", "adam"
_TORCH = "systems.optimizers_torch:update"


def optimizers(quick: bool) -> list[Job]:
    """Distinct random rows; PyTorch's gradients are coalesced, optax's are dense."""
    jobs = []
    for name, moments in _MOMENTS.items():
        shape = (_TINY if quick else _SIZES) | {"optimizer": name}
        row = 4.0 * shape["rows_named"] * shape["width"]
        table = 4.0 * shape["labels"] * shape["width"]
        by_rows = ({"read": row, "random_update": 2 * (1 + moments) * row},)
        whole = ({"copy": 2 * (1 + moments) * table, "read": table},)
        room = 0.8 + (2 + moments) * table / 1e9
        ours, optax = (
            "systems.optimizers:rows_update",
            "systems.optimizers:whole_update",
        )
        jobs.append(Job(shape, "fsparse", ours, {}, by_rows, room))
        if name in _BY_TORCH:
            torch = Job(shape, "torch sparse", _TORCH, {}, by_rows, room, "torch")
            jobs.append(torch._replace(tries_huge_pages=True))
        if name in _BY_OPTAX:
            jobs.append(Job(shape, "optax", optax, {}, whole, room + 1, "optax"))
    return jobs


CASES = {"row-optimizers": Case("updates of 16,384 rows of 670,091", optimizers)}
