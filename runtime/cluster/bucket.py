"""An app's bucket in NATS: a few keys, each changed by compare-and-set.

    look(key) -> Entry                      its value and revision; look_all: of many
    change(key, value, revision) -> Change  one change of it, tried until its outcome is known

A change names the revision that it replaces. An answer that is late, lost or refused does not tell
whether the change was made: an earlier try may have done it. So the key is read again, and the write
there is compared with ours by a name that no other write has.

Does network I/O and decides nothing. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from skerry.errors import SkerryError
from skerry.runtime.cluster.engine import Away, Closed, Engine

ASK_S = 2.0
"""How long one answer may take."""

PATIENCE_S = 15.0
"""How long a question is repeated: longer than the servers need to elect a leader."""

PAUSE_S = 0.1
"""Between two tries."""

NO_MESSAGE = 10037
"""JetStream: "no message found"."""

WRITE = "Skerry-Write"
"""Header: the name of a write."""

_OPERATION, _DELETED = "KV-Operation", "DEL"

T = TypeVar("T")


class Entry(Struct, frozen=True):
    """A key as it is now."""

    value: bytes | None
    """None: there is none, or it was deleted."""
    revision: int
    """What a change names that replaces it; 0: the key was never written."""
    write: str
    """Which write it is from; empty: not one of skerry's."""


class Overtaken(SkerryError):
    """Another write has replaced the revision that a change was to replace; or the change itself has, its
    answer was lost, and another write has replaced it since."""


class Bucket:
    """The keys. Any thread may call this."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self.name = engine, name
        self._writer, self._writes = os.urandom(8).hex(), 0

    @property
    def stream(self) -> str:
        """The name of the stream that the bucket is."""
        return f"KV_{self.name}"

    def subject(self, key: str) -> str:
        """Return the subject of a key's messages."""
        return f"$KV.{self.name}.{key}"

    def is_there(self, timeout_s: float = ASK_S) -> bool:
        """Tell whether there is such a bucket. Raises Away."""

        async def ask(client: Client) -> bool:
            try:
                await client.jetstream(timeout=timeout_s).stream_info(self.stream)
            except NotFoundError:
                return False
            return True

        return self.run(ask, timeout_s)

    def look(self, key: str, timeout_s: float = ASK_S) -> Entry:
        """Read a key once. Raises Away."""

        async def ask(client: Client) -> Entry:
            return await self._look(client.jetstream(timeout=timeout_s), key)

        return self.run(ask, timeout_s)

    async def _look(self, context: JetStreamContext, key: str) -> Entry:
        try:
            found = await context.get_msg(self.stream, subject=self.subject(key))
        except NotFoundError as error:
            if error.err_code == NO_MESSAGE:
                return Entry(None, 0, "")
            raise
        headers = found.headers or {}
        deleted = headers.get(_OPERATION) is not None
        value = None if deleted else found.data or b""
        return Entry(value, found.seq or 0, headers.get(WRITE, ""))

    def look_all(self, prefix: str, timeout_s: float = ASK_S) -> dict[str, Entry]:
        """Read all keys that begin with `prefix`, a dot behind it, once each. Raises Away."""

        async def ask(client: Client) -> dict[str, Entry]:
            context, mine = client.jetstream(timeout=timeout_s), self.subject("")
            info = await context.stream_info(self.stream, subjects_filter=f"{mine}{prefix}.>")
            keys = [subject.removeprefix(mine) for subject in info.state.subjects or ()]
            found = await asyncio.gather(*(self._look(context, key) for key in keys))
            return dict(zip(keys, found))

        return self.run(ask, timeout_s)

    def get(self, key: str) -> Entry:
        """Read a key, and try again for a while. Raises Away."""
        return patiently(lambda: self.look(key))

    def change(self, key: str, value: bytes | None, revision: int) -> Change:
        """Return a change of a key that replaces this revision; value None: it deletes the key."""
        self._writes += 1
        return Change(self, key, value, revision, f"{self._writer}-{self._writes}")

    def set(self, key: str, value: bytes) -> None:
        """Write a key once, whatever it says. Raises Away: whether it was written is unknown."""

        async def ask(client: Client) -> None:
            await client.jetstream().publish(self.subject(key), value, timeout=ASK_S)

        self.run(ask, ASK_S)

    def run(self, ask: Callable[[Client], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        """Ask the servers. Raises Away, also for what they refuse: it says nothing about a change."""
        try:
            return self._engine.run(ask, timeout_s)
        except Error as error:
            raise Away(
                f"NATS does not serve the bucket {self.name}: {error}. Look at it with "
                f"`nats stream info {self.stream}`."
            ) from error


class Change:
    """One change of a key. The same is tried again and again, so that it is made once at most."""

    def __init__(
        self, bucket: Bucket, key: str, value: bytes | None, revision: int, name: str
    ) -> None:
        self._bucket, self._key, self._value = bucket, key, value
        self._revision, self._name = revision, name

    def restate(self, value: bytes) -> None:
        """Write this from the next try on. The one before may have been written all the same."""
        self._value = value

    def attempt(self, timeout_s: float = ASK_S) -> int:
        """Try once; return the new revision.

        Raises Overtaken: another write stands there, and this change is not made any more; nobody knows
        whether it stood there before. Away: the outcome is unknown, and another attempt may tell.
        """
        try:
            return self._publish(timeout_s)
        except Closed:
            raise
        except Away as away:
            found = self._bucket.look(self._key, timeout_s)
            if found.write == self._name:
                return found.revision
            if found.revision > self._revision:
                raise Overtaken(
                    f"The key {self._key} of the bucket {self._bucket.name} was changed by somebody "
                    f"else."
                ) from None
            raise away

    def finish(self) -> int:
        """Try for a while; return the new revision. Raises Overtaken, Away."""
        return patiently(self.attempt)

    def _publish(self, timeout_s: float) -> int:
        bucket, subject = self._bucket, self._bucket.subject(self._key)
        headers = {WRITE: self._name, "Nats-Expected-Last-Subject-Sequence": str(self._revision)}
        if self._value is None:
            headers[_OPERATION] = _DELETED

        async def ask(client: Client) -> int:
            context = client.jetstream()
            ack = await context.publish(
                subject, self._value or b"", timeout=timeout_s, headers=headers
            )
            if ack.stream != bucket.stream or ack.duplicate or ack.seq <= self._revision:
                raise APIError(description=f"an acknowledgement that is none: {ack}")
            return ack.seq

        return bucket.run(ask, timeout_s)


def patiently(ask: Callable[[], T]) -> T:
    """Ask until there is an answer. Raises Away: there was none for long."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except Closed:
            raise
        except Away:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(PAUSE_S)
