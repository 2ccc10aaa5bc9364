"""The caller's end: numbers its requests, retries, never doubles.

A connection knows the placement and sends each request straight to the door of its owner.
A request keeps its number for ever; what has no outcome is sent again when a door comes back
with a new epoch, or after a while. The shard remembers first outcomes, so a retry is answered
and not run again. What is confirmed is the longest run of numbers with outcomes.

All on one asyncio loop, with raw ZeroMQ sockets drained per wake-up. Idea: docs/clients.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq
from msgspec import Struct

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.placement_file import Running, running_app
from skerry.runtime.shard.events import Outcome, Placement, Request
from skerry.runtime.shard.placement import slot_of

RETRY_S = 2.0
"""Without an outcome for so long a request is sent again: twice a slow fsync's worst."""

WELCOME_S = 10.0
"""How long a worker may take to come up before it counts as unreachable."""

PAGE_ROWS = 1000
"""Rows of a scan per message."""

CONFIRM_S = 1.0
"""How often an idle connection confirms what it holds."""

_NAMED = 1 << 62
"""Numbers from here on are made from an `idempotency_key`, in a session of its own."""

_message = msgspec.msgpack.Decoder(list[msgspec.Raw])
_outcomes = msgspec.msgpack.Decoder(list[tuple[int, Outcome]])
_decode = msgspec.msgpack.decode
_encode = msgspec.msgpack.Encoder().encode


class Pending(Struct):
    """A request without an outcome."""

    request: Request
    done: Callable[[Outcome], None]
    sent_at: float


class _Door:
    """One shard's door, as a caller sees it."""

    def __init__(self, connection: Connection, shard: int, path: str) -> None:
        self.shard, self.epoch = shard, 0
        self.outgoing: list[Request] = []
        self._connection = connection
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 200)
        self.socket.setsockopt(zmq.SNDHWM, 100_000)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self.socket.connect(f"ipc://{path}")
        self.welcomed = asyncio.Event()
        self.fd = self.socket.getsockopt(zmq.FD)
        connection.loop.add_reader(self.fd, self.drain)

    def send(self, message: list[Any]) -> None:
        self.socket.send(_encode(message))
        # The descriptor of a ZeroMQ socket is edge-triggered: what came while we sent makes
        # no new edge, so it is looked at now.
        self._connection.loop.call_soon(self.drain)

    def drain(self) -> None:
        while not self.socket.closed:
            try:
                raw = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._connection.received(self, raw)

    def close(self) -> None:
        self._connection.loop.remove_reader(self.fd)
        self.socket.close()


