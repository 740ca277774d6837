"""From a table to a trained pipeline, in one call."""

from dataclasses import replace
from typing import Any

import numpy as np

from fsparse.data.rows import Dataset, take
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
from fsparse.pipeline._pipeline import (
    Pipeline,
    metrics_for,
    num_features_of,
    require_fit,
)
from fsparse.pipeline._rows import dataset_of, require_tables
from fsparse.tabular import FittedSchema, Schema, Source, infer_schema, read
from fsparse.train import fit

_FEW_LABELS = 2000  # up to which computing all of them is cheap
_EPOCHS = 5


def train_table(
    source: Source,
    target: str | None = None,
    *,
    schema: Schema | None = None,
    model: Classifier | None = None,
    width: int = 128,
    validation: Source | float | None = 0.1,
    strict: bool = True,
    seed: int = 0,
    **options: Any,
) -> Pipeline:
    """Trains a classifier of the rows of a table.

    Args:
      source: a path of a CSV or parquet file, rows, or a reader, such as
        ``read_csv(path, encoding="latin-1")``. Its examples are held in memory; for
        larger ones, see :func:`fsparse.fit`.
      target: the column of the labels, if the schema is to be inferred from the first
        rows.
      schema: of the columns, in its place.
      model: a classifier; None for :func:`default_model`. A schema without
        ``num_features`` gets those of the model.
      width: of the default model.
      validation: rows to judge by; or the fraction of the rows, drawn by ``seed``, that
        is held out; 0 or None for none.
      strict: raise at the first bad row; otherwise such rows are left out, and counted
        in a warning.
      seed: of all draws.
      options: of :func:`fsparse.fit`, such as ``epochs`` (5 if nothing is said of when
        to end), ``learning_rate``, ``folder`` and ``adaptive``. Where rows are held
        out, the parameters of the least loss of them are kept.

    Returns:
      A :class:`Pipeline`. Its ``figures`` are the metrics of the validation rows, for
      the parameters that were kept.

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
    require_tables("train_table", source)
    reader = read(source, strict=strict)
    plan = _schema(reader, target, schema, model)
    fitted, data = plan.fit_encode(reader, strict=strict)
    model = model or default_model(fitted, width=width)
    require_fit(fitted, model)
    train, held = _split(fitted, data, validation, seed, strict)
    chosen = _options(fitted, train, held, options)
    found = fit(model, train, validation=held, seed=seed, **chosen)
    figures = found.history.validated(chosen.get("keep_best"))
    return Pipeline(fitted, model, found.params, found.state, None, figures)


def _options(
    schema: FittedSchema, train: Dataset, held: Dataset | None, given: dict[str, Any]
) -> dict[str, Any]:
    """Those of :func:`fsparse.fit`, with defaults that suit small data, too."""
    defaults = {
        "metrics": metrics_for(schema),
        "feature_capacity": schema.feature_capacity,
        "batch_size": min(256, max(16, train.features.num_rows // 32)),
    }
    if not {"epochs", "steps", "seconds"} & set(given):
        defaults["epochs"] = _EPOCHS
    if held is not None:
        defaults["keep_best"] = "loss"
    return {**defaults, **given}


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
    reader: Source,
    target: str | None,
    schema: Schema | None,
    model: Classifier | None,
) -> Schema:
    """The schema given or inferred, of as many features as a model that is given."""
    if (target is None) == (schema is None):
        raise ValueError(
            "train_table: either target or schema is required; got "
            f"{'neither' if schema is None else 'both'}. The schema names its target."
        )
    if schema is None:
        assert target is not None
        schema = infer_schema(reader, target)
    if model is None or schema.num_features is not None:
        return schema
    return replace(schema, num_features=num_features_of(model))


def _split(
    schema: FittedSchema,
    data: Dataset,
    validation: Source | float | None,
    seed: int,
    strict: bool,
) -> tuple[Dataset, Dataset | None]:
    """Examples to train on, and those to judge by: at least one, if there are two."""
    if validation is not None and not isinstance(validation, int | float):
        return data, dataset_of(schema, validation, state=schema.state, strict=strict)
    validation = validation or 0.0
    if not 0 <= validation < 1:
        raise ValueError(
            f"train_table: a fraction for validation must be in [0, 1); got "
            f"{validation}."
        )
    m = data.features.num_rows
    order = np.random.default_rng(seed).permutation(m)
    count = max(round(m * validation), validation > 0) if m > 1 else 0
    held, kept = np.split(order, [count])
    part = lambda i: Dataset(take(data.features, i), take(data.labels, i))  # noqa: E731
    return part(np.sort(kept)), part(np.sort(held)) if len(held) else None
