"""Shows how far a running app has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skerry.runtime.printable import one_line, say

if TYPE_CHECKING:
    from skerry.runtime.app.control import Line
    from skerry.runtime.app.launch import Progress

PLAIN_EVERY_S = 5.0
"""How often a line is printed at most."""

DRAWN_EVERY_S = 0.1
"""How often the bar is drawn at most."""

LOOK_S = 0.1
"""How often a supervisor is asked how far it is."""


def followed(
    line: Line, kind: str, *args: object, told: Callable[[dict[str, Any]], str], of: str
) -> dict[str, Any]:
    """Tell a supervisor to do something, and show how far it is until it is done.

    Args:
        told: how far it is, in words.
        of: where that stands in what the supervisor says.

    Returns what the supervisor says at the end. Raises SkerryError: it refuses.
    """
    found: dict[str, Any] = line.ask(kind, *args)[of]
    try:
        return _followed(line, found, told, of)
    except KeyboardInterrupt:
        print("\nskerry: It goes on with the app, without this command.", file=sys.stderr)
        raise


def _followed(
    line: Line, found: dict[str, Any], told: Callable[[dict[str, Any]], str], of: str
) -> dict[str, Any]:
    waits, shown = "", Shown()
    while not found["done"]:
        time.sleep(LOOK_S)
        found = line.ask("status")[of]
        if found.get("waits", "") not in ("", waits):
            waits = found["waits"]
            print(told(found), file=sys.stderr)
        shown.show(told(found))
    shown.end()
    return found


class Shown:
    """A line on a terminal that is written again and again; elsewhere, nothing."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Show it."""
        if self._on:
            print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        self.show("")


class Lines:
    """Shows progress in plain lines, now and then, for logs and pipes."""

    def __init__(self, name: str) -> None:
        self._name, self._last, self._turns = name, time.monotonic(), 0

    def say(self, line: str) -> None:
        """Print a line."""
        say(line)

    def show(self, progress: Progress) -> None:
        """Print how far the app has come, if it has and the last line is old."""
        moved = progress.turns != self._turns
        if moved and time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._last, self._turns = time.monotonic(), progress.turns
            part = "" if progress.part is None else f", {progress.part:.0%}"
            self.say(f"{self._name}: {progress.turns:,} turns, {progress.items:,} items{part}")

    def end(self) -> None:
        """Do nothing: lines stay."""


class Bar:
    """Shows progress on a terminal: a bar, or a counter when the end is not known."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar: Any = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[turns]:,} turns  {task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
            console=Console(file=sys.__stderr__),  # It moves the cursor.
            transient=True,
            auto_refresh=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(name, total=None, turns=0, rate=0.0)
        self._before = (0.0, 0)
        self._shown_s = 0.0

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(one_line(line), markup=False, highlight=False)

    def show(self, progress: Progress) -> None:
        """Draw how far the app has come."""
        seconds, turns = self._before
        rate = self._bar.tasks[0].fields["rate"]
        if progress.seconds - seconds > 0.5:
            rate = (progress.turns - turns) / (progress.seconds - seconds)
            self._before = (progress.seconds, progress.turns)
        total = None if progress.part is None else 1.0
        self._bar.update(
            self._task, total=total, completed=progress.part or 0, turns=progress.turns, rate=rate
        )
        if time.monotonic() - self._shown_s > DRAWN_EVERY_S:
            self._shown_s = time.monotonic()
            self._bar.refresh()

    def end(self) -> None:
        """Remove the bar."""
        self._bar.stop()
