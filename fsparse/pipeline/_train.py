"""From a table to a trained pipeline, in one call."""

import os
from typing import Any

import jax
import numpy as np

from fsparse.data.rows import Dataset, column_counts, take
from fsparse.nn import (
    Activation,
    Classifier,
    EmbeddingBag,
    LayerNorm,
    Linear,
    Sequential,
    Softmax,
    extreme_classifier,
)
from fsparse.pipeline._pipeline import Pipeline, metrics_for
from fsparse.pipeline._rows import Source, dataset_of, reader_of
from fsparse.tabular import FittedSchema, Schema, infer_schema
from fsparse.train import evaluate, fit

_FEW_LABELS = 2000  # up to which computing all of them is cheap


def train_table(
    source: Source,
    target: str | None = None,
    *,
    schema: Schema | None = None,
    model: Classifier | None = None,
    width: int = 128,
    validation: Source | float = 0.1,
    strict: bool = True,
    seed: int = 0,
    **options: Any,
) -> Pipeline:
    """Trains a classifier of the rows of a table.

    Args:
      source: a path of a CSV or parquet file, rows, or a reader. Its examples are held
        in memory; for larger ones, see :func:`fsparse.fit`.
      target: the column of the labels, if the schema is to be inferred from the file.
      schema: of the columns, in its place.
      model: a classifier of ``schema.num_features``; None for :func:`default_model`.
      width: of the default model.
      validation: rows to judge by; or the fraction of the rows, drawn by ``seed``, that
        is held out; 0 for none.
      strict: raise at the first bad row; otherwise such rows are left out, and counted
        in a warning.
      seed: of all draws.
      options: of :func:`fsparse.fit`, such as ``epochs``, ``learning_rate``,
        ``folder`` and ``adaptive``.

    Returns:
      A :class:`Pipeline` with the metrics of the validation rows as ``figures``.

    Raises:
      ValueError: if neither target nor schema is given, or both; and what
        :meth:`fsparse.tabular.Schema.fit` and :func:`fsparse.fit` raise.

    Example:
      >>> rows = [{"color": c, "kind": c[0]} for c in ["red", "green", "blue"] * 20]
      >>> from fsparse.tabular import categorical
      >>> schema = Schema({"color": categorical()}, target="kind")
      >>> pipeline = train_table(
      ...     rows, schema=schema, width=8, epochs=20, batch_size=8, progress=False
      ... )
      >>> [best[0].label for best in pipeline.predict(rows[:3])]
      ['r', 'g', 'b']
    """
    plan = _schema(source, target, schema, strict)
    fitted = plan.fit(reader_of(source, strict=strict), strict=strict)
    data = dataset_of(fitted, source, strict=strict)
    train, held = _split(fitted, data, validation, seed)
    model = model or default_model(fitted, width=width)
    names = metrics_for(fitted)
    initial = _initial(model, train, seed)
    room = fitted.feature_capacity
    options = {"metrics": names, "feature_capacity": room, **options}
    found = fit(model, train, validation=held, seed=seed, initial=initial, **options)
    figures = {}
    if held is not None:
        figures = evaluate(
            model,
            found.params,
            found.state,
            held,
            names,
            feature_capacity=room,
        )
    return Pipeline(fitted, model, found.params, found.state, None, figures)


def default_model(schema: FittedSchema, *, width: int = 128) -> Classifier:
    """An embedding bag, a hidden layer, and a head that suits the number of labels.

    Up to 2,000 labels all are computed; beyond, those of
    :func:`fsparse.nn.extreme_classifier` that are active.

    Args:
      schema: fitted on what will be trained on.
      width: of the hidden layer.

    Raises:
      ValueError: if ``width`` is not positive.

    Example:
      >>> from fsparse.tabular import categorical
      >>> schema = Schema({"color": categorical()}, target="kind", num_features=64)
      >>> fitted = schema.fit([{"color": "red", "kind": "mug"}])
      >>> default_model(fitted, width=8).head
      Softmax(width=8, num_labels=1, objective='softmax')
    """
    n = schema.num_labels
    if n > _FEW_LABELS:
        return extreme_classifier(schema.num_features, n, width=width)
    body = Sequential(
        (
            EmbeddingBag(schema.num_features, width),
            LayerNorm(width),
            Linear(width, width),
            Activation("relu"),
        )
    )
    return Classifier(body, Softmax(width, n))


def _schema(
    source: Source, target: str | None, schema: Schema | None, strict: bool
) -> Schema:
    if (target is None) == (schema is None):
        raise ValueError(
            "train_table: either target or schema is required; got "
            f"{'neither' if schema is None else 'both'}. The schema names its target."
        )
    if schema is not None:
        return schema
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            "train_table: a schema is inferred from a file alone; got "
            f"{type(source).__name__}. Pass schema=."
        )
    assert target is not None
    return infer_schema(source, target, strict=strict)


def _split(
    schema: FittedSchema, data: Dataset, validation: Source | float, seed: int
) -> tuple[Dataset, Dataset | None]:
    """Examples to train on, and those to judge by."""
    if not isinstance(validation, int | float):
        return data, dataset_of(schema, validation, state=schema.state)
    if not 0 <= validation < 1:
        raise ValueError(
            f"train_table: a fraction for validation must be in [0, 1); got "
            f"{validation}."
        )
    m = data.features.num_rows
    order = np.random.default_rng(seed).permutation(m)
    held, kept = np.split(order, [round(m * validation)])
    part = lambda i: Dataset(take(data.features, i), take(data.labels, i))  # noqa: E731
    return part(np.sort(kept)), part(np.sort(held)) if len(held) else None


def _initial(model: Classifier, train: Dataset, seed: int) -> tuple[Any, Any]:
    """Parameters and state at first; the head knows how frequent labels are."""
    params, state = model.init(jax.random.key(seed))
    return params, model.with_label_counts(state, column_counts(train.labels))
