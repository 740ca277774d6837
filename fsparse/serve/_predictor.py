"""What a server needs of a model."""

from collections.abc import Sequence
from typing import Any, Protocol


class Predictor(Protocol):
    """A model behind an endpoint."""

    @property
    def name(self) -> str:
        """What ``/health`` calls the model."""

    @property
    def max_k(self) -> int:
        """The most predictions of an example."""

    def predict(self, examples: Sequence[Any]) -> list[Any]:
        """For each JSON example a list of the ``max_k`` best, as JSON can hold them.

        Or, in the place of that list, a ValueError for an example that is malformed:
        its message goes to the client, and no other request suffers. Runs in a thread,
        one call at a time.
        """
