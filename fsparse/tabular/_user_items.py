"""What a user met before: the last items of each user, carried along a stream.

A row sees items of earlier times only, never those of its own time or of a later one,
and only such as were recorded before it in the stream. Of each user are kept the last
items before the newest time, and the last ones of that time: all that later rows can
see. A row that is older than its user's newest time comes late: it sees those of the
kept items that are older still, and is not recorded. So the result does not depend on
how a stream is parted.
"""

from typing import NamedTuple

import numpy as np

from fsparse.data.rows import I64
from fsparse.tabular._hashing import U64
from fsparse.tabular._values import F64, Bool


class UserItems(NamedTuple):
    """The items kept of ``n`` users, ``e`` in all; those of a user by rising time."""

    users: U64  # u64[n], rising hashes
    newest: F64  # f64[n], the latest time of a row of each
    indptr: I64  # i64[n + 1], where the items of each begin
    times: F64  # f64[e]
    items: U64  # u64[e], hashes


class Visits(NamedTuple):
    """``m`` rows of a stream: who, when, what."""

    users: U64  # u64[m]
    times: F64  # f64[m], NaN where the user or the time is missing
    items: U64  # u64[e]
    lengths: I64  # i64[m], items of each row


class Seen(NamedTuple):
    """What ``m`` rows see."""

    items: U64  # u64[s], of each row by rising time
    lengths: I64  # i64[m]
    is_late: Bool  # bool[m]


def no_items() -> UserItems:
    """The state before the first row."""
    none, hashes = np.zeros(0), np.zeros(0, np.uint64)
    return UserItems(hashes, none, np.zeros(1, np.int64), none, hashes)


def is_whole(state: UserItems) -> bool:
    """Whether the arrays fit together."""
    n, e = len(state.users), len(state.items)
    sizes = len(state.newest), len(state.indptr), len(state.times)
    return (
        sizes == (n, n + 1, e)
        and (state.indptr[0], state.indptr[-1]) == (0, e)
        and bool(np.all(np.diff(state.indptr) >= 0))
        and bool(np.all(state.users[1:] > state.users[:-1]))
    )


def advance(state: UserItems, visits: Visits, last: int) -> tuple[UserItems, Seen]:
    """What the rows see, and the state after them; the state given is left as it is."""
    keys = _Keys.of(state, visits)
    latest = _latest_so_far(keys)
    is_recorded = keys.row >= latest
    log = _log(keys, visits, is_recorded)
    kept = _keep(log, keys, last)
    is_other = np.isin(state.users, keys.users, assume_unique=True, invert=True)
    others = _take(state, np.flatnonzero(is_other))
    return _join(others, kept), _see(log, keys, visits, latest, last)


def look(state: UserItems, visits: Visits, last: int) -> Seen:
    """What each row sees as the first one after the state; no row sees another."""
    keys = _Keys.of(state, visits)
    newest = np.full(len(keys.users), -1)
    newest[keys.owner] = keys.newest
    log = _log(keys, visits, np.zeros(len(keys.row), bool))
    return _see(log, keys, visits, np.maximum(newest[keys.code], keys.row), last)


class _Keys(NamedTuple):
    """Users and times as one number, ``user * span + time``, both by their ranks.

    Of all rows that have a user and a time, and of what the state holds of these users.
    """

    mine: UserItems  # of n users
    users: U64  # u64[u], rising
    span: int
    times: F64  # the time of each rank
    owner: I64  # i64[n], which of the users
    newest: I64  # i64[n]
    item: I64  # i64[e]
    rows: I64  # i64[r], which rows
    code: I64  # i64[r], which of the users
    row: I64  # i64[r], of each

    @classmethod
    def of(cls, state: UserItems, visits: Visits) -> "_Keys":
        index = np.flatnonzero(~np.isnan(visits.times))
        users, code = np.unique(visits.users[index], return_inverse=True)
        at = np.searchsorted(state.users, users)
        is_old = np.append(state.users, np.uint64(0))[at] == users
        is_old &= at < len(state.users)
        mine, owner = _take(state, at[is_old]), np.flatnonzero(is_old)
        times = np.concatenate([mine.newest, mine.times, visits.times[index]])
        distinct, rank = np.unique(times, return_inverse=True)
        newest, item, row = np.split(rank, np.cumsum([len(owner), len(mine.times)]))
        span = len(distinct) + 1
        item = np.repeat(owner, np.diff(mine.indptr)) * span + item
        newest, row = owner * span + newest, code * span + row
        return cls(mine, users, span, distinct, owner, newest, item, index, code, row)


