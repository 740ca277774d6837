"""What a server tells of its requests."""

from collections import Counter, deque
from typing import Any


class Latencies:
    """Counts of all answers, and quantiles over the last ``window`` of them.

    Example:
      >>> latencies = Latencies()
      >>> latencies.add(0.002)
      >>> latencies.refuse(400)
      >>> latencies.summary()["refused"], latencies.summary()["p50_seconds"]
      ({'400': 1}, 0.002)
    """

    def __init__(self, window: int = 4096) -> None:
        self._last: deque[float] = deque(maxlen=window)
        self._answered = 0
        self._refused: Counter[str] = Counter()

    def add(self, seconds: float) -> None:
        """An answer, and how long it took."""
        self._last.append(seconds)
        self._answered += 1

    def refuse(self, status: int) -> None:
        """A request that was refused with this status."""
        self._refused[str(status)] += 1

    def summary(self) -> dict[str, Any]:
        """Counts, and seconds, which are None before the first answer."""
        ordered = sorted(self._last)
        at = lambda q: ordered[int(q * (len(ordered) - 1))] if ordered else None  # noqa: E731
        return {
            "answered": self._answered,
            "refused": dict(self._refused),
            "p50_seconds": at(0.5),
            "p99_seconds": at(0.99),
        }
