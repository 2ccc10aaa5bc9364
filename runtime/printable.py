"""Makes text safe to print on a terminal: nothing in it moves the cursor, hides or forges a line.

Keys, errors and the output of handlers are data of whoever wrote them, and a terminal obeys the
control characters in them. So each is printed as its number, `\\u001b`, which is how JSON writes it,
so that JSON stays as it is.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

_CONTROL = (
    "\0-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029\ufeff"  # line and paragraph separators, byte order mark
    "\ud800-\udfff"  # half characters: bytes that were no text
)
_control = re.compile(f"[{_CONTROL}]")
_control_or_end = re.compile(f"[{_CONTROL}\n\t]")


def printable(text: str) -> str:
    """The text with its control characters as numbers; line ends stay."""
    return text if text.isprintable() else _control.sub(_number, text)


def one_line(text: str) -> str:
    """The text in one line, with control characters and line ends as numbers."""
    return text if text.isprintable() else _control_or_end.sub(_number, text)


def _number(found: re.Match[str]) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return known.get(found[0], f"\\u{ord(found[0]):04x}")


Say = Callable[[str], None]
"""Prints one line for a person."""


def say(line: str) -> None:
    """Print one line on the error output."""
    print(one_line(line), file=sys.stderr, flush=True)


class _Printable(io.TextIOWrapper):
    """A text stream that makes what is written printable."""

    def write(self, text: str, /) -> int:
        super().write(printable(text))
        return len(text)


def make_output_printable() -> None:
    """Make everything printable that this process prints from now on. `sys.__stdout__` and
    `sys.__stderr__` stay as they are, for progress bars and for files."""
    sys.stdout = _over(sys.__stdout__)
    sys.stderr = _over(sys.__stderr__)


def _over(stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    assert stream is not None, "a command line has an output"
    return _Printable(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
