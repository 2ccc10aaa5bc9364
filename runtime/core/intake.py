"""What waits to be run, and the order in which a batch takes it.

The shard's own stream comes first, then a frame of each peer in turn, then what is due,
then what comes from outside: clients and sources. Peers are always taken, however full we
are; only the outside can be told to wait (else two full shards would wait for each other).

A work list is kept until its batch is sealed, since a batch that is thrown away is run
again from the same list. No I/O, no clock. Ideas: docs/streams.md, docs/clients.md.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import xxhash
from msgspec import Struct

from skerry.errors import InvalidMessage, storable
from skerry.limits import check_keys
from skerry.runtime.core.clients import Clients
from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.delivery import Delivery
from skerry.runtime.core.events import (
    SLOTS,
    Confirmed,
    Effect,
    Items,
    Operated,
    Outcome,
    Requested,
    Rewind,
    Row,
    SlotId,
    Table,
    Told,
    Written,
)
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Pipeline, Settings
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.runtime.core.tables.requests import Requests
from skerry.runtime.core.tables.timers import Timer, Timers
from skerry.runtime.core.turns import Raised, broke
from skerry.runtime.core.wire import Call, Packet
from skerry.stream import BadRow, Columns, Exit

SLOW_MESSAGES = 20_000
"""After a hang, how many messages are run one per commit: more than any batch held."""

OUTSIDE_PART = 8
"""What comes from outside has at least this part of a batch, however much is inside."""

Identity = tuple[int, int, int]
"""Names a message for the poison list: (stream's peer, frame, 0), or a kind of work and two hashes."""

_ITEM, _TIMER = 1 << 33, 1 << 34

_encode = msgspec.msgpack.Encoder().encode


Outside = Requested | Operated | Confirmed | Items | Written
"""What comes from outside."""


class PositionRow(Struct, array_like=True, frozen=True):
    """How far a partition has been read."""

    source: str
    partition: str
    position: Any


class Work(Struct):
    """What one batch runs."""

    frames: list[Packet]
    timers: list[tuple[bytes, Timer]]
    outside: list[Outside]
    expire: bool

    def __bool__(self) -> bool:
        return bool(self.frames or self.timers or self.outside or self.expire)


def partition_slot(source: str, partition: str) -> SlotId:
    """A source partition is an entity of the house: it has a slot, and lives where that lives.

    Partitions that are numbered are dealt out in turn: a few of them would not spread by chance.
    """
    if partition.isdecimal():
        return SlotId((slot_of("source", source) + int(partition)) % SLOTS)
    return slot_of(f"source {source}", partition)


def _position_key(source: str, partition: str) -> bytes:
    slot = slot_prefix(partition_slot(source, partition))
    return slot + xxhash.xxh3_128_digest(_encode((source, partition)))


def _told(positions: Sequence[Any], place: int) -> str:
    """Where an item is, for a person: as its source says it, if that does."""
    told = getattr(positions, "told", None)
    return f"position {positions[place]!r}" if told is None else str(told(place))


def _why_not_again(letter: DeadLetter) -> str:
    """Why a dead letter can't be sent anew, and what can be done."""
    if letter.answered and not letter.handler_id:
        return "It is no message that could be sent anew; it can be dropped, not retried."
    if letter.answered:
        return "Its asker was given an outcome and has acted on it; it can be dropped, not retried."
    return "This release does not have its handler; start one that has, or drop it."


class Intake:
    """Everything that waits for a batch."""

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        timers: Timers,
        requests: Requests,
        clients: Clients,
        streams: Streams,
        read: Callable[[int, bytes], bytes | None],
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self.turns_max = settings.limits.turns_per_batch_max
        """Turns in a batch, about: who has a clock makes it smaller while turns are slow."""
        self._delivery, self._read = delivery, read
        self._timers, self._requests, self._streams = timers, requests, streams
        self._clients = clients
        self._outside: deque[Outside] = deque()
        self._waiting = self._waiting_bytes = 0
        """Clients' requests among them."""
        self._operations = 0
        """Operators' words among them."""
        self._confirmed: dict[bytes, Confirmed] = {}
        """What sessions hold, as they last said: no more than sessions are known."""
        self.positions: dict[tuple[str, str], Any] = {}
        self._new_positions: dict[tuple[str, str], Any] = {}
        self._effects: list[Effect] = []
        self.items = self.asked = 0
        """Items of sources and requests of clients in the newest batch."""
        self.crowded = False
        """Whether more requests waited than it had room for."""
        self._slow_left = SLOW_MESSAGES if settings.slow else 0
        self.expire = False
        self.watch: Callable[[Identity], None]
        """Told in slow mode which message runs next."""

    def load(self, rows: Iterator[tuple[bytes, bytes]]) -> None:
        """Positions from the store's rows, as a restart finds them."""
        for _, value in rows:
            row = msgspec.msgpack.decode(value, type=PositionRow)
            self.positions[(row.source, row.partition)] = row.position

    def add(self, event: Outside) -> None:
        """Something from outside. Of requests as many as there is room for (I7)."""
        if isinstance(event, Written):
            # It makes room, and its partition waits for it: not behind thousands of requests.
            self._outside.appendleft(event)
            return
        if isinstance(event, Confirmed):
            # It says all that earlier ones have said. Of a session that nobody knows, nothing.
            if self._requests.knows(event.session):
                self._confirmed[event.session] = event
            return
        self._outside.append(event)
        if isinstance(event, Operated):
            self._operations += 1
        if isinstance(event, Requested):
            self._waiting += event.count
            self._waiting_bytes += event.size

    def has_room(self) -> bool:
        """Whether requests of clients can be taken in. One message may go beyond."""
        limits = self._limits
        return (
            self._waiting < limits.waiting_requests_max
            and self._waiting_bytes < limits.waiting_bytes_max
        )

    def has_room_to_operate(self) -> bool:
        """Whether an operator's word on a dead letter can be taken in."""
        return self._operations < self._limits.operations_max

    @property
    def asking(self) -> bool:
        """Whether clients wait for the next batch, and all of them will be in it."""
        return self._waiting > 0 and not self.crowded

    @property
    def slow(self) -> bool:
        """Whether messages run one per commit, each with a name that survives a kill."""
        return self._slow_left > 0

    def waits(self, now_ns: int) -> bool:
        """Whether a batch would find anything."""
        due = self._timers.next_ns
        return bool(
            self._outside
            or self._confirmed
            or self.expire
            or (due is not None and due <= now_ns)
            or self._streams.waits
        )

    # ── gathering ──

    def gather(self, now_ns: int) -> Work:
        """What the next batch runs."""
        work = self._gather(now_ns)
        self.items = sum(len(e.items) for e in work.outside if isinstance(e, Items))
        self.asked = sum(e.count for e in work.outside if isinstance(e, Requested))
        self.crowded = self.asked > 0 and self._waiting > 0
        return work

    def _gather(self, now_ns: int) -> Work:
        limits = self._limits
        if self.slow:
            return self._gather_one(now_ns)
        frames = self._gather_frames(self.turns_max)
        timers = self._timers.due(now_ns, limits.timers_per_batch_max)
        # What is inside goes first: what is taken in before it is done only waits, in here.
        inside = sum(frame.count for frame in frames)
        most = max(self.turns_max - inside, self.turns_max // OUTSIDE_PART, 1)
        outside = self._gather_outside(min(most, limits.requests_per_batch_max))
        expire, self.expire = self.expire, False
        return Work(frames, timers, outside, expire)

    def _gather_outside(self, most: int) -> list[Outside]:
        """What came first, requests counted one by one; the rest of a message stays in front."""
        found: list[Outside] = []
        for id in list(islice(self._confirmed, max(1, most // 2))):
            found.append(self._confirmed.pop(id))
            most -= 1
        while self._outside and most > 0:
            event = self._outside.popleft()
            if isinstance(event, Operated):
                self._operations -= 1
            if isinstance(event, Requested):
                count = event.count
                if count > most:
                    event, rest = event.split(most)
                    self._outside.appendleft(rest)
                    count = most
                self._waiting -= count
                self._waiting_bytes -= event.size
                most -= count - 1
            found.append(event)
            most -= 1
        return found

    def _gather_frames(self, messages_max: int) -> list[Packet]:
        """The own stream first; of peers a frame each, those first that have waited longest."""
        frames: list[Packet] = []
        own, ready = self._streams.own, self._streams.ready
        while own.waiting and messages_max > 0:
            frames.append(own.take())
            messages_max -= frames[-1].count
        if own.taken < self._streams.first:
            return frames
        messages_max = max(messages_max, self.turns_max // 2)
        while ready and messages_max > 0:
            frames.append(self._next_frame())
            messages_max -= frames[-1].count
        return frames

    def _next_frame(self) -> Packet:
        """The oldest frame of the peer whose turn it is; what else it has waits for the others."""
        stream = self._streams.ready.popleft()
        packet = stream.take()
        if stream.waiting:
            self._streams.ready.append(stream)
        return packet

    def _gather_one(self, now_ns: int) -> Work:
        """One message, or one peer's frame to be cut into messages of the own stream."""
        self._slow_left -= 1
        if not self.slow:
            # Frames of peers were cut into the own stream; theirs that follow run whole again (I2).
            self._streams.own_first()
        if self._streams.own.waiting:
            return Work([self._streams.own.take()], [], [], False)
        if self._streams.ready:
            return Work([self._next_frame()], [], [], False)
        timers = self._timers.due(now_ns, 1)
        if timers:
            return Work([], timers, [], False)
        if not (self._outside or self._confirmed):
            expire, self.expire = self.expire, False
            return Work([], [], [], expire)
        (event,) = self._gather_outside(1)
        if isinstance(event, Items) and len(event.items) > 1:
            where, positions, items = (event.source, event.partition), event.positions, event.items
            rest = Items(*where, positions[0], positions[1:], items[1:])
            self._outside.appendleft(rest)
            event = Items(*where, event.after, positions[:1], items[:1])
        return Work([], [], [event], False)

    # ── executing ──

    def execute(self, work: Work, now_ns: int) -> None:
        """Run the turns of a batch. Raises Raised when it must be thrown away."""
        delivery, slow = self._delivery, self.slow
        delivery.queueing = slow or bool(self._streams.own.waiting)
        for packet in work.frames:
            if slow and packet.src != self._settings.me:
                for run in self._streams.messages_of(packet):
                    delivery.buffer(self._settings.me).add_encoded(run)
                continue
            if slow:
                self.watch((packet.src, packet.seq, 0))
            for run in self._streams.messages_of(packet):
                delivery.run(run)
        for row_key, timer in work.timers:
            if slow:
                self.watch((_TIMER, xxhash.xxh3_64_intdigest(row_key), 0))
            delivery.fire(row_key, timer)
        for event in work.outside:
            match event:
                case Confirmed():
                    self._requests.confirm(event)
                case Requested():
                    self._clients.run(event, now_ns, slow=slow)
                case Items():
                    self._items(event, slow=slow)
                case Operated():
                    self._operate(event)
                case Written():
                    self._delivery.outputs.written(event)
        if work.expire:
            self._requests.expire(now_ns)
        delivery.drain(self.turns_max)

    def _operate(self, event: Operated) -> None:
        """Retry or drop a dead letter: its row and what follows are one commit."""
        row = self._read(Table.DEAD, event.id)
        if row is None or event.id in self._delivery.dead.gone:
            self._answer(event, "There is no dead letter with this id.")
            return
        letter = msgspec.msgpack.decode(row, type=DeadLetter)
        if event.action == "retry":
            handler = self._delivery.handlers.get(letter.handler_id)
            if letter.answered or handler is None:
                self._answer(event, _why_not_again(letter))
                return
            args = self._delivery.by_name(handler, letter.params, letter.args)
            try:
                entry = handler.stored_entry(args)
            except InvalidMessage as error:
                self._answer(event, f"{error}. Start a release that takes it, or drop it.")
                return
            self._delivery.left.add(Call.SEND, handler, letter.type, letter.key, entry, None)
        self._delivery.dead.remove(event.id)
        self._clients.replies.append(Told(event.caller, event.number, Outcome("done")))

    def _answer(self, event: Operated, text: str) -> None:
        outcome = Outcome("invalid", _encode(["InvalidMessage", text]))
        self._clients.replies.append(Told(event.caller, event.number, outcome))

    def _items(self, event: Items, *, slow: bool) -> None:
        """Items of a partition: their messages, and the position, in one commit."""
        where = (event.source, event.partition)
        newest = self._new_positions.get(where, self.positions.get(where))
        if event.after != newest:
            self._effects.append(Rewind(event.source, event.partition, newest))
            return
        if slow:
            position = xxhash.xxh3_64_intdigest(_encode((where, event.positions[-1])))
            self.watch((_ITEM, position, 0))
        pipeline = self._settings.pipelines[event.source]
        if type(event.items[0]) is BadRow:
            assert len(event.items) == 1, "a bad row comes alone"
            self._bury_row(event, event.items[0])
        elif not self._delivery.careful:
            columns, error = self._apply(pipeline, event.items)
            if error is not None:
                raise Raised from error
            self._spread(event, columns)
        else:
            for place in range(len(event.items)):
                self._item(pipeline, event, place)
        self._new_positions[where] = event.positions[-1]

    def _item(self, pipeline: Pipeline, event: Items, place: int) -> None:
        """One item: when its pipeline raises, it alone becomes a dead letter."""
        if self._delivery.poison:
            self._delivery.poison = False
            verdict = f"a stage or the handler {self._settings.verdict}"
            self._bury_item(event, place, verdict)
            return
        columns, error = self._apply(pipeline, [event.items[place]])
        try:
            for _, keys, column in columns:
                check_keys(keys)
                _encode(column)
        except (TypeError, ValueError, OverflowError) as unfit:
            columns, error = [], unfit
        if error is not None:
            failure = broke(error)
            self._bury_item(event, place, failure.error, failure.traceback)
        self._spread(event, columns)

    def _spread(self, event: Items, columns: Sequence[Columns]) -> None:
        """Messages to their entities; what leaves by a sink to its output."""
        for end, keys, rows in columns:
            if isinstance(end, Exit):
                slot = partition_slot(event.source, event.partition)
                self._delivery.exit(end, slot, keys, rows)
            else:
                self._delivery.spread(end, keys, rows)

    def _apply(
        self, pipeline: Pipeline, items: Sequence[Any]
    ) -> tuple[Sequence[Columns], BaseException | None]:
        """Run the user's stages. Guarded, as handlers are."""
        try:
            return pipeline.apply(items), None
        except self._settings.turn_errors as error:
            return [], error

    def _bury_item(self, event: Items, place: int, error: str, traceback: str = "") -> None:
        item = event.items[place]
        try:
            shown = storable(repr(item)[:10_000])
        except Exception:
            shown = object.__repr__(item)
        self._bury(event, f"item at {_told(event.positions, place)}: {error}", shown, traceback)

    def _bury_row(self, event: Items, row: BadRow) -> None:
        """A row that its source could not read: its place and its bytes."""
        raw: str | bytes = row.raw
        with contextlib.suppress(UnicodeDecodeError):
            raw = row.raw.decode()
        self._bury(event, row.error, raw)

    def _bury(self, event: Items, error: str, kept: str | bytes, traceback: str = "") -> None:
        self._delivery.dead.bury(
            f"source {event.source}",
            event.partition,
            error,
            args=_encode([kept]),
            traceback=traceback,
            answered=True,
        )

    # ── the end of a batch ──

    def rows(self) -> list[Row]:
        """What the batch's commit says of positions."""
        return [
            (
                Table.POSITION,
                _position_key(source, partition),
                _encode(PositionRow(source, partition, position)),
            )
            for (source, partition), position in self._new_positions.items()
        ]

    def take_effects(self) -> list[Effect]:
        """What the batch wants outside, whatever becomes durable when."""
        effects, self._effects = self._effects, []
        return effects

    def undo(self) -> None:
        """The batch is thrown away; its work list is run again."""
        self._new_positions.clear()
        self._effects.clear()

    def sealed(self) -> None:
        """The batch counts from now on."""
        self.positions.update(self._new_positions)
        self._new_positions.clear()
