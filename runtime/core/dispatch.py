"""Hands each piece of a batch's work to the room that knows it, in order.

    frames -> delivery    due timers -> delivery    requests -> clients    items -> sources
    commands -> operations    what a sink has written -> outputs    what turns left -> delivery

In quarantine a batch is one message, named before it runs so that its name survives a kill.

No I/O, no clock. Ideas: docs/ideas/streams.md, docs/ideas/clients.md.
"""

from __future__ import annotations

from collections.abc import Callable

import xxhash

from skerry.runtime.core.buffer import Runs
from skerry.runtime.core.cache import Cache
from skerry.runtime.core.clients import Clients
from skerry.runtime.core.delivery import Delivery
from skerry.runtime.core.events import (
    Confirmed,
    Identity,
    Items,
    Operated,
    Requested,
    Rewind,
    Written,
)
from skerry.runtime.core.executor import Executor, Mode
from skerry.runtime.core.handlers import Handlers
from skerry.runtime.core.ids import Ids
from skerry.runtime.core.items import SourceItems
from skerry.runtime.core.moves import Moves
from skerry.runtime.core.observer import Observer, parts
from skerry.runtime.core.operations import Operations
from skerry.runtime.core.outcomes import Outcomes
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.progress import Progress
from skerry.runtime.core.routing import Routing
from skerry.runtime.core.schedule import Work
from skerry.runtime.core.schemas import Schemas
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.core.tables.asks import Asks
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.names import Names
from skerry.runtime.core.tables.outputs import Outputs
from skerry.runtime.core.tables.positions import Positions
from skerry.runtime.core.tables.requests import Requests
from skerry.runtime.core.tables.timers import Timers
from skerry.runtime.core.wire import Call
from skerry.runtime.ports import Committed
from skerry.turn import Turn

_MOVING = int(Call.MARK)
"""From here on, calls of runs are no messages to entities."""

_ITEM, _TIMER = 1 << 33, 1 << 34
"""The identities of items and of timers begin with these: see `Identity`."""


class Dispatch:
    """Runs the work of a batch. `watch` is told in quarantine which message runs next."""

    def __init__(
        self,
        settings: Settings,
        ownership: Ownership,
        store: Committed,
        streams: Streams,
        *,
        timers: Timers,
        asks: Asks,
        requests: Requests,
        names: Names,
        outputs: Outputs,
        positions: Positions,
        schemas: Schemas,
        progress: Progress,
        watch: Callable[[Identity], None],
        observer: Observer | None = None,
    ) -> None:
        made = parts(observer)
        self._streams, self._requests, self._outputs = streams, requests, outputs
        self._observer = observer
        self.turn = turn = Turn()
        turn.outputs = settings.outlets
        self._left, self._ids = Runs(), Ids(settings.me)
        self.handlers = Handlers(settings.types)
        self.routing = Routing(ownership)
        self.cache = Cache(
            settings.types,
            states=store.states_at,
            schemas=schemas.of,
            elsewhere=self.routing.elsewhere,
            bytes_max=settings.limits.cache_bytes,
        )
        self.dead = DeadLetters(turn, self._ids.new, self.handlers.names)
        intentions = made.intentions(turn, self.cache, timers, asks, self._left, self._ids)
        executor = self.executor = Executor(self.cache, turn, intentions, settings, watch)
        rooms = self.handlers, self._left, self.dead
        outcomes = Outcomes(executor, intentions, asks, timers, *rooms)
        flows = self._flows = made.flows(executor, self._left, self.dead, settings.changes)
        self._delivery: Delivery = made.delivery(
            self.routing, executor, outcomes, timers, outputs, flows, *rooms
        )
        self.clients = Clients(ownership, executor, requests, names, self.dead)
        self._items = SourceItems(
            settings.pipelines,
            executor,
            self._delivery,
            positions,
            ownership,
            self._left,
            self.dead,
        )
        self._operations: Operations = made.operations(store.read, ownership, *rooms)
        self.moves = Moves(
            progress,
            ownership,
            store,
            streams,
            self.routing,
            self.cache,
            types=lambda: schemas.types.union(settings.types),
            learn=lambda: schemas.load(self.handlers),
            writing=outputs.writing,
        )
        self.rewinds: list[Rewind] = []
        """Sources whose items did not follow their position."""

    def begin(
        self, mode: Mode, now_ns: int, seed: tuple[bytes | int, ...], epoch: int, no: int
    ) -> None:
        """Begin the batch that may become commit `no`, or begin it again."""
        self.cache.begin()
        self.routing.begin()
        self._left.reset()
        self._ids.begin(epoch, no)
        self.executor.begin(mode, now_ns, seed)

    def execute(self, work: Work) -> None:
        """Run the turns of a batch. Raises Raised when it must be thrown away."""
        executor, quarantine = self.executor, self.executor.mode is Mode.QUARANTINE
        self.routing.queueing = quarantine or bool(self._streams.own.waiting)
        for part in work.frames:
            if quarantine:
                executor.announce((part.packet.src, part.packet.seq, part.start))
            for run in self._streams.open.messages_of(part):
                if run.call >= _MOVING:
                    self.moves.take(part.packet.src, run)
                else:
                    self._delivery.receive(run)
        if quarantine and work.timers:
            executor.announce((_TIMER, xxhash.xxh3_64_intdigest(work.timers[0][0]), 0))
        self._delivery.fire(work.timers)
        for event in work.outside:
            match event:
                case Confirmed():
                    self._requests.confirm(event)
                case Requested():
                    self.clients.run(event)
                case Items():
                    if quarantine:
                        executor.announce((_ITEM, self._items.identity(event), 0))
                    if rewind := self._items.run(event):
                        self.rewinds.append(rewind)
                case Operated():
                    self.clients.replies.append(self._operations.run(event))
                case Written():
                    self._outputs.written(event)
        self._delivery.drain(work.turns_max)
        if self._flows.changed():
            self._delivery.queue()

    def undo(self) -> None:
        """Throw the open batch away."""
        self.cache.undo()
        self.turn.clear()
        self.clients.undo()
        self.moves.undo()
        if self._observer is not None:
            self._observer.undone()
        self.rewinds.clear()

    def sealed(self) -> None:
        """Make the batch count."""
        self.cache.sealed()
        self.rewinds.clear()
