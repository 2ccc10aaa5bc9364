"""What waits for a batch, and what the next batch takes of it.

The shard's own stream comes first, then a frame of each peer in turn, then due timers, then
what comes from outside: clients, operators, sources. Peers are always taken, however full the
shard is; only the outside can be told to wait, or two full shards would wait for each other.

In quarantine, after a worker hung or crashed, a batch is one message, so that the supervisor
can read which one ran when it happens again.

Decides and keeps order; runs nothing. A batch that is thrown away runs again from the same
`Work`. No I/O, no clock. Ideas: docs/ideas/streams.md, docs/ideas/clients.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from msgspec import Struct

from skerry.runtime.core.events import Confirmed, Items, Operated, Requested, Written
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.streams.inbound import Inbound
from skerry.runtime.core.streams.parts import Part
from skerry.runtime.core.tables.timers import Timer

SLOW_MESSAGES = 20_000
"""Messages that run one per commit in quarantine: more than any batch held."""

OUTSIDE_PART = 8
"""The outside has at least this fraction of a batch, however much waits inside."""

Outside = Requested | Operated | Confirmed | Items | Written
"""Events from outside."""


class Frames(Protocol):
    """Frames that wait, as the streams keep them."""

    own: Inbound
    """The shard's own stream."""
    ready: deque[Inbound]
    """Streams of peers on which frames wait, each once, in the order of their turn."""
    first: int
    """Own frames up to this number run before any peer's."""

    def wait(self, stream: Inbound, /) -> None:
        """Let the frames of a stream wait for its next turn."""
        ...


class Due(Protocol):
    """Timers, by when they are due."""

    @property
    def next_ns(self) -> int | None:
        """When the first one is due."""
        ...

    def due(self, now_ns: int, most: int, /) -> list[tuple[bytes, Timer]]:
        """Timers that are due, oldest first."""
        ...


class Steps(Protocol):
    """Steps of slots that move."""

    @property
    def due(self) -> bool:
        """Whether a step can be taken now."""
        ...


class Work(Struct):
    """What one batch runs."""

    frames: list[Part] = []
    timers: list[tuple[bytes, Timer]] = []
    outside: list[Outside] = []
    expire: bool = False
    """Old requests and sessions are looked through."""
    turns_max: int = 0
    """Turns that may follow from its messages within the batch."""
    slow: bool = False
    """One message of a quarantine."""
    step: bool = False
    """A step of slots that move, and nothing else."""

    def __bool__(self) -> bool:
        return bool(self.frames or self.timers or self.outside or self.expire or self.step)

    @property
    def items(self) -> int:
        """Items of sources."""
        return sum(len(event.items) for event in self.outside if isinstance(event, Items))

    @property
    def requests(self) -> int:
        """Requests of clients."""
        return sum(event.count for event in self.outside if isinstance(event, Requested))


