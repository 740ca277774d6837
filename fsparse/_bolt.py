"""BOLT's rules for its settings: how many rows are active, and the tables behind it."""

import math
from fractions import Fraction
from numbers import Real
from typing import Any, NamedTuple

from fsparse import _checks

_SPARSITIES = (  # of layers with fewer rows than that
    (450, 1.0),
    (900, 0.2),
    (1_800, 0.1),
    (4_000, 0.05),
    (10_000, 0.02),
    (20_000, 0.01),
)
_WIDEST = 0.005
_BIN_SIZE, _BITS_A_HASH = 8, 3  # a hash is the position of a winner among 8
_FIRST_GUESS = 128  # tables, before their number follows from the number of buckets
_LARGE = 100_000  # examples, from which rebuilds come at shorter parts of an epoch


class BoltConfig(NamedTuple):
    """The settings of a layer; see :func:`bolt_autotune`. Without an index they are 0.

    The last two are counted in steps, and None without an index or without an epoch.
    """

    sparsity: float  # part of the rows that is active
    num_active: int  # floor(sparsity * num_rows)
    num_hashes: int  # K, hashes of a code
    num_bits: int  # 3 K, bits of a code
    num_tables: int  # L
    bucket_size: int  # e, rows expected in a bucket
    reservoir_size: int  # R = 4 e, rows that BOLT keeps of a bucket
    num_permutations: int  # P, how often DWTA deals out each coordinate
    table_bytes: int  # of BOLT's tables: 4 L 2**num_bits R
    rebuild_every: int | None  # rows are inserted again, with the same hashes
    reconstruct_every: int | None  # hashes are drawn again


def bolt_autotune(
    num_rows: int,
    dim: int,
    *,
    sparsity: float | None = None,
    num_examples: int | None = None,
    batch_size: int | None = None,
) -> BoltConfig:
    """The settings that BOLT would choose for a layer, by its own rules.

    With ``n`` rows, of which the part ``s`` is active, codes of ``3 K`` bits::

        K = clip(round(log2(128 / s) / 3), 2, 8)      L = round(s 2**(3 K))
        e = max(floor(n / 2**(3 K)), 1)    R = 4 e    P = ceil(8 K L / dim)

    ``s`` is 1 below 450 rows, then .2, .1, .05, .02, .01 below 900, 1,800, 4,000,
    10,000 and 20,000, and .005 from there on. Halves are rounded away from 0.

    Rows are inserted again after ``1 / 20`` of the steps of an epoch, or ``1 / 100``
    from 100,000 examples on, and hashes are drawn again after ``1 / 4``, from when on
    the former are counted anew: whole steps, at least 1. So is ``L``, which the rule
    alone would round to 0 for the smallest ``s``.

    These are the rules as they are, to compare with. At 256 dimensions their tables
    take up to 17 times the bytes of the weights; :func:`fsparse.lsh.default_family`
    keeps below them, and :func:`autotune` and :func:`fsparse.lsh.tune` measure. BOLT's
    other, "experimental" rule is not offered: with one hash of a huge bin and each
    coordinate dealt twice, a table can reach about ``2 dim / L`` of its buckets, so
    that nearly all stay empty and the few others overflow.

    Args:
      num_rows: ``n``, rows of the table.
      dim: width of a row.
      sparsity: ``s`` in ``(0, 1]``, in the place of the rule; 1 is a dense layer.
      num_examples: of an epoch; gives the schedule together with ``batch_size``.
      batch_size: examples of a step.

    Returns:
      A :class:`BoltConfig`. A dense layer has no index: zeros, and no schedule.
      :func:`fsparse.lsh.dwta` takes codes of up to 15 bits, which a sparsity below
      .0014 exceeds.

    Raises:
      TypeError: if a count is no integer, or ``sparsity`` no number.
      ValueError: if a count is less than 1, ``sparsity`` outside ``(0, 1]`` or so low
        that no row is active, or one of ``num_examples`` and ``batch_size`` missing.

    Source: Meisburger et al., BOLT (arXiv:2303.17727), section 4.2, and its sources.

    Example:
      >>> import jax
      >>> from fsparse import lsh
      >>> config = bolt_autotune(20_000, 256, num_examples=50_000, batch_size=256)
      >>> config.num_active, config.num_hashes, config.num_tables, config.rebuild_every
      (100, 5, 164, 9)
      >>> sizes = {"num_tables": config.num_tables, "num_hashes": config.num_hashes}
      >>> lsh.dwta(jax.random.key(0), 256, **sizes).num_buckets == 2**config.num_bits
      True
    """
    fn = "bolt_autotune"
    _checks.require_count(fn, 1, num_rows=num_rows, dim=dim)
    s = _sparsity_of(num_rows) if sparsity is None else _checked(fn, sparsity)
    # As written, so that .29 of 100 rows are 29 and not 28.
    part = Fraction(str(s))
    num_active = math.floor(part * num_rows)
    if num_active < 1:
        raise ValueError(
            f"{fn}: sparsity * num_rows must be at least 1; got {s} * {num_rows}."
        )
    every = _schedule(fn, num_examples, batch_size)
    if part == 1:
        return BoltConfig(1.0, num_active, 0, 0, 0, 0, 0, 0, 0, None, None)
    tables = _tables(part, num_rows, dim)
    return BoltConfig(
        s, num_active, **tables, rebuild_every=every[0], reconstruct_every=every[1]
    )


