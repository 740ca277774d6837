"""Problems for the comparison of samplers: data, a model, and what is hashed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sampling_models
from sampling_models import Bags, Batch, Model

from fsparse import data, sketch
from fsparse.data import DenseSplits, Splits

Array = jax.Array
_KEY_WIDTH = 32  # of the random projection of sparse inputs
_SAMPLE = 4096  # rows by which keys are standardised
_KEYS_AT_ONCE = 2**16
_POOL = 4  # pixels of an image's side that are averaged for its key
_SIDE = 28
_MAX_WORDS = 160  # of an article, the heaviest
_MAX_NGRAMS = 64  # of a form
_CTR_ROWS = 17_000_000  # to train on, and some more


class Options(NamedTuple):
    """What the command line may change of a problem; None for its own."""

    rows: int | None = None  # training examples, at most
    test_examples: int = 10_000
    batch: int | None = None


class Problem(NamedTuple):
    """What is trained and judged, and how its examples are hashed."""

    name: str
    metric: str  # "accuracy", "auc" or "precision_at_1"
    model: Model
    train: Batch  # in random order; the index of an example is its place
    validation: Batch  # a part of the training data, never trained on
    test: Batch
    num_classes: int
    batch: int  # b
    key_dim: int
    num_bits: int
    num_slices: int
    rate: float  # the middle of the grid of learning rates
    table_rate: float = 1.0  # that of wide tables, in units of it
    epoch_steps: int = 1500  # in the setting `epochs`
    epoch_examples: int = 10**9  # that are revisited there, at most
    always: Callable[[Batch], Array] | None = None  # kept by the paper's rule


def load(name: str, options: Options) -> Problem:
    """A problem by its name, or of the user's own file: `criteo:train.txt`."""
    kind, is_file, path = name.partition(":")
    return clicks(kind, path, options) if is_file else PROBLEMS[name](options)


