"""Moves slots between shards while messages flow, by versions of the placement.

    version v adopted        the slot is to come: its rows go to its next owner in chunks, while it is
                             served, and so do changes of rows that have gone already
    version v+1 adopted      new messages to the slot go to its new owner, and are parked there;
                             a mark follows the last frame that went to the old one
    all marks have come      the old owner serves the slot no longer, and waits until all is acked
                             that its entities had sent
    acked                    the last chunk goes, and the old owner deletes its rows
    last chunk taken         the new owner serves the slot, and runs what was parked first

A mark is in the same numbered stream as the messages before it, so when the marks of all members
are in, nothing more comes for the slot. The wait for acks keeps the order of what the slot's own
entities send: what they sent from here is at its receivers before they send from there (I2).

One version is under way at a time: the next is made when every member has finished the last. Each
step is a batch of its own, so that none is ever undone; a crash goes on from the row that says
how far the moves are.

No I/O but the store's reads; no clock. Idea: docs/ideas/moves.md. Asserts I1, I2, I5, I6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from skerry.runtime.core import handover, wire
from skerry.runtime.core.buffer import MARKS
from skerry.runtime.core.cache import Cache
from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.copying import Copying, Frames
from skerry.runtime.core.demand import Standing
from skerry.runtime.core.events import Row, StateGroup, Table
from skerry.runtime.core.handover import Chunk
from skerry.runtime.core.ownership import Ownership, slots_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.progress import KEY, Change, Progress
from skerry.runtime.core.routing import Routing
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.core.tables.table import SlotTable
from skerry.runtime.core.wire import Call, Run
from skerry.runtime.ports import Committed

AHEAD_BYTES = 4 << 20
"""Unacked bytes to a slot's new owner above which no further chunk of a stopped slot is cut (I7)."""

COPY_AHEAD_BYTES = 1 << 20
"""The same for a slot that is served: others use the stream, too."""

_MARK = MARKS["mark"]
_encode = msgspec.msgpack.Encoder().encode


