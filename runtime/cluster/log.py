"""A shard's log in a cluster: each record is in the replicated stream before it counts.

    append:  records -> message -> stream, expecting its newest sequence -> segments, unsynced
    replay:  segments -> what the stream has behind them -> segments

The stream is the log. The segments beside the tree are a copy of its newest part, so that a host
that starts again reads its own disk and asks for the rest only, and so that checkpoints, copies and
readers find what they find on a host without a cluster. What stands in them was acknowledged by the
stream before. If a power cut takes some of it, it comes from the stream again.

A message is sealed by a checksum. It holds records, or a part of one that is larger than a message
may be. Parts count with the last one: an owner may have been killed between them.

Does file I/O, and network I/O through the stream. Idea: docs/ideas/hosts.md. Asserts I5, I6.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from skerry.errors import SkerryError, StoreDamaged, Unavailable
from skerry.runtime.cluster.appending import (
    Acked,
    Appending,
    Found,
    Missing,
    Refused,
    Step,
    Unknown,
)
from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import Decoded
from skerry.runtime.ports import Last, LogDamaged, LogSnapshot
from skerry.runtime.store.disk import sealed, sealed_size, unsealed
from skerry.runtime.store.segment import LENGTH
from skerry.runtime.store.segments import Segments

PAUSE_S, PAUSE_MAX_S = 0.02, 1.0
"""How long to wait before an append is tried again: twice as long each time, up to the second."""

WHOLE, PART, LAST_PART = range(3)
"""What a message holds: records, a part of one, or the last part."""

_HEAD = struct.Struct("<B16sQ")
"""What it holds, who has written it, and the number of its first commit."""


class Stream(Protocol):
    """A replicated log of messages, numbered from 1; see `stream.py`."""

    name: str

    def ends(self) -> tuple[int, int]:
        """The oldest and the newest sequence; (n + 1, n) when it holds no message."""
        ...

    def publish(self, payload: bytes, expected: int) -> Acked | Refused | Unknown:
        """Append a message, if `expected` is the newest sequence."""
        ...

    def look(self, sequence: int) -> Found | Missing | Unknown:
        """Read one message."""
        ...

    def read(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, message) of these sequences, in order. Raises StoreDamaged."""
        ...

    def room(self) -> int:
        """How many bytes a message may have."""
        ...


