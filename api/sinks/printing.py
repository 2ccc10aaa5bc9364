"""Print: a sink that prints items."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec


class Print:
    """A sink that prints items, one on each line: texts as they are, all else as JSON.

    For trying things out. It prints as `print` in a handler does: `skerry run` shows each line behind
    the number of its shard, on standard error, and keeps it in the worker's log. Items come at least
    once: after a crash, the newest may be printed again.

    Example:
        >>> app.stream(alerts).sink(sinks.Print())
    """

    def write(self, partition: str, sequence: int, items: Sequence[object], /) -> None:
        """Print the items."""
        lines = [
            item if isinstance(item, str) else msgspec.json.encode(item).decode() for item in items
        ]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
