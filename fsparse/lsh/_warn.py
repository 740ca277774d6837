"""Which figures of an index are bad, and what to do about them."""

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np

from fsparse import _checks
from fsparse._warnings import EfficiencyWarning
from fsparse.lsh._diagnostics import Diagnostics

MAX_PADDING = 0.5  # beyond, most of the rows that a step computes are random
MAX_SKEW = 32  # times the mean load; beyond, a few buckets decide the time of a query
MAX_LOAD = 1 / 16  # of the rows; a bucket with fewer costs little, whatever the mean
MAX_STALE = (
    0.3  # beyond, rows are sought where others are: MONGOOSE's limit of a SLIDE layer
)
MIN_GAIN = 2  # times what as many random rows would find, which cost no hashing
MAX_NEVER = 0.5  # beyond, most rows get no gradients but from random fill


class Limit(NamedTuple):
    """What a figure should be at most, or at least, and what helps if it is not."""

    figure: str
    side: Literal["at most", "at least"]
    value: Callable[[Diagnostics], float]
    remedy: str

    def is_broken(self, d: Diagnostics) -> bool:
        """Never by NaN."""
        got, limit = float(getattr(d, self.figure)), self.value(d)
        return got > limit if self.side == "at most" else got < limit

    def message(self, d: Diagnostics) -> str:
        """What :func:`warn` says."""
        got, limit = _number(getattr(d, self.figure)), _number(self.value(d))
        return (
            f"lsh: {self.figure} should be {self.side} {limit}; got {got}. "
            f"{self.remedy}"
        )


def _number(x: float) -> str:
    return f"{x:.3g}" if x < 100 else f"{x:,.0f}"


def _max_load(d: Diagnostics) -> float:
    return max(MAX_SKEW * float(d.mean_load), MAX_LOAD * float(d.num_rows))


def _min_hits(d: Diagnostics) -> float:
    """Where candidates are many of the rows, halfway from random to all."""
    chance = min(float(d.size / d.num_rows), 1.0)
    return min(MIN_GAIN * chance, (1 + chance) / 2)


def _max_never_found(d: Diagnostics) -> float:
    """Of the rows that as many even draws would reach, that share may be missed."""
    reached = 1 - (1 - float(d.num_found / d.num_rows)) ** int(d.num_examples)
    return 1 - (1 - MAX_NEVER) * reached


LIMITS = (
    Limit(
        "padding",
        "at most",
        lambda d: MAX_PADDING,
        "Random rows fill most of a set: use fewer bits, more tables or num_probes, or "
        "a smaller size.",
    ),
    Limit(
        "max_load",
        "at most",
        _max_load,
        "Rows crowd into few buckets: centre them with lsh.mips, or use more bits.",
    ),
    Limit(
        "bytes_per_row",
        "at most",
        lambda d: float(d.weight_bytes_per_row),
        "The index is larger than the weights: use fewer tables or fewer bits.",
    ),
    Limit(
        "stale",
        "at most",
        lambda d: MAX_STALE,
        "Rows have left their buckets: refresh them more often, or build the index "
        "anew; leave it, if the hash tables are trained by lsh.insert.",
    ),
    Limit(
        "recall",
        "at least",
        _min_hits,
        "Random rows would do about as well: use lsh.mips, more tables, more bits with "
        "more num_probes, or samplers.uniform.",
    ),
    Limit(
        "label_hit_rate",
        "at least",
        _min_hits,
        "Examples do not hash as their labels do: train longer before the index is "
        "used, use lsh.insert, or samplers.uniform.",
    ),
    Limit(
        "num_lost",
        "at most",
        lambda d: 0.0,
        "Insertions found no room: raise max_inserted of lsh.build.",
    ),
    Limit(
        "never_found",
        "at most",
        _max_never_found,
        "Queries meet in few buckets: centre the rows with lsh.mips, use more "
        "tables, or mix in samplers.uniform.",
    ),
    Limit(
        "never_visited",
        "at most",
        lambda d: MAX_NEVER,
        "Rows that are never active do not learn: keep fill=True, mix in "
        "samplers.uniform, or train longer.",
    ),
)


def warn(diagnostics: Diagnostics) -> list[str]:
    """Warns of each figure that is beyond its limit, by its name and with a remedy.

    ================  ==================================================================
    figure            limit
    ================  ==================================================================
    `padding`         at most 0.5
    `max_load`        at most 32 times the mean, or ``n / 16`` if that is more
    `bytes_per_row`   at most those of the weights
    `stale`           at most 0.3
    `recall`          at least twice ``r = min(size / n, 1)``, which random rows have,
                      or ``(1 + r) / 2`` if that is less
    `label_hit_rate`  as `recall`
    `num_lost`        0
    `never_found`     at most ``1 - q / 2``, where ``q`` is the share of rows that ``b``
                      examples would reach, if rows were found evenly
    `never_visited`   at most 0.5
    ================  ==================================================================

    Args:
      diagnostics: from :func:`diagnose`, outside of ``jit``.

    Returns:
      The messages, in the order of the table. Each has been emitted as a
      :class:`fsparse.EfficiencyWarning`. Figures that are NaN have none.

    Raises:
      TypeError: if ``diagnostics`` are of another type, or traced.
      ValueError: if they are of more than one index.

    Example:
      >>> from fsparse import lsh
      >>> family = lsh.simhash(jax.random.key(0), 64, num_tables=4, num_bits=2)
      >>> x = jax.numpy.eye(64)
      >>> lsh.warn(lsh.diagnose(lsh.build(family, x), x, x, size=16, k=1))
      []
    """
    d = figures_of("lsh.warn", diagnostics)
    messages = [limit.message(d) for limit in LIMITS if limit.is_broken(d)]
    for message in messages:
        warnings.warn(message, EfficiencyWarning, stacklevel=2)
    return messages


def figures_of(fn: str, diagnostics: Diagnostics) -> Diagnostics:
    """The figures as numbers."""
    _checks.require_type(fn, Diagnostics, diagnostics=diagnostics)
    for name, x in zip(Diagnostics._fields, diagnostics, strict=True):
        if isinstance(x, jax.core.Tracer):
            raise TypeError(
                f"{fn}: diagnostics must have values; got a traced {name}. Return them "
                "from jit first."
            )
    d = jax.tree.map(np.asarray, diagnostics)
    _checks.require_rank(fn, 0, recall=d.recall)
    return d
