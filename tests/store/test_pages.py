"""Pages of a scan beside writes: each row on one page, and a page costs what is on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from skerry.runtime.core.commit import state_key
from skerry.runtime.core.events import StateGroup, Table
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.store import memtable
from skerry.runtime.store.memtable import Memtable, Slots, States, states_in
from skerry.runtime.store.store import LmdbStore
from tests.store.test_store import Writer

encode = msgspec.msgpack.encode
NAMES = [f"{letter}{number}" for letter in "ab" for number in range(12)]
CHANGES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([None, 1, 2]), max_size=6)


def keys_of(rows: Sequence[tuple[str, bytes]]) -> list[str]:
    return [key for key, _ in rows]


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    first=CHANGES,
    between=st.lists(CHANGES, max_size=12),
    size=st.integers(1, 4),
    prefix=st.sampled_from(["", "a", "b1", "c"]),
    log_bytes=st.sampled_from([1, 1 << 30]),
)
@example(dict.fromkeys(NAMES, 1), [dict.fromkeys(NAMES, 2)] * 12, 1, "", 1)
def test_pages_beside_writes_show_each_row_once_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, int | None],
    between: list[dict[str, int | None]],
    size: int,
    prefix: str,
    log_bytes: int,
) -> None:
    """What was there all the time is on one page, as it was then or since; what never was is on
    none; and what stands in the tree, above it or in both makes no difference."""
    path = tmp_path_factory.mktemp("store") / "shard-1"
    LmdbStore.create(path, shard=1)
    writer = Writer(path, log_bytes=log_bytes)
    versions: dict[str, list[bytes | None]] = {name: [None] for name in NAMES}

    def write(changes: dict[str, int | None]) -> None:
        states = {key: None if value is None else encode(value) for key, value in changes.items()}
        if states:
            writer.append(list(states.items()))
            writer.settle()
        for name, seen in versions.items():
            seen.append(states.get(name, seen[-1]))

    write(first)
    for seen in versions.values():
        del seen[:-1]
    states, letters = list[tuple[str, bytes]](), list[tuple[bytes, bytes]]()
    changes = iter(between)
    while True:
        after = states[-1][0] if states else ""
        page = list(islice(writer.store.states("Thing", prefix, after), size))
        behind = letters[-1][0] if letters else b""
        rows = writer.store.scan(Table.DEAD, b"\0\1" + prefix.encode(), behind)
        found = list(islice(rows, size))
        states += page
        letters += found
        if not page and not found:
            break
        write(next(changes, {}))
    writer.store.close()
    there = {n: seen for n, seen in versions.items() if n.startswith(prefix)}
    by_key = dict(states)
    assert len(by_key) == len(states), "a row stood on two pages"
    assert keys_of(states) == sorted(by_key, key=lambda key: state_key("Thing", key))
    assert {name for name, seen in there.items() if None not in seen} <= by_key.keys()
    assert all(state in there[key] for key, state in by_key.items())
    of_letters = {key[2:].decode(): value for key, value in letters}
    assert [key for key, _ in letters] == sorted(dict(letters))
    assert {name for name, seen in there.items() if None not in seen} <= of_letters.keys()
    assert all(value in there[name] for name, value in of_letters.items())


def filled(path: Path, count: int) -> Writer:
    """A store with so many states above its tree."""
    LmdbStore.create(path, shard=1)
    writer = Writer(path)
    for start in range(0, count, 5000):
        writer.append([(f"key-{n}", encode(n)) for n in range(start, min(start + 5000, count))])
    return writer


@contextmanager
def effort() -> Iterator[Counter[str]]:
    """What is done meanwhile: keys dealt to their slots, keys of the slots that are sorted, and
    states looked up."""
    done, deal, get, keys_of = Counter[str](), Slots._deal, States.get, Slots.keys

    def counted_deal(slots: Slots[Any, Any]) -> None:
        done["dealt"] += len(slots._new)
        deal(slots)

    def counted_keys(slots: Slots[Any, Any], slot: Any) -> list[Any]:
        slots._deal()
        sorts = slot in slots._unsorted
        keys = keys_of(slots, slot)
        done["sorted"] += len(keys) if sorts else 0
        return keys

    def counted_get(states: States, keys: Sequence[str], otherwise: list[object]) -> list[object]:
        done["read"] += len(keys)
        return get(states, keys, otherwise)

    with (
        mock.patch.object(Slots, "_deal", counted_deal),
        mock.patch.object(Slots, "keys", counted_keys),
        mock.patch.object(States, "get", counted_get),
    ):
        yield done


def test_a_page_costs_what_is_on_it_and_what_came_since_not_what_lies_above_the_tree(
    tmp_path: Path,
) -> None:
    writer = filled(tmp_path / "shard-1", 40_000)
    after, seen = "", 0
    with effort() as done:
        for number in range(10):
            writer.append([(f"new-{number}", encode(0)), ("key-7", encode(number))])
            page = list(islice(writer.store.states("Thing", "", after), 100))
            after, seen = page[-1][0], seen + len(page)
    writer.store.close()
    assert seen == 1000
    assert done["dealt"] <= 10 + memtable.PIECE_KEYS, "a key is dealt once"
    assert done["sorted"] < 1000 + 10 * 100, "a page sorts the slots that it comes to"
    assert done["read"] <= 10 * (100 + memtable.PIECE_KEYS)


def test_rows_of_a_slot_are_found_without_a_look_at_the_others() -> None:
    """A session that comes again after a minute reads its rows slot by slot."""
    rows = Memtable()
    rows.add([], [(Table.REQUEST, bytes([0, n % 200, n // 200]), b"x") for n in range(4000)])
    with effort() as done:
        for slot in range(200):
            rows.add([], [(Table.REQUEST, bytes([0, slot, 99]), b"x")])
            found = [key for key, _ in rows.rows_in(Table.REQUEST, bytes([0, slot]))]
            assert found == [bytes([0, slot, n]) for n in [*range(20), 99]]
    assert done["dealt"] <= 200 + memtable.PIECE_KEYS
    assert done["sorted"] == 200 * 21


def test_forgotten_entities_and_other_types_are_on_no_page() -> None:
    states = Memtable()
    states.add([StateGroup.of("Thing", [("a", encode(1)), ("b", encode(2))])], [])
    states.add([StateGroup.of("Other", [("a", encode(3))])], [])
    states.freeze()
    states.add([StateGroup.of("Thing", [("a", None)])], [])
    layers, found = states.of_type("Thing"), {}
    for slot in set(slots_of("Thing", ["a", "b"])):
        for key, entry in states_in(layers, slot, "", ""):
            found[key] = None if entry is None else bytes(entry)
    assert found == {"a": None, "b": encode(2)}
