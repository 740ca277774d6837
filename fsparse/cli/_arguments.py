"""Types of arguments: what argparse calls and whose complaints it shows."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def positive_int(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer; got {text}")
    return int(text)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number; got {text}")
    return value


def fraction_or_path(text: str) -> float | str:
    """A number in [0, 1), or else a path."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"a fraction must be in [0, 1); got {text}")
    return value


def delimiter(text: str) -> str:
    r"""One character; ``\t`` and ``tab`` are the tab, which is hard to type."""
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"must be one character; got {text!r}")
    return text


def seed(text: str) -> int:
    """A whole number in [0, 2**31)."""
    return _whole(text, 2**31)


def port(text: str) -> int:
    """A whole number in [0, 2**16)."""
    return _whole(text, 2**16)


def _whole(text: str, end: int) -> int:
    if not text.isdecimal() or int(text) >= end:
        raise argparse.ArgumentTypeError(f"must be in [0, {end}); got {text}")
    return int(text)


def require_folder(path: Path | None) -> None:
    """Raises FileNotFoundError before work is done whose result had no place."""
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path} cannot be written: there is no folder {path.parent}. Make it."
        )


def finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """NaN and infinities are null, which JSON has."""
    return {
        name: None if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in figures.items()
    }
