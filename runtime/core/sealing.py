"""What a batch leaves behind: encoded states, frames with their numbers, rows, in one commit.

What cannot be encoded throws the batch away, so all that may fail comes before anything is
numbered. What the batch says to the outside is held at the gate for its commit (I3).

No I/O, no clock. Ideas: docs/ideas/log.md, docs/ideas/streams.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from skerry.runtime.core import wire
from skerry.runtime.core.commit import Chain
from skerry.runtime.core.dispatch import Dispatch
from skerry.runtime.core.events import Commit, Effect, Row
from skerry.runtime.core.gate import Gate, Held
from skerry.runtime.core.results import Raised
from skerry.runtime.core.schedule import Work
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.core.tables.table import SlotTable, Stamp


class Sealing:
    """Makes the commit of each batch of a shard."""

    def __init__(
        self,
        dispatch: Dispatch,
        streams: Streams,
        tables: Sequence[SlotTable],
        chain: Chain,
        gate: Gate,
    ) -> None:
        self._dispatch, self._streams, self._tables = dispatch, streams, tables
        self._chain, self._gate = chain, gate

    def seal(self, work: Work, time_ns: int) -> tuple[Commit | None, list[Effect]]:
        """Make the batch count: its commit, None if it left nothing, and what may leave at once.
        Raises Raised."""
        dispatch, streams, moves = self._dispatch, self._streams, self._dispatch.moves
        stamp = Stamp(self._chain.no + 1, time_ns)
        states, live = dispatch.cache.states()
        frames = self._frames(stamp.no)
        rows: list[Row] = [row for table in self._tables for row in table.rows(stamp)]
        frames += moves.follow(states, rows, time_ns)
        rows += moves.rows()
        states += moves.groups
        sealed: list[tuple[int, int]] = []
        for peer, bodies in frames:
            rows += streams.seal(peer, bodies)
            if peer != streams.me:
                sealed.append((peer, streams.outbound[peer].sealed))
        taken = streams.taken(work.frames)
        rows += streams.rows_taken(work.frames)
        if moves.released:
            streams.arrivals.run_own_first()
        replies, dispatch.clients.replies = dispatch.clients.replies, []
        effects: list[Effect] = [*dispatch.rewinds]
        dispatch.sealed()
        for table in self._tables:
            table.sealed(stamp)
        moves.sealed(stamp.no)
        if not states and not rows:
            return None, effects + self._gate.hold(Held(self._chain.no, replies, [], {}))
        rows += streams.outboxes.rows_of_released()
        effects += self._gate.hold(Held(stamp.no, replies, sealed, taken))
        return self._chain.seal(time_ns, states, rows, live), effects

    def _frames(self, no: int) -> list[tuple[int, list[tuple[bytes, int]]]]:
        """The frames of each peer, encoded. Arguments that do not encode throw the batch away."""
        filled, moves = self._dispatch.routing.filled, self._dispatch.moves
        try:
            moves.park(no)
            frames = [(peer, buffer.frames()) for peer, buffer in filled.items()]
        except (TypeError, ValueError, OverflowError) as error:
            raise Raised from error
        if moves.released:
            frames.append((self._streams.me, wire.bodies(moves.released)))
        return frames
