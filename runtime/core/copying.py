"""Copies the rows of slots to their next owners while they are served, and deletes them behind.

    send     rows that are not copied yet, slot by slot, as chunks
    follow   what a batch changes in rows that are copied already, with the batch's own commit
    delete   rows of slots that have left, and of copies that were given up

A copy grows in the order of rows: up to a place, it holds what its owner holds. So of a change it
is known whether it must follow, and what is behind that place is sent as it is by then.

No I/O but the store's reads; no clock. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from skerry.runtime.core import handover
from skerry.runtime.core.buffer import CHUNKS, Runs
from skerry.runtime.core.events import Row, StateGroup, Table
from skerry.runtime.core.handover import Chunk
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.progress import END, START, Change, Copy, Place, Tally
from skerry.runtime.core.routing import Routing
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.ports import Committed

Frames = tuple[int, list[tuple[bytes, int]]]
"""A peer, and the (body, messages) of frames to it."""

_CHUNK = CHUNKS["chunk"]
_encode = msgspec.msgpack.Encoder().encode


class Copying:
    """The rows of a shard's slots on their way to other shards.

    Args:
        types: the entity types that the store may have states of.
    """

    def __init__(
        self,
        ownership: Ownership,
        store: Committed,
        streams: Streams,
        routing: Routing,
        types: Callable[[], Iterable[str]],
    ) -> None:
        self._ownership, self._store, self._streams = ownership, store, streams
        self._routing, self._types = routing, types
        self._told: set[tuple[int, int]] = set()
        """(slot, first version) of the copies whose receiver was told by this process what the ids in
        rows mean."""
        self.sent_bytes = self._began_ns = self._newest_ns = 0
        """Bytes of chunks with this version of the placement, and the time of the first and the newest."""
        self._deleted: Place = START
        """The last row that this process has deleted of the first slot that has gone."""

    def adopted(self, sent: Mapping[int, Copy]) -> None:
        """Begin with a version: forget what was said of copies that are no more."""
        self.sent_bytes = 0
        self._told &= {(slot, copy.since) for slot, copy in sent.items()}

    def stats(self) -> dict[str, int]:
        """Return how many bytes have been sent with this version, and in which time."""
        spent_ms = (self._newest_ns - self._began_ns) // 1_000_000
        return {"copied_bytes": self.sent_bytes, "copied_ms": spent_ms}

    def ahead(self, slot: int) -> int:
        """Return how many bytes to a slot's next owner are unacked."""
        stream = self._streams.outbound.get(self._taker(slot))
        return 0 if stream is None else stream.unacked_bytes

    def _taker(self, slot: int) -> int:
        placement = self._ownership.placement
        return placement.coming.get(slot, placement.slots[slot])

    def send(
        self, slots: Sequence[int], sent: Mapping[int, Copy], time_ns: int, *, last: bool = False
    ) -> tuple[dict[int, Copy], list[int]]:
        """Send rows of these slots, about as many as make a frame.

        Args:
            last: whether what is left of a slot is the last of it.

        Returns:
            What is sent by then of all copies, and of which of these slots nothing is left.
        """
        copies, size, whole = dict(sent), 0, list[int]()
        for slot in slots:
            copy, room = copies[slot], handover.CHUNK_BYTES - size
            if room <= 0:
                break
            rows, ends = handover.cut(self._store, self._types(), slot, copy.upto, room)
            copy = Copy(copy.since, END if ends else rows[-1][0], copy.tally.with_(rows))
            copies[slot] = copy
            if ends:
                whole.append(slot)
            if rows or (ends and last):
                tally = copy.tally if ends and last else None
                body = self._chunk(slot, copy, rows, time_ns, tally)
                size += len(body)
                self._routing.buffer(self._taker(slot)).add(_CHUNK, "chunk", None, (slot, body))
        return copies, whole

    def follow(
        self,
        sent: Mapping[int, Copy],
        states: Iterable[StateGroup],
        rows: Iterable[Row],
        time_ns: int,
    ) -> tuple[dict[int, Copy], list[Frames]]:
        """Send what a batch changes in rows that are copied already; return what is sent by then."""
        copies, by_peer = dict(sent), dict[int, Runs]()
        for slot, changes in handover.changes_of(sent, states, rows).items():
            copy = sent[slot]
            copies[slot] = msgspec.structs.replace(copy, tally=copy.tally.with_(changes))
            runs = by_peer.setdefault(self._taker(slot), Runs())
            for part in handover.parts(changes):
                body = self._chunk(slot, copy, part, time_ns)
                runs.add(_CHUNK, "chunk", None, (slot, body))
        return copies, [(peer, runs.frames()) for peer, runs in by_peer.items()]

    def _chunk(
        self, slot: int, copy: Copy, rows: list[Change], time_ns: int, whole: Tally | None = None
    ) -> bytes:
        schemas: list[tuple[bytes, bytes]] = []
        if (slot, copy.since) not in self._told:
            self._told.add((slot, copy.since))
            schemas = [*self._store.scan(Table.SCHEMA)]
        body = _encode(Chunk(rows, schemas, time_ns, copy.since, whole))
        if not self.sent_bytes:
            self._began_ns = time_ns
        self.sent_bytes, self._newest_ns = self.sent_bytes + len(body), time_ns
        return body

    def delete(self, gone: Collection[int]) -> tuple[list[Change], list[int]]:
        """Find rows of slots that have gone, about as many as make a frame: their deletions, and which
        slots are left."""
        changes, left, size = list[Change](), list(gone), 0
        while left and size < handover.CHUNK_BYTES:
            room = handover.CHUNK_BYTES - size
            rows, ends = handover.cut(self._store, self._types(), left[0], self._deleted, room)
            changes += [(place, None) for place, _ in rows]
            size += sum(len(value or b"") for _, value in rows) + len(rows)
            self._deleted = START if ends else rows[-1][0]
            if not ends:
                break
            left.pop(0)
        return changes, left
