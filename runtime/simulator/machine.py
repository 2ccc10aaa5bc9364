"""A simulated worker: the production shard and what it is asked, on a disk that survives it.

What a worker's process is besides its shard stands here, without its I/O: the door that turns
bytes into events, the greeting, the readers of sources, the beat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

from skerry.app import App
from skerry.runtime.app.watch import Beat
from skerry.runtime.core.events import Identity, Reply
from skerry.runtime.core.shard import Shard
from skerry.runtime.gateway import protocol
from skerry.runtime.gateway.inquiries import Inquiries
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.ledger import Books
from skerry.stream.ends import BadRow

Partition = tuple[str, str]
"""(source, partition)."""


class Reader:
    """A source partition as it is being read."""

    def __init__(self, source: Any, partition: str, after: Any) -> None:
        self._source, self._partition = source, partition
        self.start_at(after)

    def start_at(self, after: Any) -> None:
        """Read on behind this position."""
        self.position, self.ended = after, False
        self._items: Iterator[tuple[Any, Any]] = iter(self._source.read(self._partition, after))

    def next(self, most: int) -> tuple[list[Any], list[Any]]:
        """Positions and items, so many; fewer at the end, and around a bad row, which comes alone."""
        batch: list[tuple[Any, Any]] = []
        for found in islice(self._items, most):
            bad = type(found[1]) is BadRow
            if bad and batch:
                self._items = chain([found], self._items)
                break
            batch.append(found)
            if bad:
                break
        self.ended = not batch
        positions, items = [position for position, _ in batch], [item for _, item in batch]
        if positions:
            self.position = positions[-1]
        return positions, items


class Machine:
    """A shard, and the disk that survives it."""

    def __init__(self, id: int, app: App, answer: Callable[[Any, bytes], None]) -> None:
        self.id, self._app, self._answer = id, app, answer
        self.disk = MemoryStore()
        self.shard: Shard | None = None
        self.books = Books()
        self.down_until = 0
        self.hangs_until = 0
        self.clock_off_ns = 0
        self.dies_at = ""
        """The point of this step at which it is killed."""
        self.slow_until = self.full_until = 0
        """Until when its disk is slow, or full."""
        self.readers: dict[Partition, Reader] = {}
        """Of the source partitions that live here."""
        self._rounds = 0
        self._running: Identity = (0, 0, 0)

    def started(self, shard: Shard, incarnation: bytes, now_ns: Callable[[], int]) -> None:
        """A new process of this shard is up."""
        self.shard, self._now_ns = shard, now_ns
        self._incarnation = incarnation
        self.readers = {
            (pipeline.name, partition): Reader(
                pipeline.source, partition, shard.position(pipeline.name, partition)
            )
            for pipeline in self._app.pipelines
            for partition in pipeline.source.partitions()
            if shard.reads(pipeline.name, partition)
        }
        self._rounds = 0
        self._running = (0, 0, 0)
        self.inquiries = Inquiries(shard, self.disk, self, self)

    @property
    def finished(self) -> bool:
        """Whether every partition that lives here has been read to its end."""
        return all(reader.ended for reader in self.readers.values())

    def watch(self, identity: Identity) -> None:
        """Write down which message runs next."""
        self._running = identity

    def beats(self) -> None:
        """A round of its loop."""
        self._rounds += 1

    @property
    def beat(self) -> Beat:
        """What can be read of it after its end."""
        assert self.shard is not None, "only what runs writes of itself"
        return Beat(self._rounds, self.shard.no, self._running, self.shard.slow)

    # ── its door ──

    def hear(self, caller: Any, raw: bytes) -> None:
        """Bytes from a caller."""
        assert self.shard is not None, "only what runs hears"
        for event in protocol.events(caller, protocol.decode_call(raw), len(raw)):
            if isinstance(event, protocol.Control):
                self.inquiries.serve(event)
            else:
                self.shard.accept(event)

    def answer(self, caller: Any, n: int, value: Any) -> None:
        """See `inquiries.Answers`."""
        self._answer(caller, protocol.encode(protocol.Answer(n, value)))

    def error(self, caller: Any, n: int, error: Exception) -> None:
        """See `inquiries.Answers`."""
        raise AssertionError(f"a simulated caller asked what can't be answered: {error!r}")

    def has_read(self, caller: Any) -> bool | None:
        """See `inquiries.Answers`. Lines that break lose what was said."""
        return True

    def let_go(self, caller: Any) -> None:
        """See `inquiries.Answers`."""
        raise AssertionError("every simulated caller reads")

    def welcome(self, caller: Any, greeting: protocol.Greeting) -> None:
        """See `inquiries.Answers`."""
        self._answer(caller, protocol.encode(protocol.Welcome(greeting)))

    def replies(self, replies: list[Reply]) -> None:
        """Outcomes, one message per caller, as the real door says them."""
        for caller, outcomes in protocol.outcomes(replies):
            self._answer(caller, protocol.encode(outcomes))

    # ── what inquiries need of it ──

    def greeting(self) -> protocol.Greeting:
        """See `inquiries.Host`."""
        assert self.shard is not None, "only what runs greets"
        public = {
            name: [handler.name for handler in kind.handlers.values() if not handler.private]
            for name, kind in self._app.types.items()
        }
        return protocol.Greeting(
            self._incarnation,
            self.id,
            self.shard.epoch,
            self.shard.placement,
            self._now_ns(),
            self._app.name,
            public,
        )

    def status(self) -> dict[str, Any]:
        """See `inquiries.Host`."""
        return {}

    def backup(self, caller: Any, n: int, no: int, folder: str) -> None:
        """See `inquiries.Host`."""
        raise AssertionError("a simulated disk is copied by its cluster")

    def steer(self, word: str) -> dict[str, Any]:
        """See `inquiries.Host`."""
        assert word == "quiet", "a simulated supervisor only asks whether all is quiet"
        assert self.shard is not None, "only what runs is asked"
        placement = self.shard.placement
        return {
            "quiet": self.shard.quiet and self.finished,
            "epoch": self.shard.epoch,
            "commit": self.shard.no,
            "version": placement.version,
        }
