"""The best parameters so far, and when to give up hope of better ones."""

from typing import Any

import jax
import jax.numpy as jnp

from fsparse.metrics import Metric
from fsparse.train._folder import Folder
from fsparse.train._history import History, best_of


class Keeper:
    """Keeps the model of the best validation: in a file, or a copy in memory.

    Args:
      metric: of the validation set; the first of equals is the best, NaN never.
      patience: validations without a better one after which to stop; None for never.
      folder: where to keep it; None for memory.
    """

    def __init__(self, metric: Metric, patience: int | None, folder: Folder | None):
        self.name, self._sign = f"val_{metric.name}", metric.sign
        self._patience, self._folder = patience, folder
        self._value = None if folder is None else folder.best_value()
        self._copy: Any = None

    def offer(self, model: Any, value: float) -> None:
        """Keeps parameters and state, if they are better than all before."""
        old = -float("inf") if self._value is None else self._sign * self._value
        if not self._sign * value > old:
            return
        self._value = value
        if self._folder is None:
            self._copy = jax.tree.map(jnp.copy, model)
        else:
            self._folder.save_best(model, value)

    def best(self, last: Any) -> Any:
        """What was kept; ``last`` if no validation gave a number."""
        if self._value is None:
            return last
        return self._copy if self._folder is None else self._folder.load_best(last)

    def is_out_of_patience(self, history: History) -> bool:
        """Whether so many validations have passed since the best."""
        if self._patience is None:
            return False
        judged = [record for record in history if self.name in record]
        best = best_of(history, self.name, self._sign)
        since = judged if best is None else judged[judged.index(best) + 1 :]
        return len(since) >= self._patience
