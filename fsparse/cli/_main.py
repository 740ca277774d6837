"""The command line's parser, and its errors."""

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn

_COMMANDS = {
    "train": "train a classifier of the rows of a CSV or parquet file",
    "evaluate": "measure a model on labelled rows",
    "predict": "predict the labels of rows, as CSV",
    "inspect": "show a model, or the schema that would be inferred from a file",
    "bench": "measure the latency and throughput of a model",
    "export": "write a model as compiled functions for inference",
    "serve": "answer requests over HTTP",
}


def main(argv: list[str] | None = None) -> None:
    """Runs a subcommand; what is wrong with the input ends in one line on stderr."""
    arguments = _parser().parse_args(argv)
    with _plain_warnings(arguments.command):
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    try:
        _module(arguments.command).run(arguments)
    except KeyboardInterrupt as e:
        _end(arguments.command, str(e) or "interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as e:
        _end(arguments.command, str(e), 1)


@contextmanager
def _plain_warnings(command: str) -> Iterator[None]:
    """Warnings as errors are told: what is said, not where in the code."""

    def plain(message: Warning | str, *_: Any, **__: Any) -> str:
        return f"fsparse {command}: {message}\n"

    before, warnings.formatwarning = warnings.formatwarning, plain
    try:
        yield
    finally:
        warnings.formatwarning = before


def _end(command: str, message: str, status: int) -> NoReturn:
    print(f"fsparse {command}: {message}", file=sys.stderr)
    raise SystemExit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fsparse",
        description="Very wide neural networks on ordinary CPUs.",
        epilog="Example: fsparse train train.csv --target label --out model.fsparse",
    )
    parser.add_argument("--version", action="version", version=version("fsparse"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, description in _COMMANDS.items():
        module = _module(name)
        command = commands.add_parser(
            name,
            help=description,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def _module(command: str) -> Any:
    return import_module(f"fsparse.cli._{command}")