def _unpacked(body: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(body):
        (size,) = LENGTH.unpack_from(body, at)
        at += LENGTH.size + size
        yield body[at - size : at]


class Astray(SkerryError):
    """What lies on this host is no beginning of the stream, or ends before the stream begins: it is
    of no use, and a snapshot takes its place. Nothing is lost by that."""


class Behind(Astray):
    """The stream ends before what it has acknowledged to this host: a server was asked that has just come
    back, or the servers have lost messages."""


class Replaced(Unavailable):
    """Another owner has appended to the log. This one stops: nothing that it has told anybody is lost."""


class ReplicatedLog:
    """The log of an open store in a cluster; see `ports.Log` for its promises.

    Args:
        says: is told what keeps an append waiting, once per cause; empty: it goes on.
    """

    def __init__(
        self,
        local: Segments,
        stream: Stream,
        *,
        says: Callable[[str], None] = lambda why: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._local, self._stream = local, stream
        self._says, self._pause = says, pause
        self._owner = os.urandom(16)
        """Tells the messages of this life from those of all others."""
        self._sequence = 0
        """The newest message of the stream, as this owner knows it."""
        self.covered = 0
        """The newest message whose commits are on this host, too."""
        self.appended_bytes = 0
        """What was appended since the log was opened."""
        self._room = stream.room()

    # ── opening ──

    def replay(self) -> Iterator[Decoded]:
        """Yield every record: those on this host, and those that the stream has behind them.

        Raises Astray: what is here is damaged, or does not belong to the stream, or is ahead of it
        (Behind); LogDamaged; Away.
        """
        try:
            yield from self._local.replay()
            self._local.resume()
        except StoreDamaged as damage:
            raise Astray(str(damage)) from damage
        first, last = self._stream.ends()
        for record in self._missing(first, last):
            decoded = records.decode(record)
            self._local.append([record], sync=False)
            yield decoded
        self._sequence = self.covered = last

    def _missing(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the records of these messages that are behind those on this host."""
        here = self.last
        known = not here.no and first == 1
        """Whether the commit that is the newest here was found there. A host without any has nothing
        of a stream that was purged."""
        newest = 0
        for record in self._records(self._place(here.no, first, last), last):
            no, checksum, *_ = records.head_of(record)
            newest = no
            if no > here.no:
                if (no, records.previous_of(record)) != (self.last.no + 1, self.last.checksum):
                    if known:
                        raise self._damaged(f"commit {no} does not follow the one before it")
                    break
                known = True
                yield record
            elif no == here.no:
                if checksum != here.checksum:
                    break
                known = True
        else:
            if known:
                return
            # All that a stream had may be in a snapshot, and purged.
            if newest or not last:
                raise Behind(
                    f"The stream {self._stream.name}, the log of a shard, ends with commit {newest}, and "
                    f"has acknowledged commit {here.no} to this host"
                )
        raise Astray(
            f"Commit {here.no} on this host is none of the stream {self._stream.name}, of which "
            f"there are the messages {first} to {last}."
        )

    def _place(self, no: int, first: int, last: int) -> int:
        """Return the message in which a commit begins, or the first there is."""
        low, high = first, last + 1
        while low < high:
            middle = (low + high) // 2
            if self._begins_with(middle) < no:
                low = middle + 1
            else:
                high = middle
        if low > last or self._begins_with(low) > no:
            low -= 1  # It stands among others, in the message before.
        return max(first, low)

    def _begins_with(self, sequence: int) -> int:
        ((_, payload),) = self._stream.read(sequence, sequence)
        return self._opened(sequence, payload)[2]

    def _records(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the records in these messages, of parts when all have come."""
        parts: list[bytes] = []
        writer = b""
        for sequence, payload in self._stream.read(first, last):
            kind, owner, _, body = self._opened(sequence, payload)
            if kind == WHOLE or owner != writer:
                parts = []  # Their owner was killed before the last one.
            writer = owner
            if kind == WHOLE:
                yield from _unpacked(body)
                continue
            parts.append(body)
            if kind == LAST_PART:
                yield b"".join(parts)
                parts = []

    def _opened(self, sequence: int, payload: bytes) -> tuple[int, bytes, int, bytes]:
        """Return what a message holds, its owner, its first commit, and its body."""
        try:
            whole = unsealed(payload)
            kind, owner, no = _HEAD.unpack_from(whole)
        except (ValueError, struct.error) as error:
            raise self._damaged(f"message {sequence} is not what a log holds: {error}") from error
        return kind, owner, no, whole[_HEAD.size :]

    def _damaged(self, why: str) -> LogDamaged:
        name = self._stream.name
        return LogDamaged(
            f"The stream {name}, the log of a shard, is damaged: {why}. Let another server lead it, "
            f"`nats stream cluster step-down {name}`, and start again; if all are damaged, restore "
            f"the app's last backup. Nothing was cut off."
        )

    def resume(self) -> None:
        """Make durable what was replayed, which the stream has in any case."""
        self._local.sync()

    # ── appending ──

    def append(self, waiting: Sequence[bytes], *, sync: bool) -> None:
        """Append records; they are durable in the cluster when this returns, however long it takes.

        Raises Replaced; LogDamaged: the stream has lost messages.
        """
        for append in self.appending(waiting):
            self._publish(append)

    def appending(self, waiting: Sequence[bytes]) -> Iterator[Appending]:
        """Append records message by message: who iterates brings each append to its outcome before
        it asks for the next. The records are durable when the iteration has ended.

        Raises Replaced; LogDamaged: the stream has lost messages.
        """
        for payload in self._messages(waiting):
            append = Appending(self._stream.name, self._sequence, payload)
            yield append
            self._conclude(append)
        self._local.append(waiting, sync=False)
        self.covered = self._sequence
        self.appended_bytes += sum(map(len, waiting))

    def _messages(self, waiting: Sequence[bytes]) -> Iterator[bytes]:
        """Pack records into as few messages as hold them."""
        body: list[bytes] = []
        size = number = 0
        room = self._room - sealed_size(_HEAD)
        for record in waiting:
            needed = LENGTH.size + len(record)
            if body and size + needed > room:
                yield self._message(WHOLE, number, b"".join(body))
                body, size = [], 0
            no = records.head_of(record)[0]
            if needed > room:
                for at in range(0, len(record), room):
                    kind = PART if at + room < len(record) else LAST_PART
                    yield self._message(kind, no, record[at : at + room])
                continue
            number = number if body else no
            body += [LENGTH.pack(len(record)), record]
            size += needed
        if body:
            yield self._message(WHOLE, number, b"".join(body))

    def _message(self, kind: int, number: int, body: bytes) -> bytes:
        return sealed(_HEAD.pack(kind, self._owner, number) + body)

    def _publish(self, append: Appending) -> None:
        """Append a message, and find out whether it stands."""
        pause_s, why = PAUSE_S, ""
        while append.step in (Step.PUBLISH, Step.LOOK):
            if append.step is Step.LOOK:
                append.looked(self._stream.look(append.sequence))
                continue
            if append.tries:
                self._pause(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
            answer = self._stream.publish(append.payload, append.expected)
            append.published(answer)
            if isinstance(answer, Unknown) and answer.why != why:
                self._says(why := answer.why)
        if why:
            self._says("")

    def _conclude(self, append: Appending) -> None:
        name = self._stream.name
        if append.step is Step.FENCED:
            raise Replaced(
                f"Another process has appended to the log {name} as message {append.sequence}: this "
                f"one was replaced, and stops. Nothing that it has told anybody is lost."
            )
        if append.step is Step.LOST:
            raise LogDamaged(
                f"The stream {name} ends with message {append.last}, and has acknowledged "
                f"{append.sequence - 1}: its servers have lost messages. Bring back a server that has "
                f"them, or restore the app's last backup. Nothing was filled in from this host."
            )
        self._sequence = append.sequence

    def sync(self) -> None:
        """Sync the copy on this host."""
        self._local.sync()

    # ── the copy on this host ──

    @property
    def last(self) -> Last:
        """The newest commit."""
        return self._local.last

    @property
    def boundary(self) -> Last:
        """The newest commit before the newest segment."""
        return self._local.boundary

    @property
    def size_bytes(self) -> int:
        """What the segments take."""
        return self._local.size_bytes

    def prepare_roll(self) -> bytes:
        """Sync, and prepare to roll the segments."""
        return self._local.prepare_roll()

    def roll(self) -> None:
        """Go on in the prepared segment."""
        self._local.roll()

    def trim(self) -> None:
        """Remove older segments. The stream keeps its messages until a snapshot has their rows."""
        self._local.trim()

    def hold(self) -> LogSnapshot:
        """Hold the segments as they are."""
        return self._local.hold()

    def close(self) -> None:
        """Sync and close the segments."""
        self._local.close()


class NewLog(ReplicatedLog):
    """The log of a store that comes into a cluster with its rows: the stream is empty, and begins with
    the next commit."""

    def replay(self) -> Iterator[Decoded]:
        """Yield the records on this host. Raises StoreDamaged."""
        yield from self._local.replay()
        self._local.resume()
