"""The shell command ``fsparse``: train, evaluate, predict, inspect, bench, serve.

Each subcommand is a file here, thin over :class:`fsparse.pipeline.Pipeline`.
"""

from fsparse.cli._main import main

__all__ = ["main"]
