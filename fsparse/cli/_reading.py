"""How a table's file is read, as options of subcommands."""

import argparse
from typing import Any

from fsparse.cli._arguments import delimiter


def add_reading(parser: argparse.ArgumentParser, *, skips: bool = False) -> None:
    """Of CSV files; ``skips`` where bad rows may be left out."""
    add = parser.add_argument
    add("--delimiter", type=delimiter, help="between fields of CSV; default: ,")
    add("--encoding", help="of CSV, such as latin-1; default: utf-8")
    if skips:
        add("--skip-bad-rows", action="store_true", help="and count them in a warning")


def reader_of(arguments: argparse.Namespace, path: str) -> Any:
    """A reader of a file, with the options that were given."""
    from fsparse.tabular import read

    given = {"delimiter": arguments.delimiter, "encoding": arguments.encoding}
    options = {name: value for name, value in given.items() if value is not None}
    strict = not getattr(arguments, "skip_bad_rows", False)
    return read(path, strict=strict, **options)
