"""Runs the work of a batch: frames, due timers, requests, items of sources, operator commands.

Each piece of work is handed to the room that knows it; items of sources, with the position that
they are committed with, and commands on dead letters are handled here.

No I/O, no clock. Ideas: docs/streams.md, docs/clients.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import xxhash

from skerry.errors import InvalidMessage, storable
from skerry.limits import check_keys
from skerry.runtime.core.clients import Clients
from skerry.runtime.core.delivery import Delivery
from skerry.runtime.core.events import (
    Confirmed,
    Effect,
    Identity,
    Items,
    Operated,
    Outcome,
    Requested,
    Rewind,
    Table,
    Told,
    Written,
)
from skerry.runtime.core.schedule import Work
from skerry.runtime.core.settings import Pipeline, Settings
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.runtime.core.tables.positions import Positions, partition_slot
from skerry.runtime.core.tables.requests import Requests
from skerry.runtime.core.turns import Raised, broke
from skerry.runtime.core.wire import Call
from skerry.stream.compile import Columns, Exit
from skerry.stream.ends import BadRow

_ITEM, _TIMER = 1 << 33, 1 << 34

_encode = msgspec.msgpack.Encoder().encode


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
    """The work of the open batch, and how far sources have been read."""

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        requests: Requests,
        positions: Positions,
        clients: Clients,
        streams: Streams,
        read: Callable[[int, bytes], bytes | None],
        watch: Callable[[Identity], None],
    ) -> None:
        self._settings = settings
        self._delivery, self._read = delivery, read
        self._requests, self._positions = requests, positions
        self._clients, self._streams = clients, streams
        self._effects: list[Effect] = []
        self._watch = watch
        """Told in quarantine which message runs next."""

    # ── executing ──

    def execute(self, work: Work, now_ns: int) -> None:
        """Run the turns of a batch. Raises Raised when it must be thrown away."""
        delivery, slow = self._delivery, work.slow
        delivery.queueing = slow or bool(self._streams.own.waiting)
        for packet in work.frames:
            if slow and packet.src != self._settings.me:
                for run in self._streams.messages_of(packet):
                    delivery.buffer(self._settings.me).add_encoded(run)
                continue
            if slow:
                self._watch((packet.src, packet.seq, 0))
            for run in self._streams.messages_of(packet):
                delivery.run(run)
        for row_key, timer in work.timers:
            if slow:
                self._watch((_TIMER, xxhash.xxh3_64_intdigest(row_key), 0))
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
        delivery.drain(work.turns_max)

    def _operate(self, event: Operated) -> None:
        """Retry or drop a dead letter: its row and what follows are one commit."""
        row = self._read(Table.DEAD, event.id)
        if row is None or self._delivery.dead.is_gone(event.id):
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
        newest = self._positions.newest(*where)
        if event.after != newest:
            self._effects.append(Rewind(event.source, event.partition, newest))
            return
        if slow:
            position = xxhash.xxh3_64_intdigest(_encode((where, event.positions[-1])))
            self._watch((_ITEM, position, 0))
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
        self._positions.move(*where, event.positions[-1])

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

    def take_effects(self) -> list[Effect]:
        """What the batch wants outside, whatever becomes durable when."""
        effects, self._effects = self._effects, []
        return effects

    def undo(self) -> None:
        """The batch is thrown away; its work list is run again."""
        self._effects.clear()
