"""A pipeline behind an endpoint."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fsparse.memory import use_huge_pages
from fsparse.pipeline._export import Exported
from fsparse.pipeline._pipeline import Pipeline
from fsparse.tabular import Report


class TablePredictor:
    """A :class:`fsparse.serve.Predictor` of rows as JSON objects.

    Args:
      pipeline: the model, or what was exported of one.
      name: what ``/health`` calls it.
      max_batch: examples of the largest batch; programs for all sizes are compiled now.
      k: predictions of each example, at most.
    """

    def __init__(
        self,
        pipeline: Pipeline | Exported,
        name: str,
        *,
        max_batch: int = 64,
        k: int = 10,
    ) -> None:
        self.name = name
        self._pipeline, self._k = pipeline, min(k, pipeline.schema.num_labels)
        use_huge_pages(_arrays(pipeline))
        self._columns = pipeline.schema.schema.sources(has_target=False)
        size = 1
        while size < 2 * max_batch:
            self._predict([dict.fromkeys(self._columns)] * size)
            size *= 2

    @property
    def max_k(self) -> int:
        """The most predictions of an example."""
        return self._k

    def predict(self, examples: Sequence[Any]) -> list[Any]:
        """Of each example its predictions, or the ValueError that is wrong with it."""
        errors = {i: e for i, x in enumerate(examples) if (e := self._error(x))}
        good = [x for i, x in enumerate(examples) if i not in errors]
        try:
            found = self._predict(good)
        except ValueError:
            found = [self._alone(x) for x in good]
        rest = iter(found)
        return [errors[i] if i in errors else next(rest) for i in range(len(examples))]

    def _error(self, example: Any) -> ValueError | None:
        if not isinstance(example, dict):
            got = type(example).__name__
            return ValueError(f"an example must be an object of columns; got {got}.")
        for name in self._columns:
            if name not in example:
                return ValueError(
                    f"the column {name!r} is missing; give it a value, or null."
                )
        return None

    def _alone(self, example: Any) -> Any:
        try:
            return self._predict([example])[0]
        except ValueError as e:
            return e

    def _predict(self, rows: list[Any]) -> list[Any]:
        if not rows:
            return []
        columns = {n: [row.get(n) for row in rows] for n in self._columns}
        names = self._pipeline.schema.label_names
        scores, ids = self._pipeline.predict_ids(columns, self._k, report=Report())
        return [
            [
                {"label": names[i], "score": s if np.isfinite(s) else None}
                for s, i in zip(*row, strict=True)
                if i < len(names)
            ]
            for row in zip(scores.tolist(), ids.tolist(), strict=True)
        ]


def _arrays(pipeline: Pipeline | Exported) -> Any:
    if isinstance(pipeline, Exported):
        return pipeline.leaves
    return pipeline.params, pipeline.state
