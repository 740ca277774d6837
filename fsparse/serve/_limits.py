"""What a server refuses, so that no client harms another."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Bounds of requests and of waiting; all positive.

    Example:
      >>> Limits(max_body=1024).max_body
      1024
      >>> Limits(max_batch=0)
      Traceback (most recent call last):
        ...
      ValueError: Limits: max_batch must be positive; got 0.
    """

    max_body: int = 2**20  # bytes of a request's body; beyond: 413
    max_header: int = 2**14  # bytes of its line and headers; beyond: 431
    max_examples: int = 64  # in a request; beyond: 400
    max_batch: int = 64  # examples computed together
    max_waiting: int = 4096  # examples that wait; beyond: 503
    max_connections: int = 1000  # beyond: 503
    header_seconds: float = 5.0  # for a request's line and headers; beyond: 408
    body_seconds: float = 5.0  # for its body; beyond: 408
    answer_seconds: float = 30.0  # for its answer; beyond: 503
    idle_seconds: float = 15.0  # between requests of a connection, which then ends

    def __post_init__(self) -> None:
        """Raises ValueError for the first bound that is not positive."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"Limits: {field.name} must be positive; got {value}.")
