"""Validation: a function of parameters that is known to work before training."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fsparse.data import Dataset, column_counts
from fsparse.metrics import find, inverse_propensities
from fsparse.train._evaluate import evaluated, require_evaluable
from fsparse.train._sources import Data, Sizes, source_of
from fsparse.train._step import Model, Step

Judge = Callable[[Any, Any], Mapping[str, float]]  # of parameters and state


def judge_of(
    fn: str,
    model: Model,
    step: Step,
    train: Data,
    validation: Data | None,
    sizes: Sizes,
    names: tuple[str, ...],
    initial: tuple[Any, Any] | None,
) -> Judge | None:
    """A function of parameters and state to metrics, known to work before training."""
    wanted = [find(name) for name in names]
    if validation is None:
        return None
    _require_same_columns(fn, train, validation)
    source = source_of(fn, "validation", validation, sizes)
    is_weighted = any(metric.name.startswith("psp@") for metric in wanted)
    weights = _label_weights(fn, train) if is_weighted else None
    like = jax.eval_shape(partial(step.init, initial=initial), jax.random.key(0))
    require_evaluable(fn, model, like.params, like.state, source, names, weights)

    def judge(params: Any, state: Any) -> Mapping[str, float]:
        return evaluated(fn, model, params, state, source, names, weights)

    return judge


def _require_same_columns(fn: str, train: Data, validation: Data) -> None:
    if not isinstance(train, Dataset) or not isinstance(validation, Dataset):
        return
    for what, ours, its in zip(("features", "labels"), train, validation, strict=True):
        if ours.num_columns != its.num_columns:
            raise ValueError(
                f"{fn}: validation must have the columns of train; got "
                f"{its.num_columns} {what}, not {ours.num_columns}. Encode both alike."
            )


def _label_weights(fn: str, train: Data) -> Any:
    if not isinstance(train, Dataset):
        raise ValueError(
            f"{fn}: psp@k must know how often labels occur; got a stream. Pass a "
            "data.Dataset, or evaluate with label_weights afterwards."
        )
    counts = column_counts(train.labels)
    return jnp.asarray(inverse_propensities(counts, train.labels.num_rows))
