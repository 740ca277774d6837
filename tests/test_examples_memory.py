"""The figures of a step's memory, at the shape that they are claimed for."""

import json
import sys

import jax
import numpy as np
from example_cases import example

step_memory = example("step_memory")
MEGABYTE = 1_000_000


def test_a_step_at_the_shape_of_amazon_670k(tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["step_memory.py", "--json", str(path)])
    step_memory.main()
    figures = json.loads(path.read_text())
    assert set(figures) >= {
        "temp_bytes_shared",
        "temp_bytes_per_example",
        "table_bytes",
        "table_copies",
        "dense_temp_bytes",
    }
    assert figures["table_bytes"] == 4 * 128 * (670_091 + 135_909)
    assert figures["table_copies"] == 0
    assert figures["temp_bytes_shared"] < 200 * MEGABYTE
    assert figures["temp_bytes_per_example"] < 200 * MEGABYTE
    assert figures["dense_temp_bytes"] > 670_091 * 128 * 4
    printed = capsys.readouterr().out
    assert all(name in printed for name in figures)


def test_the_losses_of_the_two_models_are_the_same():
    """What is measured is worth comparing."""
    shape = step_memory.Shape(50, 70, 8, 6, 4, 9, 5)
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "embedding": jax.random.normal(keys[0], (50, 8)),
        "output": jax.random.normal(keys[1], (70, 8)),
    }
    for active in [(9,), (6, 5)]:
        batch = step_memory.Batch(
            jax.random.randint(keys[2], (6, 4), 0, 51),
            jax.random.randint(keys[3], active, 0, 70),
            jax.random.randint(keys[4], (6, 1), 0, 5),
        )
        value = step_memory.loss(params, batch, shape.num_labels)
        want = step_memory.dense_loss(params, batch, shape.num_labels)
        np.testing.assert_allclose(value, want, rtol=1e-5)
