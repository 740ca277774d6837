"""A table that can be learnt, and pipelines trained on it."""

import functools
import random

from fsparse import nn, train_table
from fsparse.tabular import Schema, categorical, numerical, text

WORDS = (
    "red green blue small large old new cheap round square heavy light".split()  # noqa: SIM905
)


def make_rows(count, seed=0):
    """Red or round things are mugs, others lamps if they are dear, else books."""
    rng = random.Random(seed)
    return [_row(rng) for _ in range(count)]


def _row(rng):
    words, price = rng.sample(WORDS, 3), round(10 * rng.random(), 2)
    is_mug = "red" in words or "round" in words
    kind = "mug" if is_mug else "lamp" if price > 5 else "book"
    return {"title": " ".join([*words, "thing"]), "price": price, "kind": kind}


SCHEMA = Schema(
    {"title": text(), "price": numerical(), "group": categorical()},
    target="kind",
    num_features=512,
)


def without_target(rows):
    return [{"group": "g", **row} for row in rows]


def write_csv(path, rows):
    names = list(rows[0])
    lines = [",".join(str(row[name]) for name in names) for row in rows]
    path.write_text("\n".join([",".join(names), *lines]) + "\n")
    return path


@functools.cache
def trained(head="softmax"):
    """A pipeline with a head of the default kind, or with a wide one."""
    model = None
    if head == "wide":
        model = nn.extreme_classifier(512, 3, width=16, num_negatives=8)
    return train_table(
        without_target(make_rows(600)),
        schema=SCHEMA,
        model=model,
        width=16,
        epochs=8,
        batch_size=32,
        learning_rate=0.02,
        progress=False,
    )