def fashion_mnist(options: Options) -> Problem:
    """Images; keys are means of 4 x 4 pixels."""
    splits = data.load_dense("fashion-mnist")

    def key(inputs: Array) -> Array:
        cells = inputs.reshape(-1, _SIDE // _POOL, _POOL, _SIDE // _POOL, _POOL)
        return cells.mean((2, 4)).reshape(len(inputs), -1)

    model = sampling_models.dense((splits.num_features, 512, 256, 10))
    return of_arrays(splits, options, model, key, batch=64, rate=2e-3, num_bits=12)


def letter(options: Options) -> Problem:
    """Letters by 16 numbers, which are the key."""
    splits = data.load_dense("letter")
    model = sampling_models.dense((splits.num_features, 400, 400, 26))
    return of_arrays(splits, options, model, None, batch=8, rate=4e-3, epoch_steps=8000)


def adult(options: Options) -> Problem:
    """Incomes by numbers and categories, which are the key."""
    splits = data.load_dense("adult")
    model = sampling_models.dense((splits.num_features, 128, 64, 2))
    return of_arrays(
        splits, options, model, None, batch=32, rate=1e-3, epoch_steps=3000
    )


def ctr(options: Options) -> Problem:
    """Promotions by nine hashed fields; keys are random signs of the ids."""
    rows = options.rows or 2_000_000
    every = max(_CTR_ROWS // rows, 1)  # of all weeks, which differ
    splits = data.load_dense("ctr", num_rows=rows, every=every)
    model = sampling_models.of_table(
        splits.num_features, 16, (400, 400, 400, 2), num_fields=9, ranked=True
    )
    options = options._replace(test_examples=5 * options.test_examples)
    return of_arrays(
        splits,
        options,
        model,
        None,
        batch=128,
        rate=9e-3,
        metric="auc",
        epoch_examples=200_000,
        always=lambda batch: batch.labels == 1,
    )


def clicks(kind: str, path: str, options: Options) -> Problem:
    """A file of Criteo, Avazu or MovieLens, of which a tenth is held out.

    The networks of arXiv:2311.13583; keys are random signs of the ids.
    """
    num_features = 2**20
    found = data.load_clicks(
        path, kind, num_rows=options.rows, num_features=num_features
    )
    is_test = np.random.default_rng(0).random(len(found.labels)) < 0.1
    parts = [
        (Bags(found.ids[part], found.weights[part]), found.labels[part])
        for part in (~is_test, is_test)
    ]
    sizes = (400,) * 3 if kind == "movielens" else (800,) * 4
    model = sampling_models.of_table(
        num_features, 16, (*sizes, 2), num_fields=found.ids.shape[1], ranked=True
    )
    facts = {"batch": 128, "rate": 3e-3, "metric": "auc", "num_slices": 2}
    return assemble(
        kind,
        parts,
        options,
        model,
        random_signs,
        2,
        always=lambda batch: batch.labels == 1,
        **facts,
    )


def newsgroups(options: Options) -> Problem:
    """Articles by tf-idf of hashed words."""
    splits = data.tfidf(data.load("20newsgroups", num_features=2**15))
    model = sampling_models.of_table(2**15, 64, (64, 20))
    return of_rows(
        splits,
        options,
        model,
        _MAX_WORDS,
        batch=8,
        rate=4e-3,
        table_rate=4.0,
        epoch_steps=4000,
    )


def polish_lemmas(options: Options) -> Problem:
    """Nouns by n-grams of characters; a quarter of the lemmas, of 218,590."""
    num_features, width = 2**17, 64
    splits = data.load("polish-lemmas", num_features=num_features)
    splits = data.tfidf(some_labels(splits, 4))
    num_labels = splits.train.labels.num_columns
    model = sampling_models.wide(num_features, width, num_labels, num_negatives=1024)
    options = options._replace(test_examples=options.test_examples // 4)
    return of_rows(
        splits,
        options,
        model,
        _MAX_NGRAMS,
        batch=64,
        rate=1.5e-2,
        metric="precision_at_1",
        num_slices=64,
        epoch_steps=1500,
        epoch_examples=100_000,
    )


PROBLEMS: dict[str, Callable[[Options], Problem]] = {
    "fashion-mnist": fashion_mnist,
    "20newsgroups": newsgroups,
    "ctr": ctr,
    "letter": letter,
    "adult": adult,
    "polish-lemmas": polish_lemmas,
}


# ---- from data sets to problems -----------------------------------------------------


def of_arrays(
    splits: DenseSplits,
    options: Options,
    model: Model,
    raw_key: Callable[[Any], Array] | None,
    **facts: Any,
) -> Problem:
    """Dense features standardised, ids as they are."""
    train, test = splits.train, splits.test
    if train.features.dtype == np.int32:
        parts = [(Bags(part.features, None), part.labels) for part in (train, test)]
        raw_key = random_signs
    else:
        scale = sketch.standardizer(jnp.asarray(train.features))
        parts = [(np.asarray(scale(p.features)), p.labels) for p in (train, test)]
    facts = {"num_slices": splits.num_classes, **facts}
    return assemble(
        splits.name, parts, options, model, raw_key, splits.num_classes, **facts
    )


def of_rows(
    splits: Splits, options: Options, model: Model, capacity: int, **facts: Any
) -> Problem:
    """Sparse features as lists of ids, the heaviest of them; one label an example."""
    parts = []
    for part in splits[:2]:
        features, _ = data.clip(part.features, capacity)
        every = np.arange(features.num_rows)
        padded = data.to_padded(features, every, capacity)
        parts.append((Bags(*padded), part.labels.ids))
    num_classes = splits.train.labels.num_columns
    facts = {"num_slices": num_classes, **facts}
    return assemble(
        splits.name, parts, options, model, random_signs, num_classes, **facts
    )


def assemble(
    name: str,
    parts: list[tuple[Any, np.ndarray]],
    options: Options,
    model: Model,
    raw_key: Callable[[Any], Array] | None,
    num_classes: int,
    **facts: Any,
) -> Problem:
    """Shuffles, holds a part out, and measures the keys."""
    rng = np.random.default_rng(0)
    (inputs, labels), judged = parts
    order = rng.permutation(len(labels))
    if options.rows is not None:
        order = order[: options.rows]
    held_out = min(len(order) // 10, options.test_examples)
    kept, validation = order[held_out:], order[:held_out]
    some = rng.permutation(len(judged[1]))[: options.test_examples]
    raw_key = raw_key or (lambda inputs: inputs)
    sample = jax.tree.map(lambda x: jnp.asarray(x[kept[:_SAMPLE]]), inputs)
    scale = sketch.standardizer(raw_key(sample))
    batch = partial(batch_of, jax.jit(lambda inputs: scale(raw_key(inputs))))
    facts = {"metric": "accuracy", "num_bits": 8, **facts}
    facts["batch"] = options.batch or facts["batch"]
    return Problem(
        name=name,
        model=model,
        train=batch(inputs, labels, kept, in_training=True),
        validation=batch(inputs, labels, validation),
        test=batch(*judged, some),
        num_classes=num_classes,
        key_dim=scale.mean.shape[0],
        **facts,
    )


def batch_of(
    key: Callable[[Any], Array],
    inputs: Any,
    labels: np.ndarray,
    at: np.ndarray,
    *,
    in_training: bool = False,
) -> Batch:
    """Examples on the device, keys too; those not trained on have no place."""
    index = np.arange(len(at)) if in_training else np.full(len(at), -1)
    taken = jax.tree.map(lambda x: jnp.asarray(x[at]), inputs)
    starts = range(0, len(at), _KEYS_AT_ONCE)
    parts = [jax.tree.map(lambda x: x[i : i + _KEYS_AT_ONCE], taken) for i in starts]  # noqa: B023
    keys = jnp.concatenate([key(part) for part in parts])
    return Batch(taken, jnp.asarray(labels[at]), jnp.asarray(index, jnp.int32), keys)


def random_signs(bags: Bags) -> Array:
    """`f32[m, 32]` random projection of sparse inputs, without a matrix.

    Each id has 32 signs, the bits of its hash (murmur3's finalizer). Padding has weight
    0; fields have weight 1.
    """
    x = bags.ids.astype(jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> jnp.uint32(shift))) * jnp.uint32(factor)
    x ^= x >> jnp.uint32(16)
    bits = (x[..., None] >> jnp.arange(_KEY_WIDTH, dtype=jnp.uint32)) & jnp.uint32(1)
    signs = 2 * bits.astype(jnp.float32) - 1
    if bags.weights is None:
        return signs.sum(1)
    return jnp.einsum("mk,mkj->mj", bags.weights, signs)


def some_labels(splits: Splits, every: int) -> Splits:
    """The examples of one label in so many."""

    def part(dataset: data.Dataset) -> data.Dataset:
        kept = np.flatnonzero(dataset.labels.ids % every == 0)
        features, labels = (data.take(rows, kept) for rows in dataset)
        num_labels = -(-labels.num_columns // every)
        labels = labels._replace(ids=labels.ids // every, num_columns=num_labels)
        return data.Dataset(features, labels)

    return splits._replace(train=part(splits.train), test=part(splits.test))
