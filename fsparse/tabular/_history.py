"""The column kind whose features are what a user met before."""

import dataclasses

import numpy as np

from fsparse.data.rows import SparseRows
from fsparse.tabular._bags import marked, ragged
from fsparse.tabular._columns import bad_sources, hash_texts, require
from fsparse.tabular._hashing import feature_id, feature_ids, hash_strings, seed_of
from fsparse.tabular._rows import Rows
from fsparse.tabular._user_items import Seen, Visits
from fsparse.tabular._values import Bad, read_bags, read_texts, read_times


@dataclasses.dataclass(frozen=True)
class history:
    """The last items that a row's user met strictly before the row's time.

    ``user``, ``item`` and ``time`` are columns of the table; they need not be in the
    schema themselves, and the item may be the target. Each of the ``last`` items is one
    feature. Rows of one user should come in order of time: one that comes late sees no
    later item, is not recorded, and is counted. A row without user or time sees
    nothing and is not recorded; a user without items has a feature of its own.

    Args:
      user: the column of users.
      item: the column of items, or of several if there is a ``delimiter``.
      time: the column of times, read as :class:`timestamp` does with ``format``.
      last: how many items are seen.
      delimiter: between the items of one cell.
      format: of the times.

    Raises:
      ValueError: if ``last`` is not positive.

    Example:
      >>> history("user", "film", "day", last=2).last
      2
    """

    user: str
    item: str
    time: str
    last: int = 10
    delimiter: str | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        require("history", self.last >= 1, "last must be positive", self.last)

    def sources(self, name: str) -> tuple[str, ...]:
        """The columns that tell what a row sees."""
        return (self.user, self.time)

    def read(
        self, name: str, rows: Rows, missing: frozenset[str]
    ) -> tuple[Visits, Bad]:
        """Who, when and, where the table has the column, what."""
        users, bad = read_texts(rows.columns[self.user], missing)
        times, more = read_times(rows.columns[self.time], self.format, missing)
        values = rows.columns.get(self.item, [None] * rows.num_rows)
        items, still_more = read_bags(values, self.delimiter, missing)
        times = np.where(users.is_missing, np.nan, times)
        visits = Visits(
            hash_texts(users), times, hash_strings(items.texts), items.lengths
        )
        found = {self.user: bad, self.time: more, self.item: still_more}
        return visits, bad_sources(found)

    def features(self, name: str, seen: Seen, num_features: int) -> list[SparseRows]:
        """One entry for each item, or the feature of no history."""
        ids = feature_ids(seen.items, seed_of(name), num_features)
        nothing = feature_id(seed_of(name, "missing"), num_features)
        return [
            ragged(seen.lengths, ids, num_features),
            marked(seen.lengths == 0, nothing, num_features),
        ]
