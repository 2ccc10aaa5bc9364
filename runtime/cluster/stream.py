"""A log in JetStream: one stream with one subject, replicated, appended to by expectation.

Every question has a time limit, and every answer is one of `appending.py`: nothing is raised that
only says "no answer".

Does network I/O and decides nothing. Settings: docs/ideas/hosts.md.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from skerry.runtime.cluster.appending import Acked, Found, Missing, Refused, Unknown
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.ports import LogDamaged

ASK_S = 5.0
"""How long an answer may take."""

WINDOW = 32
"""Messages that are read at once."""

WRONG_LAST = 10071
"""JetStream: "wrong last sequence"."""

FULL = {10023, 10077, 10047, 10028, 10002}
"""JetStream: "insufficient resources", "maximum bytes exceeded", "insufficient storage" and "memory", and the
account's limit."""

HEADERS_BYTES = 4096
"""Room for headers below the servers' largest payload, which they count, and the client does not."""

T = TypeVar("T")


def settings(name: str, *, replicas: int) -> StreamConfig:
    """Return how a log is set up."""
    return StreamConfig(
        name=name,
        subjects=[name],
        num_replicas=replicas,
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        max_age=0,
        # A known message id would be acknowledged whatever was expected: logs use none.
        duplicate_window=0.1,
        allow_direct=False,
        deny_delete=True,
        description="A log of skerry. Its sequence is its fence: do not edit.",
    )


class JetStream:
    """One log, as its owner uses it.

    Args:
        name: of the stream and of its only subject.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self.name = engine, name

    def create(self, *, replicas: int) -> None:
        """Make the stream, which is empty. Only who adds a member to an app calls this.

        Raises Away, also when the servers refuse it; LogDamaged: there is one, and it has had messages.
        """
        try:
            self._ask(
                lambda client: client.jetstream().add_stream(settings(self.name, replicas=replicas))
            )
        except APIError as error:
            room = " Make room on the servers, or raise their limits." * (error.err_code in FULL)
            raise Away(
                f"NATS does not make the stream {self.name}, the log of a shard, it says: "
                f"{error.description}.{room} Look at it with `nats server report jetstream`."
            ) from error
        if self.ends() != (1, 0):
            raise LogDamaged(
                f"The stream {self.name} is there already, and was used. A new shard can't begin on "
                f"it. Look at it with `nats stream info {self.name}`."
            )

    def delete(self) -> None:
        """Remove the stream of a shard that has left. Raises Away."""
        try:
            self._ask(lambda client: client.jetstream().delete_stream(self.name))
        except NotFoundError:
            return

    def room(self) -> int:
        """How many bytes a message may have. Raises Away."""

        async def ask(client: Client) -> int:
            return client.max_payload

        return self._ask(ask) - HEADERS_BYTES

    def ends(self) -> tuple[int, int]:
        """The oldest and the newest sequence; (n + 1, n) when it holds no message.

        Raises Away; LogDamaged: there is no such stream, or it is set up otherwise.
        """
        state = self._info().state
        last = state.last_seq
        return (state.first_seq if state.messages else last + 1), last

    def size_bytes(self) -> int:
        """What the messages take, in one replica. Raises as `ends` does."""
        return self._info().state.bytes

    def _info(self) -> StreamInfo:
        try:
            found = self._ask(lambda client: client.jetstream().stream_info(self.name))
        except NotFoundError:
            raise LogDamaged(
                f"The stream {self.name}, the log of a shard, is missing in NATS at "
                f"{', '.join(self._engine.servers)}. Bring back the servers that hold it, or restore "
                f"the app's last backup. Nothing was changed."
            ) from None
        self._check(found)
        return found

    def _check(self, found: StreamInfo) -> None:
        ours = settings(self.name, replicas=1)
        names = ("subjects", "storage", "retention", "discard", "max_age", "allow_direct", "sealed")
        wrong = [
            f"{name} is {getattr(found.config, name)}"
            for name in names
            if (getattr(found.config, name) or None) != (getattr(ours, name) or None)
        ]
        if wrong:
            raise LogDamaged(
                f"The stream {self.name} was edited, and is no safe log any more: {'; '.join(wrong)}. "
                f"Set it back with `nats stream edit {self.name}`. Nothing was changed."
            )

    def publish(self, payload: bytes, expected: int) -> Acked | Refused | Unknown:
        """Append a message, if `expected` is the newest sequence."""
        headers = {"Nats-Expected-Last-Sequence": str(expected)}

        async def ask(client: Client) -> Acked | Refused | Unknown:
            context = client.jetstream()
            try:
                ack = await context.publish(self.name, payload, timeout=ASK_S, headers=headers)
            except APIError as error:
                return self._refusal(error)
            return Acked(ack.stream, ack.seq, bool(ack.duplicate))

        try:
            return self._ask(ask)
        except Away as away:
            return Unknown(str(away))

    def _refusal(self, error: APIError) -> Refused | Unknown:
        if error.err_code == WRONG_LAST:
            said = re.search(r"wrong last sequence: (\d+)", error.description or "")
            return Refused(int(said[1])) if said else Unknown()
        if error.err_code in FULL:
            return Unknown(
                f"The stream {self.name} is full, NATS says: {error.description}. Make room on the "
                f"servers, or raise their limit; the app goes on by itself then."
            )
        return Unknown(f"NATS refuses to append to {self.name}: {error.description}.")

    def look(self, sequence: int) -> Found | Missing | Unknown:
        """Read one message."""
        try:
            return self._ask(lambda client: _look(client, self.name, sequence))
        except Away:
            return Unknown()

    def read(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, message) of these sequences, in order.

        Raises Away, also when they were purged meanwhile; LogDamaged: one of them is missing.
        """
        for begin in range(first, last + 1, WINDOW):
            window = range(begin, min(begin + WINDOW, last + 1))

            async def ask(client: Client, window: range = window) -> list[Found | Missing]:
                return await asyncio.gather(*(_look(client, self.name, each) for each in window))

            for sequence, found in zip(window, self._ask(ask)):
                if not isinstance(found, Found):
                    if sequence < self.ends()[0]:
                        raise Away(f"The log {self.name} was purged while it was read.")
                    raise LogDamaged(
                        f"Message {sequence} of the stream {self.name}, the log of a shard, is missing "
                        f"at the server that leads it. Let another one lead, `nats stream cluster "
                        f"step-down {self.name}`, and start again; if all miss it, restore the app's "
                        f"last backup. Nothing was changed."
                    )
                yield sequence, found.payload

    def purge(self, sequence: int) -> None:
        """Remove the messages before a sequence. Raises Away."""
        self._ask(lambda client: client.jetstream().purge_stream(self.name, seq=sequence))

    def _ask(self, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        return self._engine.run(ask, ASK_S)


async def _look(client: Client, name: str, sequence: int) -> Found | Missing:
    try:
        found = await client.jetstream().get_msg(name, seq=sequence)
    except NotFoundError:
        return Missing()
    return Found(found.data or b"")
