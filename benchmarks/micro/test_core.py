"""The parts of the hot path, each alone: codec, turn loop, commit, stream.

    make micro

In `make test` each runs once, without a clock. A batch of 2,048 messages to 1,000 keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.apps import Account
from skerry import App
from skerry.runtime.core import commit as records
from skerry.runtime.core import wire
from skerry.runtime.core.events import Arrived, Durable, StateGroup, Ticked, Transmit
from skerry.runtime.core.executor import Mode
from skerry.runtime.core.loops import Shape
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.wire import Call
from skerry.runtime.simulator.disk import MemoryStore

MESSAGES = 2048
KEYS = [f"a{n * 7 % 1000:07d}" for n in range(MESSAGES)]
DEPOSIT = Account.__skerry__.handlers["deposit"]
COLUMN = [1] * MESSAGES

Benchmark = Callable[..., Any]


def opened(me: int, members: int) -> tuple[Shard, MemoryStore]:
    """A shard that has taken over an empty store."""
    settings = Settings(
        me=me,
        incarnation=bytes(16),
        placement=balanced(list(range(members)), version=1, next_id=members),
        types=App("micro", entities=[Account]).types,
        pipelines={},
    )
    store = MemoryStore()
    shard = Shard(settings, store, store.last)
    shard.accept(Ticked(1, 1))
    opening = shard.open()
    store.append(opening)
    shard.accept(Durable(opening.no))
    return shard, store


@pytest.fixture
def body() -> bytes:
    """A frame's worth of messages."""
    return wire.encode_runs([wire.run_of(Call.SEND, DEPOSIT, KEYS, COLUMN, None)])


def test_codec_encodes_a_frame(benchmark: Benchmark) -> None:
    run = [Call.SEND, DEPOSIT, KEYS, COLUMN, None]
    body = benchmark(lambda: wire.encode_runs([wire.run_of(*run)]))
    assert wire.decode_runs(body)[0].keys == KEYS


def test_codec_decodes_a_frame(benchmark: Benchmark, body: bytes) -> None:
    assert benchmark(lambda: wire.column_of(wire.decode_runs(body)[0], DEPOSIT)) == COLUMN


def test_turn_loop_runs_a_batch(benchmark: Benchmark) -> None:
    shard, _ = opened(0, 1)
    executor, cache = shard.dispatch.executor, shard.dispatch.cache

    def batch() -> None:
        executor.begin(Mode.OPTIMISTIC, 1, (0, 1, 1))
        executor.together(DEPOSIT, KEYS, COLUMN, Shape.VALUE)
        cache.sealed()

    benchmark(batch)
    entities = cache.types["Account"].locations.values()
    counts = [entity.balance for entity in entities if isinstance(entity, Account)]
    assert sum(counts) % MESSAGES == 0


def test_commit_encodes_a_record(benchmark: Benchmark) -> None:
    keys = sorted(set(KEYS))
    group = StateGroup.of("Account", ((key, b"\x92\x01\x02") for key in keys))
    record = benchmark(lambda: records.encode(1, 1, 1, 0, [group], []))
    assert records.decode(record).states[0].keys == keys


def test_stream_carries_a_batch_from_shard_to_shard(benchmark: Benchmark) -> None:
    """Route, seal, send, receive, run, seal, ack: all but the socket and the disk."""
    ends = {me: opened(me, 2) for me in (0, 1)}

    def settle() -> None:
        moved = True
        while moved:
            moved = False
            for shard, store in ends.values():
                batch = shard.run() if shard.runnable else None
                if batch is not None and batch.commit is not None:
                    store.append(batch.commit)
                    shard.accept(Durable(batch.commit.no))
                for effect in shard.take_effects():
                    if isinstance(effect, Transmit):
                        ends[effect.peer][0].accept(Arrived(effect.raw))
                        moved = True

    settle()
    sender, keys = ends[0][0], [key for key in KEYS if slot_of("Account", key) % 2]
    run = wire.run_of(Call.SEND, DEPOSIT, keys, COLUMN[: len(keys)], None)
    frames = [wire.bodies([run])]

    def batch() -> None:
        rows = list(sender.streams.seal(1, frames[0]))
        commit = sender._chain.seal(sender.now_ns, [], rows)
        ends[0][1].append(commit)
        sender.streams.outbound[1].durable_upto(sender.streams.outbound[1].sealed)
        sender._effects += sender.streams.speak({1})
        settle()

    benchmark(batch)
    for shard, _ in ends.values():  # The last acks had nothing to travel with: their time comes.
        shard.accept(Ticked(shard.now_ns, 1 << 40))
    settle()
    received = ends[1][0].dispatch.cache.types["Account"].locations.values()
    assert sum(e.balance for e in received if isinstance(e, Account)) % len(keys) == 0
    assert not sender.streams.busy
