"""What lies on a host of a cluster is a copy: it is used when it fits, and else replaced, never trusted."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.cluster import local
from skerry.runtime.cluster.log import ReplicatedLog
from skerry.runtime.cluster.snapshot_pointer import Pointer
from skerry.runtime.cluster.snapshots import Outdated
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Commit, CommitNo
from skerry.runtime.ports import LogDamaged
from skerry.runtime.store import label as labels
from skerry.runtime.store.label import Label
from skerry.runtime.store.store import LmdbStore
from tests.cluster.unsteady import Unsteady

LABEL = Label(shard=1, app="shop", directory="d" * 32, incarnation="i" * 32, opened=True)


class Shelf:
    """Snapshots that lie in folders."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def newest(self) -> Pointer | None:
        return None if self.folder is None else Pointer("one", 3, 3, 1, 1, 1, "")

    def load(self, pointer: Pointer, folder: Path) -> None:
        assert self.folder is not None
        shutil.copytree(self.folder, folder)


class Shard:
    """A shard's place on one host after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stream, self.shelf = folder / "shard-1", Unsteady(), Shelf()
        self.said: list[str] = []
        self.store: LmdbStore | None = None

    def open(self, label: Label = LABEL) -> LmdbStore:
        self.close()
        self.store = local.opened(
            self.folder,
            label,
            lambda segments: ReplicatedLog(segments, self.stream),
            self.shelf,
            lambda log: LmdbStore.open(self.folder, shard=1, replicate=log),
            self.said.append,
        )
        return self.store

    def append(self, count: int) -> None:
        """Append so many commits, durable."""
        assert self.store is not None
        last = self.store.last
        no, checksum = last.no, last.checksum
        for _ in range(count):
            row = (4, b"key", random.randbytes(50))
            record = records.encode(no + 1, 1, 1, checksum, [], [row])
            no, checksum = no + 1, records.checksum_of(record)
            self.store.append(Commit(CommitNo(no), record, [], [row], ()))
        self.close()

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    made = Shard(tmp_path)
    made.open()
    made.append(3)
    yield made
    made.close()


def test_a_store_that_is_missing_is_made_from_the_log(shard: Shard) -> None:
    shutil.rmtree(shard.folder)
    assert shard.open().last.no == 3
    assert labels.read(shard.folder).directory == LABEL.directory


def test_what_fits_is_opened_and_nothing_is_said_or_moved(shard: Shard, tmp_path: Path) -> None:
    assert shard.open().last.no == 3
    assert shard.said == []
    assert [path.name for path in tmp_path.iterdir()] == ["shard-1"]


def _cut(folder: Path) -> None:
    (folder / "data.mdb").write_bytes((folder / "data.mdb").read_bytes()[:100])


def _unlabelled(folder: Path) -> None:
    (folder / labels.NAME).unlink()


def _earlier(folder: Path) -> None:
    labels.write(folder, replace(labels.read(folder), incarnation="j" * 32))


def _without_log(folder: Path) -> None:
    for path in folder.glob("log-*"):
        path.unlink()


@pytest.mark.parametrize("harm", [_cut, _unlabelled, _earlier, _without_log])
def test_what_is_damaged_or_of_an_earlier_life_is_moved_aside_and_made_anew(
    shard: Shard, harm: Callable[[Path], None]
) -> None:
    harm(shard.folder)
    assert shard.open().last.no == 3
    assert "of no use" in shard.said[0]
    assert shard.folder.with_name("shard-1.astray").is_dir()


def test_what_the_log_does_not_continue_is_replaced_by_the_newest_snapshot(
    shard: Shard, tmp_path: Path
) -> None:
    shutil.copytree(shard.folder, tmp_path / "old")
    shard.open()
    shard.append(4)
    shard.shelf.folder = tmp_path / "snapshot"
    shutil.copytree(shard.folder, shard.shelf.folder)
    covered = len(shard.stream.messages)
    shard.open()
    shard.append(2)
    shard.stream.purged = covered
    shutil.rmtree(shard.folder)
    (tmp_path / "old").rename(shard.folder)
    assert shard.open().last.no == 9
    assert "none of the stream" in shard.said[0]


def test_another_app_s_store_is_refused_and_left_alone(shard: Shard) -> None:
    with pytest.raises(SkerryError, match="Choose another folder with --data"):
        shard.open(replace(LABEL, directory="e" * 32))
    assert shard.open().last.no == 3


def test_a_log_that_is_damaged_is_named_and_the_copy_stays(shard: Shard, tmp_path: Path) -> None:
    shard.stream.messages[-1] = b"x" * 40
    with pytest.raises(LogDamaged, match="message"):
        shard.open()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-1"]


def test_a_log_that_ends_before_what_it_has_acknowledged_is_not_opened_and_the_copy_stays(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BEHIND_S", 0.0)
    shard.open()
    shard.append(1)
    shard.stream.messages.pop()
    with pytest.raises(
        LogDamaged, match="ends with commit 3, and has acknowledged commit 4 to this"
    ):
        shard.open()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-1"]


def test_a_log_that_says_so_for_a_moment_is_opened(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard.open()
    shard.append(1)
    newest = shard.stream.messages.pop()
    monkeypatch.setattr(
        "skerry.runtime.cluster.local.time.sleep", lambda s: shard.stream.messages.append(newest)
    )
    assert shard.open().last.no == 4
    assert shard.said == []


def test_a_snapshot_that_was_purged_while_the_damaged_one_after_it_was_loaded_has_a_newer_one(
    tmp_path: Path,
) -> None:
    """A newer owner has saved two meanwhile."""
    first, second, third = (Pointer("one", n, n, 1, 1, 1, "") for n in (1, 2, 3))
    snapshots = Mock(newest=Mock(side_effect=[second, third]), before=Mock(return_value=first))

    def load(pointer: Pointer, folder: Path) -> None:
        if pointer == second:
            raise StoreDamaged("a part of it is missing")
        if pointer == first:
            raise Outdated("it was purged")
        LmdbStore.create(folder, shard=LABEL.shard, label=LABEL)

    snapshots.load = load
    local.fetch(tmp_path / "shard-1", LABEL, snapshots, lambda line: None)
    assert labels.read(tmp_path / "shard-1").shard == LABEL.shard