class _Log(NamedTuple):
    """Items by user and time, and in the order of the stream where these are equal."""

    keys: I64
    times: F64
    items: U64


def _log(keys: _Keys, visits: Visits, is_recorded: Bool) -> _Log:
    """The items of the state and of the rows that are recorded."""
    rows = keys.rows[is_recorded]
    lengths = visits.lengths[rows]
    entries = _ranges((np.cumsum(visits.lengths) - visits.lengths)[rows], lengths)
    key = np.concatenate([keys.item, np.repeat(keys.row[is_recorded], lengths)])
    times = np.concatenate([keys.mine.times, np.repeat(visits.times[rows], lengths)])
    items = np.concatenate([keys.mine.items, visits.items[entries]])
    order = np.argsort(key, kind="stable")
    return _Log(key[order], times[order], items[order])


def _see(log: _Log, keys: _Keys, visits: Visits, latest: I64, last: int) -> Seen:
    """Of the last items before the latest time of its user, those before the row's."""
    first = np.searchsorted(log.keys, keys.code * keys.span)
    first = np.maximum(first, np.searchsorted(log.keys, latest) - last)
    counts = np.maximum(np.searchsorted(log.keys, keys.row) - first, 0)
    lengths, is_late = np.zeros((2, len(visits.times)), np.int64)
    lengths[keys.rows], is_late[keys.rows] = counts, keys.row < latest
    return Seen(log.items[_ranges(first, counts)], lengths, is_late > 0)


def _keep(log: _Log, keys: _Keys, last: int) -> UserItems:
    """The last items before the newest time of each user, and the last of it."""
    newest = np.zeros(len(keys.users), np.int64)
    np.maximum.at(newest, keys.owner, keys.newest)
    np.maximum.at(newest, keys.code, keys.row)
    begin = np.searchsorted(log.keys, np.arange(len(keys.users)) * keys.span)
    middle = np.searchsorted(log.keys, newest)
    end = np.searchsorted(log.keys, newest, side="right")
    older, newer = np.maximum(begin, middle - last), np.maximum(middle, end - last)
    starts = np.stack([older, newer], axis=1)
    counts = np.stack([middle, end], axis=1) - starts
    entries = _ranges(starts.ravel(), counts.ravel())
    return UserItems(
        keys.users,
        keys.times[newest % keys.span],
        np.concatenate([[0], np.cumsum(counts.sum(axis=1))]),
        log.times[entries],
        log.items[entries],
    )


def _latest_so_far(keys: _Keys) -> I64:
    """For each row, the latest key of its user up to it, with that of the state."""
    both = np.concatenate([keys.newest, keys.row])
    order = np.argsort(both // keys.span, kind="stable")
    latest = np.empty_like(both)
    latest[order] = np.maximum.accumulate(both[order])
    return latest[len(keys.newest) :]


def _ranges(starts: I64, counts: I64) -> I64:
    """The numbers from each start on, one range after the other."""
    begins = np.cumsum(counts) - counts
    return np.repeat(starts - begins, counts) + np.arange(counts.sum())


def _take(state: UserItems, index: I64) -> UserItems:
    starts = state.indptr[index]
    counts = state.indptr[index + 1] - starts
    entries = _ranges(starts, counts)
    return UserItems(
        state.users[index],
        state.newest[index],
        np.concatenate([[0], np.cumsum(counts)]),
        state.times[entries],
        state.items[entries],
    )


def _join(one: UserItems, two: UserItems) -> UserItems:
    """Both parts, sorted by user."""
    both = UserItems(
        np.concatenate([one.users, two.users]),
        np.concatenate([one.newest, two.newest]),
        np.concatenate([one.indptr, one.indptr[-1] + two.indptr[1:]]),
        np.concatenate([one.times, two.times]),
        np.concatenate([one.items, two.items]),
    )
    return _take(both, np.argsort(both.users))
