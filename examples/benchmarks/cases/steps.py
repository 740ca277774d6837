"""The main example's model on real data, which a package from PyPI brings."""

from jobs import Case, Job

_MODULE = "systems.lemmas:"


def lemmas(quick: bool) -> list[Job]:
    """218,590 labels; or a made-up file that is small."""
    shape = {"data": "tiny" if quick else "polish-lemmas"}
    plain = _MODULE + "by_jax"
    torch = Job(
        shape, "torch sampled", _MODULE + "by_torch", {"sampled": True}, gigabytes=3
    )._replace(package="torch")
    return [
        Job(shape, "fsparse", _MODULE + "by_fsparse", gigabytes=3, package="optax"),
        torch,
        torch._replace(
            system="torch dense",
            arguments={"sampled": False},
            gigabytes=4,
            is_dense=True,
        ),
        Job(shape, "jax sampled", plain, {"sampled": True}, gigabytes=4, is_dense=True),
        Job(shape, "jax dense", plain, {"sampled": False}, gigabytes=5, is_dense=True),
    ]


CASES = {
    "train-polish-lemmas": Case("the main example's step, on Polish nouns", lemmas)
}
