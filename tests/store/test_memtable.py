"""The memtable against plain dicts: entities that change, leave the memory, come back, and end."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from skerry import Entity
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import StateGroup, Table
from skerry.runtime.store.checkpoint import Slices
from skerry.runtime.store.memtable import ABSENT, Memtable, tree_key

TYPES = ("Thing", "Other")
KEYS = [f"key-{number}" for number in range(8)]


class Thing(Entity):
    number: int = 0


def row(name: str, key: str) -> bytes:
    """Where the tree has this state."""
    return tree_key(Table.STATE, records.state_key(name, key))


class Shard:
    """Uses a memtable as a shard and its store do; knows what must be found."""

    def __init__(self) -> None:
        self.memtable, self.commits = Memtable(), 0
        self.cached: dict[bytes, Entity] = {}
        self.newest: dict[bytes, bytes | None] = {}
        self.tree: dict[bytes, bytes | None] = {}
        self.checkpoint: Iterator[None] | None = None

    def live(self, name: str, key: str) -> Entity:
        """The entity, which is in memory from now on."""
        return self.cached.setdefault(row(name, key), Thing.__skerry__.new(key))

    def change(self, name: str, keys: list[str], *, in_memory: bool) -> None:
        """A commit; or one that is read back after a restart, when no entity is in memory."""
        self.commits += 1
        states = {key: msgspec.msgpack.encode([self.commits, key]) for key in keys}
        if not in_memory:
            self.evict(name, keys)
        live = [[self.live(name, key) for key in keys]] if in_memory else []
        self.memtable.add([StateGroup.of(name, states.items())], [], live)
        self.newest |= {row(name, key): state for key, state in states.items()}

    def forget(self, name: str, keys: list[str]) -> None:
        """A commit by which entities end. They stay in memory, and may be changed again."""
        self.memtable.add([StateGroup.of(name, [(key, None) for key in keys])], [], [[]])
        self.newest |= {row(name, key): None for key in keys}

    def evict(self, name: str, keys: list[str]) -> None:
        """The cache is full."""
        for key in keys:
            self.cached.pop(row(name, key), None)

    def read(self, name: str, keys: list[str]) -> None:
        """What is found is the newest."""
        for key, entry in zip(keys, self.memtable.states_at(name, keys), strict=True):
            found = self.tree.get(row(name, key)) if entry is ABSENT else entry
            assert (found and bytes(found)) == self.newest.get(row(name, key))

    def carry(self) -> None:
        """A checkpoint does one step; none may have begun."""
        if self.checkpoint is None:
            self.memtable.drop_frozen()
            self.checkpoint = self._carry()
        if next(self.checkpoint, "over") == "over":
            self.checkpoint = None

    def _carry(self) -> Iterator[None]:
        expected, slices = dict(self.newest), Slices(self.memtable.freeze())
        carried: dict[bytes, bytes | None] = {}
        while (rows := slices.take(1)) is not None:
            for chunk in rows:
                values = [value and bytes(value) for value in chunk.values]
                carried |= zip(chunk.keys, values, strict=True)
            yield
        self.tree |= carried
        assert self.tree == expected


steps = st.tuples(
    st.sampled_from(["change", "replay", "forget", "evict", "carry"]),
    st.sampled_from(TYPES),
    st.lists(st.sampled_from(KEYS), min_size=1, unique=True),
)


def on_thing(*what: tuple[str, str]) -> list[tuple[str, str, list[str]]]:
    """These steps; a key is a letter."""
    return [(step, "Thing", list(keys)) for step, keys in what]


@given(st.lists(steps, max_size=40))
@example(on_thing(("change", "a"), ("carry", "a"), ("change", "b"), ("change", "a")))
@example(
    on_thing(("change", "ab"), ("evict", "ab"), ("change", "abc"), ("carry", "a"), ("change", "dc"))
)
def test_the_newest_state_is_found_whether_or_not_its_entity_is_in_memory(
    taken: list[tuple[str, str, list[str]]],
) -> None:
    shard = Shard()
    for step, name, keys in taken:
        match step:
            case "change" | "replay":
                shard.change(name, keys, in_memory=step == "change")
            case "forget":
                shard.forget(name, keys)
            case "evict":
                shard.evict(name, keys)
            case "carry":
                shard.carry()
        shard.read(name, keys)
    for name in TYPES:
        shard.read(name, KEYS)
