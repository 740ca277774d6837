"""Types of arguments: what argparse calls and whose complaints it shows."""

import argparse
import math


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
