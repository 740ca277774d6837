"""What a server needs of a model."""

from collections.abc import Sequence
from typing import Any, Protocol


class Predictor(Protocol):
    """A model behind an endpoint. ``predict`` runs in a thread, one call at a time."""

    name: str

    def encode(self, example: Any) -> Any:
        """One example of a request, ready for ``predict``.

        Raises:
          ValueError: if it is malformed; the message goes to the client, and no other
            request suffers.
        """

    def predict(self, encoded: Sequence[Any], k: int) -> list[Any]:
        """For each encoded example the ``k`` best, as JSON can hold them."""
