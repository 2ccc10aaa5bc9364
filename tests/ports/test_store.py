"""What `ports.Store` promises, for the real store and the simulator's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Commit, CommitNo, StateGroup, Table
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.ports import Committed, Store
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.store.store import LmdbStore

encode = msgspec.msgpack.encode
Model = dict[str, bytes]


class Ground(Protocol):
    """Where the store of one adapter lies."""

    store: Store

    def settle(self) -> None:
        """Let the disk come to its end."""
        ...

    def reopen(self) -> None:
        """Close the store, and open it again."""
        ...

    def kept(self, no: int) -> Store:
        """Open what was kept for this backup."""
        ...


class Lmdb:
    """The real store, in a folder. A checkpoint is always under way."""

    def __init__(self, folder: Path) -> None:
        self._path, self._copy = folder / "shard-1", folder / "copy"
        self._woken = threading.Event()
        LmdbStore.create(self._path, shard=1)
        self.store = self._opened(self._path)

    def _opened(self, path: Path) -> LmdbStore:
        return LmdbStore.open(path, shard=1, log_bytes=1, wake=self._woken.set)

    def settle(self) -> None:
        self.store.durable()
        while self.store.backlog[0]:
            self._woken.wait(1)
            self._woken.clear()
            self.store.durable()

    def reopen(self) -> None:
        self.store.close()
        self.store = self._opened(self._path)

    def kept(self, no: int) -> Store:
        self.store.copy_kept(no, self._copy)()
        return self._opened(self._copy)


class Memory:
    """The simulator's store."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()

    def settle(self) -> None:
        self.store.sync(self.store.appended)

    def reopen(self) -> None:
        self.store.close()
        self.store.crash()

    def kept(self, no: int) -> Store:
        assert self.store.kept[0] == no
        return self.store.restored()


ADAPTERS: dict[str, Callable[[Path], Ground]] = {"lmdb": Lmdb, "memory": Memory}
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)


class Writer:
    """Appends commits as a shard would, and knows what they leave."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.no = self.checksum = 0
        self.model: Model = {}
        self.models: list[Model] = [{}]
        """After each commit."""

    def append(self, changes: dict[str, bytes | None]) -> None:
        """Append a commit that gives these keys a state and a row of these values."""
        states = [StateGroup.of("Thing", changes.items())]
        rows = [(Table.DEAD, b"\0\1" + key.encode(), value) for key, value in changes.items()]
        self.no += 1
        record = records.encode(self.no, 1, self.no, self.checksum, states, rows)
        self.checksum = records.checksum_of(record)
        self.ground.store.append(Commit(CommitNo(self.no), record, states, rows))
        for key, value in changes.items():
            self.model.pop(key, None)
            if value is not None:
                self.model[key] = value
        self.models.append(dict(self.model))


def in_order(model: Model) -> list[str]:
    """The keys of states in the order of a scan."""
    return sorted(model, key=lambda key: records.state_key("Thing", key))


def assert_holds(store: Committed, model: Model, prefix: str, page: int) -> None:
    """The store says what the model says, however it is asked."""
    keys = [*model, "never"]
    wanted = [model.get(key) for key in keys]
    assert [store.state("Thing", key) for key in keys] == wanted
    assert store.states_at("Thing", keys, slots_of("Thing", keys)) == wanted
    assert [store.read(Table.DEAD, b"\0\1" + key.encode()) for key in keys] == wanted
    assert store.state("Other", "key-1") is None
    named = {key: value for key, value in model.items() if key.startswith(prefix)}
    states, after = list[tuple[str, bytes]](), ""
    while found := list(islice(store.states("Thing", prefix, after), page)):
        states, after = states + found, found[-1][0]
    assert states == [(key, named[key]) for key in in_order(named)]
    rows, behind = list[tuple[bytes, bytes]](), b""
    while got := list(islice(store.scan(Table.DEAD, b"\0\1" + prefix.encode(), behind), page)):
        rows, behind = rows + got, got[-1][0]
    assert rows == sorted((b"\0\1" + key.encode(), value) for key, value in named.items())


KEYS = st.sampled_from([f"{letter}-{n}" for letter in ("key", "other") for n in range(10)])
VALUES = st.one_of(st.none(), st.binary(max_size=20).map(encode))


@each_adapter
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    commits=st.lists(st.dictionaries(KEYS, VALUES, min_size=1), max_size=12),
    reopen=st.sets(st.integers(0, 12)),
    prefix=st.sampled_from(["", "key", "key-1", "none"]),
    page=st.integers(1, 30),
)
def test_what_was_appended_is_read_at_once_and_after_each_opening(
    tmp_path_factory: pytest.TempPathFactory,
    adapter: str,
    commits: list[dict[str, bytes | None]],
    reopen: set[int],
    prefix: str,
    page: int,
) -> None:
    ground = ADAPTERS[adapter](tmp_path_factory.mktemp("store"))
    writer = Writer(ground)
    for number, changes in enumerate(commits):
        writer.append(changes)
        if number in reopen:
            ground.reopen()
            assert (ground.store.last.no, ground.store.last.checksum) == (
                writer.no,
                writer.checksum,
            )
        assert_holds(ground.store, writer.model, prefix, page)
    ground.store.close()


@each_adapter
def test_commits_become_durable_in_order_and_all_of_them(adapter: str, tmp_path: Path) -> None:
    ground = ADAPTERS[adapter](tmp_path)
    writer, before = Writer(ground), 0
    for number in range(50):
        writer.append({f"key-{number % 7}": encode(number)})
        durable = ground.store.durable()
        assert before <= durable <= writer.no
        assert ground.store.backlog[0] == writer.no - durable
        before = durable
    ground.settle()
    assert ground.store.durable() == writer.no
    assert ground.store.backlog == (0, 0)
    ground.store.close()


@each_adapter
def test_what_is_kept_for_a_backup_is_one_moment_not_older_than_what_was_durable(
    adapter: str, tmp_path: Path
) -> None:
    ground = ADAPTERS[adapter](tmp_path)
    writer = Writer(ground)
    for number in range(10):
        writer.append({f"key-{number % 7}": encode(number)})
    durable = ground.store.durable()
    ground.store.keep(7)
    appended = writer.no
    for number in range(10, 20):
        writer.append({f"key-{number % 7}": encode(number)})
    ground.settle()
    copy = ground.kept(7)
    assert durable <= copy.last.no <= appended
    assert_holds(copy, writer.models[copy.last.no], "", 3)
    copy.close()
    ground.store.close()