class Connection:
    """A caller's session with a running app."""

    def __init__(self, data: Path, running: Running) -> None:
        self.data, self.running = data, running
        self.loop = asyncio.get_running_loop()
        self.session = os.urandom(16)
        self.placement: Placement
        self.welcome: dict[str, Any] = {}
        self._clock = (0, 0.0)
        self._doors: dict[int, _Door] = {}
        self._number = 0
        self._pending: dict[int, Pending] = {}
        self._last_of_slot: dict[int, int] = {}
        self._controls: dict[int, asyncio.Future[Any]] = {}
        self._control_number = 0
        self._confirmed = 0
        self._flush_due = False
        self._nurse: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, data: Path) -> Connection:
        """Connect to the app that runs on this data directory. Raises Unavailable."""
        self = cls(data, running_app(data))
        first = self._door(self.running.shards[0])
        await self._hello(first)
        for shard in self.placement.members:
            await self._hello(self._door(shard))
        self._nurse = self.loop.create_task(self._retry_for_ever())
        return self

    def _door(self, shard: int) -> _Door:
        door = self._doors.get(shard)
        if door is None:
            path = f"{self.running.sockets}/door-{shard}"
            door = self._doors[shard] = _Door(self, shard, path)
        return door

    async def _hello(self, door: _Door) -> None:
        deadline = time.monotonic() + WELCOME_S
        while not door.welcomed.is_set():
            door.send(["hello"])
            try:
                await asyncio.wait_for(door.welcomed.wait(), 0.5)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"Shard {door.shard} of the app in {self.data} does not answer. Look at "
                        f"its log in {self.data / 'logs'}, or start the app again."
                    ) from None

    # ── requests ──

    def request(
        self,
        type_name: str,
        key: str,
        handler: str,
        args: bytes,
        done: Callable[[Outcome], None],
        *,
        reply: bool = True,
        query: bool = False,
        named: bytes = b"",
    ) -> int:
        """Send one request; `done` gets its outcome, once. Returns its number."""
        slot = slot_of(type_name, key)
        previous = 0
        if named:
            number = _NAMED | int.from_bytes(named[:7], "big")
        else:
            self._number += 1
            number = self._number
        if not query and not named:
            # A query leaves no row behind, so nothing may wait for it.
            last = self._last_of_slot.get(slot, 0)
            previous = last if last in self._pending else 0
            self._last_of_slot[slot] = number
        request = Request(
            named or self.session,
            number,
            previous,
            0 if named else self._confirmed,
            self._server_ns(),
            type_name,
            key,
            handler,
            args,
            reply,
            named,
        )
        self._pending[number] = Pending(request, done, time.monotonic())
        self._queue(request, slot)
        return number

    def abandon(self, number: int) -> None:
        """Nobody waits for this request any more; its outcome stays unknown."""
        pending = self._pending.get(number)
        if pending is not None:
            pending.done = _nobody

    def _server_ns(self) -> int:
        server, local = self._clock
        return server + int((time.monotonic() - local) * 1e9)

    def _queue(self, request: Request, slot: int) -> None:
        self._door(self.placement.slots[slot]).outgoing.append(request)
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """One message per door for all requests of this loop's tick."""
        self._flush_due = False
        for door in self._doors.values():
            if door.outgoing:
                requests, door.outgoing = door.outgoing, []
                for start in range(0, len(requests), 1000):
                    door.send(["asks", requests[start : start + 1000]])

    # ── controls ──

    async def control(self, shard: int, kind: str, *args: Any, timeout: float = 30) -> Any:
        """Ask a worker something that is no request to an entity."""
        self._control_number += 1
        n = self._control_number
        answer: asyncio.Future[Any] = self.loop.create_future()
        self._controls[n] = answer
        self._door(shard).send([kind, n, *args])
        try:
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise Unavailable(
                f"Shard {shard} of the app in {self.data} did not answer {kind!r} within {timeout} s."
            ) from None
        finally:
            del self._controls[n]

    async def get(self, type_name: str, key: str) -> tuple[bytes | None, bytes | None]:
        """The last committed state of an entity and its schema."""
        owner = self.placement.slots[slot_of(type_name, key)]
        state, schema = await self.control(owner, "get", type_name, key)
        return state, schema

    async def scan(
        self, type_name: str, prefix: str, shard: int, after: str
    ) -> tuple[list[tuple[str, bytes]], dict[int, bytes | None]]:
        """A page of one shard's states, behind the key `after`."""
        rows, schemas = await self.control(shard, "scan", type_name, prefix, after, PAGE_ROWS)
        return rows, schemas

    @property
    def shards(self) -> list[int]:
        """The shards of the app."""
        return self.placement.members

    # ── what comes back ──

    def received(self, door: _Door, raw: bytes) -> None:
        """One message from a door."""
        message = _message.decode(raw)
        match _decode(message[0], type=str):
            case "outcomes":
                for number, outcome in _outcomes.decode(message[1]):
                    self._outcome(number, outcome)
            case "welcome":
                self._welcomed(door, _decode(message[1]))
            case "answer":
                answer = self._controls.get(_decode(message[1]))
                if answer is not None and not answer.done():
                    answer.set_result(_decode(message[2]))
            case "error":
                n, name, text = (_decode(part) for part in message[1:4])
                answer = self._controls.get(n)
                if answer is not None and not answer.done():
                    answer.set_exception(SkerryError(f"{name}: {text}"))

    def _outcome(self, number: int, outcome: Outcome) -> None:
        pending = self._pending.get(number)
        if pending is None:
            return
        if outcome.kind == "moved":
            self._door(self.placement.members[0]).send(["hello"])
            return
        if outcome.kind == "busy":
            return  # Nothing ran; the retry comes in a while.
        del self._pending[number]
        # The oldest without an outcome comes first in the dict; named ones have no order.
        oldest = next((n for n in self._pending if n < _NAMED), self._number + 1)
        self._confirmed = oldest - 1
        pending.done(outcome)

    def _welcomed(self, door: _Door, welcome: dict[str, Any]) -> None:
        self.welcome = welcome
        self.placement = msgspec.convert(welcome["placement"], Placement)
        self._clock = (welcome["now_ns"], time.monotonic())
        if door.epoch and door.epoch != welcome["epoch"]:
            self._resend(lambda owner: owner == door.shard)
        door.epoch = welcome["epoch"]
        door.welcomed.set()

    def _resend(self, of: Callable[[int], bool], *, older_than: float = 0.0) -> None:
        now = time.monotonic()
        for pending in self._pending.values():
            request = pending.request
            slot = slot_of(request.type, request.key)
            if of(self.placement.slots[slot]) and now - pending.sent_at >= older_than:
                pending.sent_at = now
                self._queue(request, slot)

    async def _retry_for_ever(self) -> None:
        """Hello to doors that owe an outcome; confirm what is held."""
        confirmed = 0
        while True:
            await asyncio.sleep(min(RETRY_S / 4, CONFIRM_S))
            owing = {
                self.placement.slots[slot_of(p.request.type, p.request.key)]
                for p in self._pending.values()
                if time.monotonic() - p.sent_at >= RETRY_S / 4
            }
            for shard in owing:
                self._door(shard).send(["hello"])
            self._resend(lambda owner: True, older_than=RETRY_S)
            if self._confirmed > confirmed:
                confirmed = self._confirmed
                for door in self._doors.values():
                    door.send(["confirm", self.session, confirmed])

    async def close(self) -> None:
        """Confirm what is held and let go."""
        if self._nurse is not None:
            self._nurse.cancel()
        for door in self._doors.values():
            if self._confirmed:
                door.send(["confirm", self.session, self._confirmed])
        for door in self._doors.values():
            door.close()


def _nobody(outcome: Outcome) -> None:
    """The one who asked has stopped waiting."""
