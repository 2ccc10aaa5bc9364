"""An app that was killed while slots moved: what its readers and its checker say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from skerry.errors import SkerryError
from skerry.runtime.app import membership
from skerry.runtime.cli import dead, read
from skerry.runtime.core import progress
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.progress import Progress
from skerry.runtime.store import label
from tests.store import described
from tests.store.described import KEYS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An app of two shards that has run once."""
    described.make(tmp_path / "app")
    return tmp_path / "app"


def note(data: Path, shard: int, moves: Progress) -> None:
    """Have a store say how far its moves are."""
    row = Table.META, progress.KEY, msgspec.msgpack.encode(moves)
    described.append(data, shard, [], [row], [])


def placement(data: Path) -> Placement:
    return membership.described(data).placement


def new_version(data: Path, slots: list[int]) -> Placement:
    """The next version of the placement, which the description has."""
    found = replace(placement(data), version=placement(data).version + 1, slots=slots)
    described.change(data, placement=found)
    for shard in found.members:
        told = label.read(data / f"shard-{shard}")
        label.write(data / f"shard-{shard}", replace(told, version=found.version))
    return found


READERS = {
    "export": lambda data: list(read.states(data, "Thing")),
    "count": lambda data: sum(1 for _ in read.states(data, "Thing")),
    "dead": lambda data: list(dead._stored(data)),
}


def owned_by(data: Path, shard: int) -> str:
    slots = placement(data).slots
    return next(key for key in KEYS if slots[slot_of("Thing", key)] == shard)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("where", ["leaving", "stopped", "arriving"])
def test_readers_of_an_app_that_was_stopped_in_a_move_refuse(
    data: Path, reader: str, shard: int, where: str
) -> None:
    note(data, shard, replace(Progress(placement(data)), **{where: [3]}))
    with pytest.raises(SkerryError, match=r"version 1 of the placement.*Start the app") as refusal:
        READERS[reader](data)
    said = "0 slots have not left" if where == "arriving" else "1 slots have not left"
    assert f"{said} shard {shard}" in str(refusal.value)
    with pytest.raises(SkerryError, match="Start the app"):
        read._state(data, "Thing", owned_by(data, shard))
    assert read._state(data, "Thing", owned_by(data, 1 - shard)) is not None


def test_readers_of_an_app_whose_moves_are_over_read_all(data: Path) -> None:
    for shard in (0, 1):
        note(data, shard, Progress(placement(data)))
    assert sorted(key for key, _ in READERS["export"](data)) == sorted(KEYS)
    assert READERS["count"](data) == len(KEYS)
    assert READERS["dead"](data) == []


def test_a_version_that_a_shard_has_not_begun_with_is_a_move_that_is_not_over(data: Path) -> None:
    """Its rows are still where the version before has them."""
    before = placement(data)
    for shard in (0, 1):
        note(data, shard, Progress(before))
    newest = new_version(data, [0] * len(before.slots))
    with pytest.raises(SkerryError, match=r"version 2 of the placement.*has not begun with it"):
        READERS["export"](data)
    with pytest.raises(SkerryError, match="has not begun with it"):
        read._state(data, "Thing", owned_by(data, 0))
    app = membership.described(data)
    assert [membership.damages(data, app, shard) for shard in (0, 1)] == [[], []]
    note(data, 0, Progress(newest))
    note(data, 1, Progress(newest))
    (damage,) = membership.damages(data, app, 1)
    assert "slots that app.json gives to other shards" in damage


@pytest.mark.parametrize("where", ["leaving", "stopped", "arriving", "taken", "gone"])
def test_rows_of_slots_that_are_on_their_way_are_no_strays(data: Path, where: str) -> None:
    app = membership.described(data)
    here, other = [s for s, owner in enumerate(app.placement.slots) if owner == 1][:2]
    rows = [(Table.TIMER, s.to_bytes(2, "big") + bytes(16), b"\xc0") for s in (here, other)]
    away = {here: progress.Copy(1)} if where == "taken" else [here]
    note(data, 0, replace(Progress(app.placement), **{where: away}))
    described.append(data, 0, [], rows[:1], [])
    assert membership.damages(data, app, 0) == []
    described.append(data, 0, [], rows, [])
    (damage,) = membership.damages(data, app, 0)
    assert f"1 slots that app.json gives to other shards: {other} (shard 1)" in damage
    note(data, 0, Progress(app.placement))
    (damage,) = membership.damages(data, app, 0)
    assert "2 slots" in damage
