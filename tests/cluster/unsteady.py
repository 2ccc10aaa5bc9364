"""A replicated log that answers as servers do which are killed, elected and cut off.

An append may count though its answer is lost, or count only later; a server that leads no more may
know less than stands in the log; an acknowledgement may be of something else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from skerry.runtime.cluster.appending import Acked, Found, Missing, Refused, Unknown
from skerry.runtime.ports import LogDamaged

NAME = "skerry-test-0"


class Unsteady:
    """A stream in memory.

    Args:
        rng: of what happens; None: nothing but what should.
    """

    def __init__(self, rng: random.Random | None = None, *, room: int = 4096) -> None:
        self.name = NAME
        self.messages: list[bytes] = []
        self.purged = 0
        """How many of them are gone, the oldest ones."""
        self._rng, self._room = rng, room
        self._late: list[tuple[bytes, int]] = []
        """Appends on their way, whose callers have given up."""

    def room(self) -> int:
        return self._room

    def ends(self) -> tuple[int, int]:
        return self.purged + 1, len(self.messages)

    def publish(self, payload: bytes, expected: int) -> Acked | Refused | Unknown:
        self._arrive()
        match self._draw("lost before", "lost", "late", "odd", "other", "behind"):
            case "lost before":
                return Unknown("lost")
            case "lost":
                self._append(payload, expected)
                return Unknown("lost")
            case "late":
                self._late.append((payload, expected))
                return Unknown("late")
            case "odd":
                return Acked(NAME, expected, duplicate=True)
            case "other":
                return Acked("another", expected + 1)
            case "behind" if expected:
                return Refused(expected - 1)
            case _:
                return self._append(payload, expected)

    def _append(self, payload: bytes, expected: int) -> Acked | Refused:
        if expected != len(self.messages):
            return Refused(len(self.messages))
        self.messages.append(payload)
        return Acked(NAME, len(self.messages))

    def look(self, sequence: int) -> Found | Missing | Unknown:
        self._arrive()
        match self._draw("none", "lost"):
            case "none":
                return Missing()
            case "lost":
                return Unknown("lost")
            case _:
                there = 0 < sequence <= len(self.messages)
                return Found(self.messages[sequence - 1]) if there else Missing()

    def read(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        for sequence in range(first, last + 1):
            if not self.purged < sequence <= len(self.messages):
                raise LogDamaged(f"message {sequence} is missing")
            yield sequence, self.messages[sequence - 1]

    def _arrive(self) -> None:
        """Some of what is on its way arrives, in any order."""
        late, self._late = self._late, []
        for payload, expected in late:
            if self._rng is not None and self._rng.random() < 0.5:
                self._append(payload, expected)
            else:
                self._late.append((payload, expected))

    def _draw(self, *faults: str) -> str:
        if self._rng is None or self._rng.random() < 0.5:
            return ""
        return self._rng.choice(faults)
