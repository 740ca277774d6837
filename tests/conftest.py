"""What must be set before jax and fsparse are first imported.

Two host devices, for shard_map: XLA reads the flag at the first import of jax.

The package under test is the installed one. ``python -m pytest`` puts the working
directory first, where the sources lie without their compiled module.
"""

import os
import sys
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count=2"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()

ROOT = Path(__file__).resolve().parents[1]
wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
sys.path[:] = [p for p in sys.path if p in wanted or Path(p).resolve() != ROOT]

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def rng():
    return np.random.default_rng(0)
