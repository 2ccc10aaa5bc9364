"""What a batch takes in: what is inside first, and from outside always something."""

from __future__ import annotations

import msgspec

from skerry import App, Entity, Output, emit, send
from skerry.runtime.core.events import Durable, Requested, RequestRun, Ticked, Write
from skerry.runtime.core.ownership import balanced
from skerry.runtime.core.settings import Limits, Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.simulator.disk import MemoryStore

NOW_NS = 10**18
LINES: Output[int] = Output("lines", partitions=1)


class Chain(Entity):
    """Each message to it is followed by others inside."""

    count: int = 0

    def begin(self, more: int) -> None:
        send(Chain.at(f"{self.key}-").go_on, more)

    def go_on(self, more: int) -> None:
        self.count += 1
        if more:
            send(self.go_on, more - 1)

    def say(self, number: int) -> None:
        emit(LINES, number)


class Sunk:
    """A sink that is only declared."""

    def write(self, partition: str, sequence: int, items: object) -> None:
        """Never called: the shard only says what is to be written."""
        raise AssertionError("a shard writes nothing")


app = App("intake", entities=[Chain], outputs=[LINES])
app.stream(LINES).sink(Sunk())


class Alone:
    """One shard of it, whose batches hold so many turns."""

    def __init__(self, turns: int) -> None:
        self.store = MemoryStore()
        settings = Settings(
            me=0, incarnation=bytes(16), placement=balanced([0], version=1, next_id=1),
            types=app.types, pipelines={}, outlets=dict(app.outlets), limits=Limits(turns_per_batch_max=turns),
        )  # fmt: skip
        self.shard = Shard(settings, self.store, self.store.last)
        self.shard.accept(Ticked(NOW_NS, NOW_NS))
        self.keep(self.shard.open())
        self.writes: list[Write] = []
        self.asked = 0

    def ask(self, handler: str, values: list[int]) -> None:
        """A message of requests, to entities of their own."""
        numbers = [self.asked + place + 1 for place in range(len(values))]
        self.asked += len(values)
        keys = [f"k{number}" for number in numbers]
        args = msgspec.Raw(msgspec.msgpack.encode([[value] for value in values]))
        run = RequestRun("Chain", handler, False, NOW_NS, numbers, [0] * len(values), keys, args)
        self.shard.accept(Requested("caller", bytes(16), [run], False, 100))

    @property
    def asking(self) -> bool:
        """Whether clients wait for the next batch."""
        return self.shard.demand().asking

    def keep(self, commit: object) -> None:
        """It is durable."""
        self.store.append(commit)  # type: ignore[arg-type]
        self.store.sync(self.shard.no)
        self.shard.accept(Durable(self.shard.no))

    def run(self) -> int:
        """A batch. How many requests it took in."""
        batch = self.shard.run()
        assert batch is not None
        self.batch = batch
        if batch.commit is not None:
            self.keep(batch.commit)
        effects = self.shard.take_effects()
        self.writes += [effect for effect in effects if isinstance(effect, Write)]
        return batch.requests


def test_requests_wait_while_what_is_inside_fills_the_batches_but_some_are_always_taken() -> None:
    alone = Alone(turns=64)
    alone.ask("begin", [20] * 1000)
    assert alone.run() == 64
    taken = []
    while alone.shard.runnable:
        if found := alone.run():
            taken.append(found)
    assert min(taken) >= 64 // 8
    assert sum(taken) == 1000 - 64


def test_a_batch_tells_how_many_requests_it_had_and_whether_more_wait() -> None:
    alone = Alone(turns=64)
    alone.ask("say", [1] * 100)
    assert alone.asking, "all that wait may be in the next batch"
    alone.run()
    assert (alone.batch.requests, alone.batch.crowded, alone.asking) == (64, True, False)
    alone.run()
    assert (alone.batch.requests, alone.batch.crowded, alone.asking) == (36, False, False)
    alone.ask("say", [1])
    assert alone.asking


def test_what_a_sink_has_written_is_not_kept_behind_requests_that_wait() -> None:
    alone = Alone(turns=64)
    alone.ask("say", [1])
    while not alone.writes:
        alone.run()
    alone.ask("say", list(range(1000)))
    alone.run()
    first = alone.writes.pop()
    alone.shard.accept(first.written)
    alone.run()
    alone.run()
    assert alone.writes, "its partition has the next items before the thousand are taken in"
    assert alone.writes[0].sequence == first.sequence + 1
    assert alone.shard.runnable