class Schedule:
    """The queue of the outside, and the order in which batches take everything."""

    def __init__(
        self,
        limits: Limits,
        frames: Frames,
        timers: Due,
        moves: Steps,
        knows: Callable[[bytes], bool],
        *,
        slow: bool,
    ) -> None:
        self._limits, self._frames, self._timers, self._moves = limits, frames, timers, moves
        self._stepped = False
        """Whether the newest batch was a step: then the next one is none, if anything else waits."""
        self._knows = knows
        """Whether a session is known."""
        self._outside: deque[Outside] = deque()
        self._requests = self._request_bytes = self._operations = 0
        """Client requests and operator commands in the queue."""
        self._confirmed: dict[bytes, Confirmed] = {}
        """The newest confirmation of each session: no more than sessions are known."""
        self.crowded = False
        """Whether more requests waited than the newest batch had room for."""
        self._slow_left = SLOW_MESSAGES if slow else 0
        self.expire = False
        """Whether the next batch looks through old requests and sessions."""

    # ── in ──

    def add(self, event: Outside) -> None:
        """Queue an event from outside."""
        match event:
            case Written():
                # It makes room, and its partition waits for it: not behind thousands of requests.
                self._outside.appendleft(event)
                return
            case Confirmed():
                # It says all that earlier ones have said. Of an unknown session it says nothing.
                if self._knows(event.session):
                    self._confirmed[event.session] = event
                return
            case Operated():
                self._operations += 1
            case Requested():
                self._requests += event.count
                self._request_bytes += event.size
        self._outside.append(event)

    def has_room(self) -> bool:
        """Whether more client requests are accepted. One message may exceed the bounds (I7)."""
        limits = self._limits
        return (
            self._requests < limits.waiting_requests_max
            and self._request_bytes < limits.waiting_bytes_max
        )

    def has_room_to_operate(self) -> bool:
        """Whether an operator's command on a dead letter is accepted."""
        return self._operations < self._limits.operations_max

    # ── what waits ──

    @property
    def asking(self) -> bool:
        """Whether clients wait for the next batch, and all their requests will be in it."""
        return self._requests > 0 and not self.crowded

    @property
    def slow(self) -> bool:
        """Whether messages run one per commit, each with an identity that survives a kill."""
        return self._slow_left > 0

    def waits(self, now_ns: int) -> bool:
        """Whether a batch would find anything."""
        due = self._timers.next_ns
        return bool(
            self._outside
            or self._confirmed
            or self.expire
            or (due is not None and due <= now_ns)
            or self._frames.ready
            or self._frames.own.waiting
            or self._moves.due
        )

    # ── out ──

    def gather(self, now_ns: int, turns_max: int) -> Work:
        """Take what the next batch runs: about so many turns."""
        if not self._stepped and self._moves.due:
            self._stepped = True
            return Work(step=True)
        work = self._one(now_ns) if self.slow else self._many(now_ns, turns_max)
        if not work and self._moves.due:
            return Work(step=True)
        self._stepped = False
        work.slow, work.turns_max = self.slow, turns_max
        self.crowded = work.requests > 0 and self._requests > 0
        return work

    def _many(self, now_ns: int, turns_max: int) -> Work:
        limits = self._limits
        frames = self._take_frames(turns_max)
        timers = self._timers.due(now_ns, limits.timers_per_batch_max)
        # The inside goes first: whatever is accepted before it is done only waits here.
        inside = sum(frame.count for frame in frames)
        room = max(turns_max - inside, turns_max // OUTSIDE_PART, 1)
        outside = self._take_outside(min(room, limits.requests_per_batch_max))
        return Work(frames, timers, outside, self._take_expire())

    def _one(self, now_ns: int) -> Work:
        """One message."""
        self._slow_left -= 1
        if self._frames.own.waiting:
            return Work([self._frames.own.take(1)])
        if self._frames.ready:
            return Work([self._next_part(1)])
        if timers := self._timers.due(now_ns, 1):
            return Work(timers=timers)
        if not (self._outside or self._confirmed):
            return Work(expire=self._take_expire())
        (event,) = self._take_outside(1)
        if isinstance(event, Items) and len(event.items) > 1:
            event, rest = event.split(1)
            self._outside.appendleft(rest)
        return Work(outside=[event])

    def _take_expire(self) -> bool:
        expire, self.expire = self.expire, False
        return expire

    def _take_outside(self, most: int) -> list[Outside]:
        """Take confirmations, then the oldest of the queue, requests counted one by one; the rest
        of a message stays in front."""
        found: list[Outside] = []
        for session in list(islice(self._confirmed, max(1, most // 2))):
            found.append(self._confirmed.pop(session))
            most -= 1
        while self._outside and most > 0:
            event = self._outside.popleft()
            if isinstance(event, Operated):
                self._operations -= 1
            if isinstance(event, Requested):
                if event.count > most:
                    event, rest = event.split(most)
                    self._outside.appendleft(rest)
                self._requests -= event.count
                self._request_bytes -= event.size
                most -= event.count - 1
            found.append(event)
            most -= 1
        return found

    def _take_frames(self, messages_max: int) -> list[Part]:
        """Take own frames first, then one of each peer, the longest waiting peer first. A frame is cut
        only where a batch of its own would be too small for it."""
        taken: list[Part] = []
        own, ready = self._frames.own, self._frames.ready
        room, peers_min = messages_max, messages_max // 2
        while own.waiting and room > 0:
            taken.append(own.take(messages_max))
            room -= taken[-1].count
        if own.taken < self._frames.first:
            return taken
        room = max(room, peers_min)
        while ready and room > 0:
            taken.append(self._next_part(messages_max))
            room -= taken[-1].count
        return taken

    def _next_part(self, messages_max: int) -> Part:
        """Take from the oldest frame of the peer whose turn it is; its others wait for other peers."""
        stream = self._frames.ready.popleft()
        part = stream.take(messages_max)
        if stream.waiting:
            self._frames.wait(stream)
        return part