class Moves:
    """The slots on their way from a shard, and to it.

    Args:
        types: the entity types that the store may have states of.
        learn: reads anew from the store what the ids in stored bytes mean.
        writing: those of these slots whose items a sink is being handed.
    """

    def __init__(
        self,
        progress: Progress,
        ownership: Ownership,
        store: Committed,
        streams: Streams,
        routing: Routing,
        cache: Cache,
        types: Callable[[], Iterable[str]],
        learn: Callable[[], None],
        writing: Callable[[frozenset[int]], set[int]],
    ) -> None:
        self._ownership, self._store, self._streams = ownership, store, streams
        self._routing, self._cache = routing, cache
        self._learn, self._writing = learn, writing
        self._now = self._open = progress
        """How far the moves are by the newest commit, and by the open batch."""
        streams.outboxes.moving = progress.moving
        self._next: Placement | None = None
        self._stepped = False
        """Whether the open batch has brought the moves further, and not only followed changes."""
        self._copying = Copying(ownership, store, streams, routing, types)
        self._rows: list[Row] = []
        self.groups: list[StateGroup] = []
        """States that the open batch writes or deletes with a slot."""
        self.released: list[Run] = []
        """Messages that were parked and join the shard's own stream with the open batch."""
        self.time_ns = 0
        """The time of the shards that slots have come from: the shard's own must not be behind."""
        self.changed_no = 0
        """The newest commit in which the moves came further."""
        self._came = self._pause_ns = 0
        """Slots that have come with this version, and how long one was waited for."""
        self._adopted_ns = 0

    # ── from outside ──

    def offer(self, placement: Placement) -> None:
        """Take note of the next version. A version that is known already changes nothing."""
        if placement.version > self._ownership.version:
            self._next = placement

    @property
    def busy(self) -> bool:
        """Whether any slot is on its way, or a version waits to be adopted."""
        return self._now.busy or self._next is not None

    @property
    def due(self) -> bool:
        """Whether a step can be taken now."""
        now = self._now
        if not now.busy:
            return self._next is not None
        sends = self._may_send() or self._may_copy()
        return bool(now.complete or now.gone or self._may_stop()) or sends

    def standing(self, durable: int, unacked: Iterable[int]) -> Standing:
        """Say how far the shard is with the version that it goes by."""
        settled = not self.busy and self.changed_no <= durable
        version, size = self._ownership.version, self._copying.sent_bytes
        return Standing(version, settled, sorted(unacked), self._came, size, self._pause_ns)

    def stats(self) -> dict[str, int]:
        """Return how many slots are served, on their way, and copied, and how fast."""
        now = self._now
        leaving = len(now.leaving) + len(now.stopped)
        return {
            "slots": len(self._ownership.served),
            "leaving": leaving,
            "arriving": len(now.arriving),
            "copying": len(now.copying),
            **self._copying.stats(),
        }

    # ── steps: each in a batch of its own ──

    def step(self, tables: Sequence[SlotTable], time_ns: int) -> None:
        """Take the step that is due."""
        if not self._now.busy:
            self._adopt()
            self._came = self._pause_ns = 0
            self._adopted_ns = time_ns
        elif self._now.complete:
            self._serve(tables)
            self._came += len(self._now.complete)
            if self._adopted_ns:  # Else by an earlier life, which was killed meanwhile.
                self._pause_ns = time_ns - self._adopted_ns
        elif self._may_stop():
            self._stop(tables)
        elif self._may_send():
            self._send(time_ns)
        elif self._may_copy():
            self._copy(time_ns)
        else:
            self._delete()
        self._stepped = True

    def _adopt(self) -> None:
        placement, ownership = self._next, self._ownership
        assert placement is not None, "a step is taken when it is due"
        self._next = None
        before, coming = ownership.members, ownership.placement.coming
        moved = ownership.adopt(placement)
        twice = moved.keys() & placement.coming.keys()
        assert not twice, f"I5: slots {twice} move, and are named to move next"
        members = before | ownership.members
        # A shard that is no member yet has never sent anything.
        for loser in sorted(set(moved.values())) if ownership.me in members else ():
            self._routing.buffer(loser).add(_MARK, "mark", None, (placement.version,))
        # Leaving entities stay where they are; all other keys of moved slots live elsewhere now.
        self._cache.drop(moved.keys() - ownership.leaving)
        self._rows += self._streams.adopted(placement.members)
        sent, taken = self._now.copies(ownership, coming)
        self._copying.adopted(sent)
        self._open = Progress(
            placement,
            awaited=sorted(members) if ownership.leaving else [],
            leaving=sorted(ownership.leaving),
            arriving=sorted(ownership.arriving),
            sent=sent,
            taken=taken,
            gone=[slot for slot in self._now.taken if slot not in taken],
        )

    def _may_stop(self) -> frozenset[int]:
        """Leaving slots that can stop: all that was sent to them here has run, and no sink is being
        handed their items."""
        now, leaving = self._now, self._ownership.leaving
        if not leaving or not set(now.marked).issuperset(now.awaited):
            return frozenset()
        return leaving - self._writing(leaving)

    def _stop(self, tables: Sequence[SlotTable]) -> None:
        """Serve slots no longer; memory keeps nothing of them."""
        slots = self._may_stop()
        self._ownership.stop(slots)
        self._cache.drop(slots)
        for table in tables:
            for slot in slots:
                table.drop(slot)
        sealed = {peer: stream.sealed for peer, stream in self._streams.outbound.items()}
        self._open = self._now.stop(slots, sealed)

    def _may_send(self) -> bool:
        now, outbound = self._now, self._streams.outbound
        if not now.stopped or any(outbound[p].released < seq for p, seq in now.sealed.items()):
            return False
        return self._copying.ahead(now.stopped[0]) < AHEAD_BYTES

    def _send(self, time_ns: int) -> None:
        """Send what is left of the stopped slots, about as much as makes a frame."""
        sent, whole = self._copying.send(self._now.stopped, self._now.sent, time_ns, last=True)
        self._open = replace(
            self._now,
            stopped=[slot for slot in self._now.stopped if slot not in whole],
            sent={slot: copy for slot, copy in sent.items() if slot not in whole},
            gone=[*self._now.gone, *whole],
        )

    def _may_copy(self) -> bool:
        found = self._now.copying
        return bool(found) and self._copying.ahead(found[0]) < COPY_AHEAD_BYTES

    def _copy(self, time_ns: int) -> None:
        """Send rows of slots that are to move, about as many as make a frame."""
        sent, _ = self._copying.send(self._now.copying, self._now.sent, time_ns)
        self._open = replace(self._now, sent=sent)

    def _delete(self) -> None:
        """Delete rows of slots that have gone, about as many as make a frame."""
        self._learn()  # Copies may hold types that no release has here.
        changes, gone = self._copying.delete(self._now.gone)
        self._write(changes)
        self._open = replace(self._now, gone=gone)

    def _write(self, changes: Sequence[Change]) -> None:
        self.groups += handover.groups(changes)
        self._rows += handover.others(changes)

    def _serve(self, tables: Sequence[SlotTable]) -> None:
        """Serve what has come, and let what was parked run before anything else."""
        slots = self._now.complete
        self._learn()  # A release may have written these rows that has never run here.
        self._cache.drop(set(slots))
        scan = self._store.scan
        for table in tables:
            table.load(
                (id, key, value)
                for id in table.ids
                for slot in slots
                for key, value in scan(id, slot_prefix(slot))
            )
        for slot in slots:
            for key, value in scan(Table.PARKED, slot_prefix(slot)):
                self._rows.append((Table.PARKED, key, None))
                self.released += wire.decode_runs(value)
        self._ownership.serve(slots)
        now = self._now
        self._open = replace(
            now,
            arriving=sorted(self._ownership.arriving),
            complete=[],
            taken={slot: copy for slot, copy in now.taken.items() if slot not in slots},
        )

    # ── what comes in frames: it may be undone with its batch ──

    def take(self, peer: int, run: Run) -> None:
        """Take marks or chunks of a peer's frame. Raises StoreDamaged."""
        for extra in run.extras or ():
            if run.call == Call.MARK:
                assert extra[0] == self._ownership.version, "a mark is of the version under way"
                if peer not in self._open.marked and self._open.awaited:
                    self._open = replace(self._open, marked=[*self._open.marked, peer])
            else:
                self._take_chunk(extra[0], handover.chunk_of(extra[1]))
            self._stepped = True

    def _take_chunk(self, slot: int, chunk: Chunk) -> None:
        copy, complete = self._open.taken.get(slot), self._open.complete
        if copy is None or copy.since != chunk.since:
            assert chunk.whole is None, f"I1: slot {slot} is not on its way here"
            return  # The copy was given up.
        assert slot not in complete, f"I1: a row of slot {slot} comes behind the last one"
        copy = replace(copy, tally=copy.tally.with_(chunk.rows))
        if chunk.whole is not None:
            handover.check(slot, copy.tally, chunk.whole)
            complete = [*complete, slot]
        self._open = replace(self._open, taken=self._open.taken | {slot: copy}, complete=complete)
        self._write(chunk.rows)
        read = self._store.read
        self._rows += [
            (Table.SCHEMA, key, value)
            for key, value in chunk.schemas
            if read(Table.SCHEMA, key) is None
        ]
        self.time_ns = max(self.time_ns, chunk.time_ns)

    # ── the end of a batch ──

    def follow(
        self, states: Iterable[StateGroup], rows: Iterable[Row], time_ns: int
    ) -> list[Frames]:
        """Send what the open batch changes in rows that are copied already: frames for each peer."""
        if not self._open.sent:
            return []
        sent, frames = self._copying.follow(self._open.sent, states, rows, time_ns)
        if frames:
            self._open = replace(self._open, sent=sent)
        return frames

    def park(self, no: int) -> None:
        """Make rows of the open batch's messages for slots that are on their way here."""
        place = 0
        for messages in self._routing.parked.take():
            run = messages.encoded()
            for slot, own in wire.dealt(run, slots_of(run.type, run.keys)).items():
                assert slot in self._ownership.arriving, f"I5: slot {slot} is not on its way here"
                key = slot_prefix(slot) + no.to_bytes(8, "big") + place.to_bytes(4, "big")
                self._rows.append((Table.PARKED, key, wire.encode_runs([own])))
                place += 1

    def rows(self) -> Iterator[Row]:
        """Return the batch's changes."""
        yield from self._rows
        if self._open is not self._now:
            yield self.row()

    def row(self) -> Row:
        """The row that says how far the moves are."""
        return Table.META, KEY, _encode(self._open)

    def sealed(self, no: int) -> None:
        """Let the batch's changes count."""
        if self._open is not self._now:
            self._now = self._open
            self._streams.outboxes.moving = self._now.moving
        if self._stepped:
            self.changed_no = no
        self._clear()

    def undo(self) -> None:
        """Forget the batch's changes."""
        self._open = self._now
        self._clear()

    def _clear(self) -> None:
        self._rows, self.groups, self.released, self._stepped = [], [], [], False
