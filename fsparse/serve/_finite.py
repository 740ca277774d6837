"""What JSON lacks and Python reads all the same: NaN and the infinities."""

import math
from collections.abc import Iterator, Sequence
from typing import Any


def require_finite(examples: Sequence[Any]) -> None:
    """Nothing, if all numbers of all columns are finite.

    Raises:
      ValueError: with the example and the column of the first that is not.

    Example:
      >>> require_finite([{"x": 3.5}, {"x": float("inf")}])  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: examples[1]: the column 'x' must be finite; got inf. Give null ...
    """
    for i, example in enumerate(examples):
        columns = example.items() if isinstance(example, dict) else ()
        for name, value in columns:
            if odd := next(_not_finite(value), None):
                raise ValueError(
                    f"examples[{i}]: the column {name!r} must be finite; got {odd}. "
                    "Give null where there is no value."
                )


def _not_finite(value: Any) -> Iterator[float]:
    """Those of a value, and of the lists and objects in it, however deep."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, float) and not math.isfinite(value):
            yield value
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, dict):
            rest += value.values()