def _sparsity_of(num_rows: int) -> float:
    below = (s for limit, s in _SPARSITIES if num_rows < limit)
    return next(below, _WIDEST)


def _checked(fn: str, sparsity: Any) -> float:
    if not isinstance(sparsity, Real):
        raise TypeError(
            f"{fn}: sparsity must be a number; got {type(sparsity).__name__}."
        )
    if not 0 < float(sparsity) <= 1:
        raise ValueError(
            f"{fn}: sparsity must be in (0, 1]; got {sparsity}. It is the part of the "
            "rows that is active."
        )
    return float(sparsity)


def _tables(part: Fraction, num_rows: int, dim: int) -> dict[str, int]:
    """The fields of the index."""
    wanted = math.log2(_FIRST_GUESS / part) / _BITS_A_HASH
    num_hashes = min(max(_rounded(wanted), 2), 8)
    num_buckets = _BIN_SIZE**num_hashes
    num_tables = max(_rounded(part * num_buckets), 1)
    load = max(num_rows // num_buckets, 1)
    return {
        "num_hashes": num_hashes,
        "num_bits": _BITS_A_HASH * num_hashes,
        "num_tables": num_tables,
        "bucket_size": load,
        "reservoir_size": 4 * load,
        "num_permutations": -(-_BIN_SIZE * num_hashes * num_tables // dim),
        "table_bytes": 4 * num_tables * num_buckets * 4 * load,
    }


def _rounded(x: float | Fraction) -> int:
    """Half away from zero, of a positive number; Python's ``round`` goes to even."""
    return math.floor(x + Fraction(1, 2) if isinstance(x, Fraction) else x + 0.5)


def _schedule(
    fn: str, num_examples: int | None, batch_size: int | None
) -> tuple[int | None, int | None]:
    """Steps between rebuilds, and between reconstructions."""
    if num_examples is None and batch_size is None:
        return None, None
    if num_examples is None or batch_size is None:
        raise ValueError(
            f"{fn}: num_examples and batch_size must be given together; got "
            f"{num_examples} and {batch_size}."
        )
    _checks.require_count(fn, 1, num_examples=num_examples, batch_size=batch_size)
    steps = -(-num_examples // batch_size)
    parts = 100 if num_examples >= _LARGE else 20
    return max(steps // parts, 1), max(steps // 4, 1)
