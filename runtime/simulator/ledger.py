"""Keeps its own books of what was sent and what was run, and compares them: once, and in order.

It shares no code and no data with the core: it is told which messages were sent and which came
to their turns, notes both with the commit they belong to, and forgets the notes of commits that
a crash took back. When all is quiet, every message that a commit sent must have run in exactly
one commit; and of two messages from one entity to another, the earlier must have run first. (Of
messages that several entities sent alike, nobody can tell which is which: these are counted,
not ordered.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import count
from typing import Any

import msgspec

Message = tuple[str, str, str, bytes]
"""(entity type, key, handler, arguments)."""


_moments = count()
"""Counts the batches of all shards: entities move between them."""


class Books:
    """What one shard did, by commit."""

    def __init__(self) -> None:
        self.all_sent: list[tuple[int, int, str, Message]] = []
        """(commit, moment, sender, message)."""
        self.all_run: list[tuple[int, int, Message]] = []
        self._open_sent: list[tuple[str, Message]] = []
        self._open_run: list[Message] = []

    # ── what it is told (`observer.Observer`) ──

    def sent(self, sender: str, message: Message) -> None:
        """Note a message that was sent."""
        self._open_sent.append((sender, message))

    def ran(self, message: Message) -> None:
        """Note a message that ran."""
        self._open_run.append(message)

    def undone(self) -> None:
        """Forget the batch: it was thrown away."""
        self._open_sent.clear()
        self._open_run.clear()

    def sealed(self, no: int | None) -> None:
        """Note which commit the batch became, if any."""
        assert no is not None or not self._open_sent, "a batch that sends has a commit"
        if no is not None:
            at = next(_moments)
            self.all_sent += [(no, at, sender, message) for sender, message in self._open_sent]
            self.all_run += [(no, at, message) for message in self._open_run]
        self.undone()

    # ── what a cluster knows ──

    def go_on(self, other: Books, upto: int) -> None:
        """Go on from what another's books hold up to this commit."""
        self.all_sent = [entry for entry in other.all_sent if entry[0] <= upto] + self.all_sent
        self.all_run = [entry for entry in other.all_run if entry[0] <= upto] + self.all_run

    def crashed(self, durable: int) -> None:
        """Forget what came after this commit: it never was."""
        self.undone()
        self.all_sent = [entry for entry in self.all_sent if entry[0] <= durable]
        self.all_run = [entry for entry in self.all_run if entry[0] <= durable]


def compare(books: Iterable[Books]) -> list[str]:
    """A sentence for each message that was lost, doubled or overtaken."""
    books = list(books)
    sent = Counter(message for book in books for _, _, _, message in book.all_sent)
    run = Counter(message for book in books for _, _, message in book.all_run)
    wrong = [f"I1: {_text(m)} was sent and not run ({n} times)" for m, n in (sent - run).items()]
    wrong += [f"I1: {_text(m)} ran {n} times too often" for m, n in (run - sent).items()]
    return wrong or _overtaken(books)


def _overtaken(books: list[Books]) -> list[str]:
    senders: dict[Message, set[str]] = defaultdict(set)
    orders: dict[tuple[str, str, str], list[Message]] = defaultdict(list)
    sent = [entry for book in books for entry in book.all_sent]
    for _, _, sender, message in sorted(sent, key=_moment):
        senders[message].add(sender)
        if sender:
            orders[(sender, *message[:2])].append(message)
    runs: dict[tuple[str, str], list[Message]] = defaultdict(list)
    for _, _, message in sorted((e for book in books for e in book.all_run), key=_moment):
        runs[message[:2]].append(message)
    wrong = []
    for (sender, *receiver), order in orders.items():
        ours = [m for m in order if senders[m] == {sender}]
        ran = [m for m in runs[receiver[0], receiver[1]] if senders[m] == {sender}]
        if ours != ran:
            at = next(n for n, (a, b) in enumerate(zip(ours, ran)) if a != b)
            wrong.append(f"I2: from {sender}, {_text(ran[at])} ran before {_text(ours[at])}")
    return wrong


def _moment(entry: tuple[Any, ...]) -> int:
    return int(entry[1])


def _text(message: Message) -> str:
    type_name, key, handler, args = message
    return f"{type_name}/{key}.{handler}{tuple(msgspec.msgpack.decode(args))}"
