"""What was met while tables were read: counts, and the first few cases in words."""

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_MESSAGES = 10


@dataclasses.dataclass
class Report:
    """Counts of what was read and what could not be used; filled while reading.

    Several calls may be given one report: their counts add up.
    """

    num_examples: int = 0  # rows read
    num_malformed: int = 0  # rows left out, with strict=False
    num_unlabelled: int = 0  # rows kept without a label, as all of theirs were unseen
    num_unseen_labels: int = 0  # labels that the fit did not see, dropped
    num_late: int = 0  # rows older than their user's newest, not recorded
    num_clipped: int = 0  # features beyond feature_capacity, dropped
    ignored_columns: tuple[str, ...] = ()  # those that the schema does not name
    messages: list[str] = dataclasses.field(default_factory=list)  # the first few

    @property
    def is_clean(self) -> bool:
        """Whether everything was used."""
        return not (
            self.num_malformed
            or self.num_unseen_labels
            or self.num_late
            or self.num_clipped
        )

    def add(self, message: str) -> None:
        """Keeps the message, if it is among the first few."""
        if len(self.messages) < _MAX_MESSAGES:
            self.messages.append(message)

    def summary(self) -> str:
        """The counts that are not 0, and the messages."""
        counts = {
            "malformed rows are left out": self.num_malformed,
            "labels were not seen by the fit and are dropped": self.num_unseen_labels,
            "rows are older than their user's newest and are not recorded in the "
            "history": self.num_late,
            "features are beyond feature_capacity and are dropped": self.num_clipped,
        }
        told = [f"{count} {what}." for what, count in counts.items() if count]
        return "\n".join([" ".join(told), *self.messages])


@contextmanager
def reporting(function: str, report: Report | None) -> Iterator[Report]:
    """The report to fill; where the caller gave none, flaws are told in a warning."""
    filled = Report() if report is None else report
    yield filled
    if report is None and not filled.is_clean:
        warnings.warn(f"{function}: {filled.summary()}", stacklevel=4)
