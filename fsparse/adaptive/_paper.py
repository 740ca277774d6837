"""The sampler of the paper, as one configuration: arXiv:2311.13583."""

from collections.abc import Callable

import jax

from fsparse.adaptive._scorers import Batch
from fsparse.adaptive._sketched import Rows, sketched
from fsparse.adaptive._step import TrainStep
from fsparse.adaptive._threshold_step import Tau, ThresholdStep, threshold_step
from fsparse.lsh import Family

Array = jax.Array


def paper_step(
    train_step: TrainStep,
    family: Family,
    key_of: Callable[[Batch], Rows],
    *,
    size: int,
    tau: Tau,
    prob: float = 0.1,
    always: Callable[[Batch], Array] | None = None,
    warmup: int = 20,
    frozen: bool = False,
) -> ThresholdStep:
    """The paper's own mode: a sketch of the loss given ``x`` alone, and a threshold.

    Keep with weight 1 if the sketched loss is at least ``tau``; otherwise with chance
    ``prob`` and weight ``1 / prob``; kept examples are batched anew. The sketch has one
    slice, and forgets nothing.

    Args:
      train_step: see :func:`fsparse.adaptive.threshold_step`; its targets are losses.
      family: hash functions; the authors take SimHash or L2 ones.
      key_of: of a batch, the rows to hash. The authors take the inputs through a fixed
        random embedding; the label is not part of it.
      size: examples of a batch, at least as many as candidates of a call.
      tau: the threshold of the loss, or a function of scores and validity.
      prob: the chance of what is below it.
      always: of candidates, ``bool[M]``: the authors keep all positives.
      warmup: calls at first that train on everything: 20 of 512 candidates are the
        10,000 examples of the authors.
      frozen: whether the sketch stays as it is after the warm-up, as in the authors'
        code; the paper speaks of scheduled updates, and here each batch is one.

    Returns:
      A :class:`fsparse.adaptive.ThresholdStep`.

    Raises:
      TypeError: as :func:`fsparse.adaptive.threshold_step`.
      ValueError: as :func:`fsparse.adaptive.threshold_step`.

    Where no example has hashed yet, the score is the mean of all losses so far; the
    authors' is undefined there. :func:`fsparse.adaptive.adaptive_step` with a sketch
    that is sliced by labels is what this library recommends.

    Example:
      >>> from fsparse import lsh
      >>> def train_step(w, batch, weights):
      ...     return w, batch @ w, ()
      >>> family = lsh.simhash(jax.random.key(0), 2, num_tables=8, num_bits=1)
      >>> rows = lambda batch: batch
      >>> init, step = paper_step(train_step, family, rows, size=4, tau=1.0)
      >>> x = jax.numpy.ones((4, 2))
      >>> state, info = step(init(jax.random.key(1), jax.numpy.ones(2), x), x)
      >>> info.is_trained
      Array(True, dtype=bool)
    """
    return threshold_step(
        train_step,
        sketched(family, key_of, prior=0.0, decay=1.0),
        size=size,
        tau=tau,
        prob=prob,
        always=always,
        warmup=warmup,
        frozen=frozen,
    )
