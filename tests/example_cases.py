"""The examples as modules and as programs, and tiny data sets that they learn."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fsparse.data import Dataset, from_lists, write_xc

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.append(str(EXAMPLES))
OWN_FEATURES, NOISE_FEATURES = 3, 40
SMALL = ["--width", 16, "--batch-size", 16, "--num-negatives", 8]


def require_examples():
    """Skips where a wheel is tested outside the tree, or without the extra."""
    if not EXAMPLES.is_dir():
        pytest.skip("there is no examples folder here", allow_module_level=True)
    for package in ("matplotlib", "optax", "rich"):
        pytest.importorskip(package, reason="needs `pip install fsparse[examples]`")


def example(name):
    require_examples()
    return importlib.import_module(name)


def make_examples(m, num_labels=50, seed=0):
    """Each label shows two of its three features among noise; some rows have two."""
    rng = np.random.default_rng(seed)
    labels = [
        rng.choice(num_labels, rng.integers(1, 3), replace=False).tolist()
        for _ in range(m)
    ]
    first_noise = num_labels * OWN_FEATURES
    features = []
    for row in labels:
        own = [
            i
            for label in row
            for i in label * OWN_FEATURES + rng.choice(OWN_FEATURES, 2, replace=False)
        ]
        noise = first_noise + rng.choice(NOISE_FEATURES, 2, replace=False)
        features.append([*own, *noise])
    num_features = first_noise + NOISE_FEATURES
    return Dataset(from_lists(features, num_features), from_lists(labels, num_labels))


def write_examples(path, m, num_labels=50, seed=0):
    write_xc(path, make_examples(m, num_labels, seed))
    return path


def launch(script, *argv, cwd, **env):
    """An example as a program of its own, away from the sources."""
    return subprocess.Popen(
        [sys.executable, EXAMPLES / script, *map(str, argv)],
        cwd=cwd,
        env=os.environ | {"XLA_FLAGS": ""} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Its exit status and all that it printed."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def arrays_of(path):
    """All arrays of a checkpoint, without the help of the module that wrote it."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "manifest.json"}


def assert_same_bits(path, other):
    one, two = arrays_of(path), arrays_of(other)
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert (array.dtype, array.shape) == (two[name].dtype, two[name].shape)
        assert array.tobytes() == two[name].tobytes(), name


def course(result):
    """What is deterministic of the training curve."""
    return [
        (point["step"], point["loss"], point["p_at_1"]) for point in result["curve"]
    ]


def run(*argv):
    """The trainer in this process; what it writes as JSON."""
    return example("train_extreme").main([str(arg) for arg in argv])


def complaint(*argv):
    """The one line with which the program ends."""
    with pytest.raises(SystemExit) as ended:
        run(*argv)
    message = ended.value.code
    assert isinstance(message, str)
    assert message.startswith("train_extreme: ")
    assert "\n" not in message
    return message


def make_state(config, sizes, seed=0):
    """Everything random, as in the middle of a run, where Adam's steps are smooth."""
    state = example("extreme_model").init(config, *sizes, seed)
    rng = np.random.default_rng(seed)

    def fill(path, x):
        name = jax.tree_util.keystr(path)
        if name.endswith(".count"):
            return jnp.int32(6)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        values = 0.3 * rng.standard_normal(x.shape).astype(np.float32)
        return jnp.asarray(np.abs(values) + 0.01 if ".nu" in name else values, x.dtype)

    return jax.tree_util.tree_map_with_path(fill, state)


def adam_of(state, name):
    """Adam's moments and count of a table."""
    return state.moments[name][f".{name}"]
