"""What had been sold before a row's week: counts of weeks that were over by then.

Columns are ``i64[m]`` numbers by name. A row of week ``w`` sees events of the weeks
before ``w`` alone, never those of its own week.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsparse.data.datasets import splitmix64
from fsparse.data.rows import I64

U64 = NDArray[np.uint64]
Columns = Mapping[str, I64]
_WEEK_BITS = 6
_MOST_WEEKS = 2**_WEEK_BITS - 1
_BINS_AN_OCTAVE = 3


class Field(NamedTuple):
    """Sales, or promotions, that agree with a row in ``names``.

    They are counted over the ``last`` weeks before the row's; without ``last``, the
    field is the weeks since the latest one.
    """

    names: tuple[str, ...]
    last: int | None
    of_promotions: bool = False


_HERE = "product_id", "store_id"
HISTORY_FIELDS = {
    "sold_here_since": Field(_HERE, None),
    "sold_here_4": Field(_HERE, 4),
    "sold_here": Field(_HERE, _MOST_WEEKS),
    "sold_1": Field(("product_id",), 1),
    "sold_8": Field(("product_id",), 8),
    "type_sold_here_8": Field(("product_type", "store_id"), 8),
    "category_sold_here_8": Field(("product_category", "store_id"), 8),
    "brand_sold_here_8": Field(("manufacturer_id", "product_type", "store_id"), 8),
    "store_sold_4": Field(("store_id",), 4),
    "promoted_here_since": Field(_HERE, None, of_promotions=True),
    "promoted_here_8": Field(_HERE, 8, of_promotions=True),
}


def history(rows: Columns, sold: Columns, promoted: Columns) -> dict[str, I64]:
    """The :data:`HISTORY_FIELDS` of some rows, each ``i64[m]``.

    Args:
      rows: all names of the fields, and ``week``, in ``[0, 64)``.
      sold: the same columns, of all receipts.
      promoted: those of the fields of promotions.
    """
    logs: dict[tuple[tuple[str, ...], bool], U64] = {}
    found = {}
    for name, (names, last, of_promotions) in HISTORY_FIELDS.items():
        if (which := (names, of_promotions)) not in logs:
            logs[which] = np.sort(_codes(promoted if of_promotions else sold, names))
        codes = _codes(rows, names)
        log = logs[which]
        found[name] = _since(log, codes) if last is None else _count(log, codes, last)
    return found


def bins(counts: I64) -> I64:
    """Numbers of intervals, three to an octave: ``round(3 log2(1 + count))``."""
    return np.round(_BINS_AN_OCTAVE * np.log2(1 + counts)).astype(np.int64)


def keys_of(columns: Columns, names: Sequence[str]) -> U64:
    """A hash of the values of some columns, ``u64[m]``."""
    state = np.zeros(len(columns[names[0]]), np.uint64)
    for name in names:
        state = splitmix64(state ^ columns[name].astype(np.uint64))
    return state


def _codes(columns: Columns, names: Sequence[str]) -> U64:
    """The hash, with the week in the place of its last bits: they sort by both."""
    shift = np.uint64(_WEEK_BITS)
    weeks = columns["week"].astype(np.uint64)
    return (keys_of(columns, names) >> shift << shift) | weeks


def _count(log: U64, codes: U64, last: int) -> I64:
    """Events of the ``last`` weeks before each code's."""
    weeks = codes & np.uint64(_MOST_WEEKS)
    first = codes - np.minimum(weeks, np.uint64(last))
    return _place(log, codes) - _place(log, first)


def _since(log: U64, codes: U64) -> I64:
    """Weeks since the latest event before each code's week; 0 where there is none."""
    place = _place(log, codes)
    latest = np.append(log, np.uint64(0))[place - 1]
    shift = np.uint64(_WEEK_BITS)
    is_same = (latest >> shift == codes >> shift) & (place > 0)
    return np.where(is_same, codes - latest, np.uint64(0)).astype(np.int64)


def _place(log: U64, codes: U64) -> I64:
    """How many events come before each code; sorted, so that caches help."""
    order, place = np.argsort(codes), np.empty(len(codes), np.int64)
    place[order] = np.searchsorted(log, codes[order])
    return place
