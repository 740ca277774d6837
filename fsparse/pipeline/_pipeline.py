"""A fitted schema and a trained model, as one value."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from fsparse import _checks
from fsparse.metrics import inverse_propensities
from fsparse.nn import (
    Classifier,
    EmbeddingBag,
    HashedEmbedding,
    SparseLinear,
    summary,
)
from fsparse.nn._spec import Spec
from fsparse.pipeline import _file
from fsparse.pipeline._best import best_labels
from fsparse.pipeline._explain import Reason, explain
from fsparse.pipeline._rows import batches_of, dataset_of, require_tables
from fsparse.tabular import FittedSchema, Report, Source, multi_label, read
from fsparse.train import evaluate


class Prediction(NamedTuple):
    """A label, and how sure the model is."""

    label: str
    score: float  # probability if the head computes all labels, else the logit


class Search(NamedTuple):
    """Sparse inference: so many labels are scored, found by hash tables."""

    size: int
    num_probes: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Pipeline:
    """From rows of a table to labels.

    Args:
      schema: what rows are.
      model: of batches that the schema makes.
      params: of the model.
      state: of the model.
      search: how labels are found; None for an exact search.
      figures: what was measured of it, such as metrics of validation.

    Raises:
      ValueError: if the model has other numbers of features or labels.
    """

    schema: FittedSchema
    model: Classifier
    params: Any
    state: Any
    search: Search | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_fit(self.schema, self.model)

    def predict(self, source: Source, k: int = 1) -> list[list[Prediction]]:
        """The ``k`` best labels of each row, best first.

        Args:
          source: rows (a list of dicts or a dict of columns), a path of a CSV or
            parquet file, or a reader; targets are not looked at.
          k: how many, at most as many as there are labels.

        Raises:
          ValueError: if a column is missing or a value cannot be read; the message
            names column, row and remedy. Or if ``k`` is out of range.
        """
        scores, ids = self.predict_ids(source, k)
        names = self.schema.label_names
        return [
            [
                Prediction(names[i], float(s))
                for s, i in zip(*row, strict=True)
                if i < len(names)
            ]
            for row in zip(scores, ids, strict=True)
        ]

    def predict_ids(
        self, source: Source, k: int = 1, *, report: Report | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same as ``f32[m, k]`` scores and ``i32[m, k]`` ids.

        Sparse inference that finds fewer labels fills up with the number of labels.
        A ``report`` is filled with what was odd about the rows; without one, a
        ``UserWarning`` tells.
        """
        self.require_k(k)
        require_tables("Pipeline.predict", source)
        features = self.schema.encode_features(read(source), report=report)
        found = []
        for batch, count in batches_of(features, self.schema.feature_capacity):
            best = best_labels(self.model, k, self.params, self.state, batch)
            found.append([np.asarray(x)[:count] for x in best])
        if not found:
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int32)
        scores, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return scores, ids

    def require_k(self, k: int) -> None:
        """Raises ValueError, if so many labels of a row cannot be predicted."""
        _checks.require_count("Pipeline.predict", 1, k=k)
        n = self.schema.num_labels
        if k > n:
            raise ValueError(
                f"Pipeline.predict: k must be at most {n}, the labels there are; got "
                f"{k}."
            )
        if self.search is not None and k > self.search.size:
            raise ValueError(
                f"Pipeline.predict: k must be at most {self.search.size}, the labels "
                f"that the search scores; got {k}. Use with_search for more."
            )

    def evaluate(
        self,
        source: Source,
        metrics: Sequence[str] | None = None,
        *,
        history: str = "continued",
        strict: bool = True,
    ) -> dict[str, float]:
        """Metrics on the rows of a file or a table, by name.

        Args:
          source: a path, rows, or a reader.
          metrics: names of :func:`fsparse.metrics.find`; None for those that suit the
            labels.
          history: of users, ``"continued"`` after the rows of training, or ``"new"``.
          strict: raise at the first bad row; otherwise such rows are left out.

        Labels weigh in ``psp@k`` by how many rows of the schema's fit have them.

        Raises:
          ValueError: if a metric or a history is unknown, there is no row, or a row is
            bad and ``strict``.
        """
        fn = "Pipeline.evaluate"
        require_tables(fn, source)
        if history not in ("continued", "new"):
            raise ValueError(
                f"{fn}: history must be 'continued' or 'new'; got {history!r}."
            )
        state = self.schema.state if history == "continued" else None
        data = dataset_of(self.schema, source, state=state, strict=strict)
        names = metrics_for(self.schema) if metrics is None else metrics
        counts, m = self.schema.label_counts, self.schema.num_rows
        return evaluate(
            self.model,
            self.params,
            self.state,
            data,
            names,
            feature_capacity=self.schema.feature_capacity,
            label_weights=inverse_propensities(counts, m),
        )

    def explain(self, row: dict[str, Any], label: str | None = None) -> list[Reason]:
        """What of a row speaks for a label, the strongest first.

        A column's weight is what the logit of the label loses where the column is left
        out. (Gradients times features sum to 0 in models that normalise their input.)

        Args:
          row: a dict.
          label: a name; None for the one that is predicted.

        Raises:
          ValueError: if there is no such label, or the row cannot be read.
        """
        return explain(self, row, label)

    def with_search(self, search: Search | None) -> "Pipeline":
        """The same with sparse inference, or with an exact search for None.

        Raises:
          ValueError: if the head is no :class:`fsparse.nn.SparseLinear`.
        """
        head = self.model.head
        if search is None and not isinstance(head, SparseLinear):
            return self
        if not isinstance(head, SparseLinear):
            raise ValueError(
                "Pipeline.with_search: the head must be a SparseLinear; got "
                f"{type(head).__name__}, which has no hash tables. Pass None."
            )
        params, of_head = self.params["head"], {**self.state["head"], "search": None}
        if search is not None:
            key, (size, num_probes, _) = jax.random.key(search.seed), search
            _checks.require_count("Pipeline.with_search", 1, size=size)
            of_head = head.with_index(
                params, of_head, key=key, size=size, num_probes=num_probes
            )
        return replace(self, state={**self.state, "head": of_head}, search=search)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file, all or nothing: numbers and JSON with checksums, no code.

        Raises:
          OSError: if it cannot be written.
        """
        _file.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Pipeline":
        """What :meth:`save` wrote.

        Raises:
          FileNotFoundError: if there is no such file.
          CheckpointError: if it is no model, is damaged, or of another version.
        """
        return _file.load(path)

    def summary(self) -> str:
        """Schema, layers, sizes and figures as text."""
        columns = ", ".join(
            f"{name} ({type(kind).__name__})"
            for name, kind in self.schema.schema.columns.items()
        )
        search = f"sparse, {self.search.size} scored" if self.search else "exact"
        figures = ", ".join(f"{n} {v:.4g}" for n, v in self.figures.items())
        lines = [
            f"columns: {columns}",
            f"target: {self.schema.schema.target}, {self.schema.num_labels} labels",
            f"search: {search}",
            *([f"figures: {figures}"] if figures else []),
            summary(self.model),
        ]
        return "\n".join(lines)


def require_fit(schema: FittedSchema, model: Classifier) -> None:
    """Raises ValueError, if a model is not of the schema's features and labels."""
    features = num_features_of(model) or schema.num_features
    schema.check_model(num_features=features, num_labels=model.num_labels)


def num_features_of(model: Classifier) -> int | None:
    """Those that its first embedding reads, if it has one of :mod:`fsparse.nn`."""
    embeddings = (
        part.num_features
        for part in _parts(model.body)
        if isinstance(part, EmbeddingBag | HashedEmbedding)
    )
    return next(embeddings, None)


def _parts(spec: Spec) -> Iterator[Spec]:
    yield spec
    for child in spec.children().values():
        yield from _parts(child)


def metrics_for(schema: FittedSchema) -> tuple[str, ...]:
    """Metrics that suit the labels."""
    n, is_bag = schema.num_labels, isinstance(schema.schema.labels, multi_label)
    if n == 1 and schema.label_counts[0] < schema.num_rows:
        return "loss", "auc"
    if n == 2 and not is_bag:
        return "loss", "p@1", "auc"
    return "loss", "p@1", *(f"hit@{k}" for k in (5, 10) if k <= n)
