"""What the commands' lines have in common: their help, and numbers that must make sense."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """A whole number, 1 or more. Raises ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return number


def amount(text: str) -> float:
    """A number above zero. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return number


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command's: its help begins with the first line of its module, and tells each default."""
    return argparse.ArgumentParser(
        description=(doc or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
