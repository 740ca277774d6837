"""What :func:`fsparse.fit` asks of its arguments, and how a checkpoint names them."""

import re
import zlib
from dataclasses import is_dataclass, replace
from math import inf
from typing import Any

import jax
import numpy as np

from fsparse import _checks
from fsparse.data import Dataset
from fsparse.optimizer import Optimizer
from fsparse.train._loop import Budget, Every
from fsparse.train._sources import Data, Sizes, source_of
from fsparse.train._step import Adaptive, Rate


def check_numbers(
    fn: str, batch_size: int, seed: int, patience: int | None, every: Every
) -> None:
    """Sizes and intervals are positive."""
    _checks.require_count(fn, 1, batch_size=batch_size)
    _checks.require_count(fn, 0, seed=seed)
    _checks.require_type(fn, Every, every=every)
    _checks.require_count(fn, 1, **{"every.log": every.log})
    _checks.require_between(fn, 0, inf, **{"every.checkpoint": every.checkpoint})
    if every.validation is not None:
        _checks.require_count(fn, 1, **{"every.validation": every.validation})
    if patience is not None:
        _checks.require_count(fn, 1, patience=patience)


def check_choices(
    fn: str,
    optimizer: Optimizer | None,
    learning_rate: Rate | None,
    keep_best: str | None,
    patience: int | None,
    validation: Data | None,
) -> None:
    """What goes with what."""
    if optimizer is not None and learning_rate is not None:
        raise ValueError(
            f"{fn}: learning_rate must be left out where an optimizer, which has its "
            "own, is given; got both."
        )
    if keep_best is None and patience is not None:
        raise ValueError(
            f"{fn}: patience must go with keep_best; got {patience} without a metric. "
            "Pass keep_best='loss', for instance."
        )
    if keep_best is not None and validation is None:
        raise ValueError(
            f"{fn}: keep_best must have a validation set to judge by; got None. Hold "
            "some examples out, and pass them as validation."
        )


def budget_of(
    fn: str, epochs: int | None, steps: int | None, seconds: float | None
) -> Budget:
    """One of the three, or one epoch."""
    given = {"epochs": epochs, "steps": steps, "seconds": seconds}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError(
            f"{fn}: one of epochs, steps, seconds must be given; got {given}."
        )
    if seconds is not None:
        _checks.require_between(fn, 0, inf, seconds=seconds)
    elif given:
        _checks.require_count(fn, 0, **given)
    return Budget(1 if not given else epochs, steps, seconds)


def candidates(sizes: Sizes, adaptive: Adaptive | None) -> Sizes:
    """Those of a batch that a step is given."""
    if adaptive is None:
        return sizes
    _checks.require_type("fit", Adaptive, adaptive=adaptive)
    _checks.require_count("fit", 1, **{"adaptive.pool": adaptive.pool})
    return sizes._replace(batch=sizes.batch * adaptive.pool, pool=adaptive.pool)


def in_order(adaptive: Adaptive | None, train: Data) -> Adaptive | None:
    """Uniform batches as the order of a data set has them; not so that of a stream."""
    if adaptive is None or not isinstance(train, Dataset):
        return adaptive
    return replace(adaptive, when_off="first")


def described(x: Any) -> str:
    """The same text in each process; names, where there is no text."""
    text = repr(x) if is_dataclass(x) else type(x).__qualname__
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def described_rate(rate: Rate | None, optimizer: Optimizer | None) -> float | str:
    """Functions cannot be told apart."""
    if optimizer is not None:
        return "of the optimizer"
    if rate is None:
        return 1e-3
    return "a schedule" if callable(rate) else float(rate)


def described_data(examples: Data | None, sizes: Sizes) -> str | None:
    """By which data are told from others; nothing where there are none."""
    if examples is None:
        return None
    return source_of("fit", "validation", examples, sizes).fingerprint


def fingerprint_of(tree: Any) -> str | None:
    """The CRC-32 of all arrays of a tree."""
    if tree is None:
        return None
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return f"{crc:08x}"
