"""Power cuts with every `--sync`: on a disk that forgets, and on a real file system."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.errors import StoreDamaged
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Commit, CommitNo, StateGroup
from skerry.runtime.store import committer
from skerry.runtime.store.check import check
from skerry.runtime.store.store import LmdbStore
from tests.store.dying import changes, model
from tests.store.image import Image, image
from tests.store.power import Disk, PowerFailed

SWEEPS = pytest.mark.parametrize("log_bytes", [1 << 30, 1], ids=["no sweeps", "sweeps"])


def write(path: Path, sync: str, log_bytes: int, begun: Callable[[int], None]) -> int:
    """Commits until the disk fails; up to which one we were told that they are durable.

    `begun` is told of each before it is appended, counted from 0.
    """
    woken = threading.Event()
    store = LmdbStore.open(path, shard=1, sync=sync, log_bytes=log_bytes, wake=woken.set)
    first, checksum = store.last.no, store.last.checksum
    no = told = first
    try:
        while True:
            begun(no - first)
            no += 1
            states = [StateGroup.of("Thing", changes(no).items())]
            record = records.encode(no, 1, no, checksum, states, [])
            checksum = records.checksum_of(record)
            store.append(Commit(CommitNo(no), record, states, []))
            while (told := store.durable()) < no - 3:
                woken.wait(1)
                woken.clear()
    except StoreDamaged as refused:
        assert "The disk refused a commit" in str(refused)
    with pytest.raises((StoreDamaged, PowerFailed, OSError)):
        store.close()
    return told


def reopened(path: Path) -> int:
    """The newest commit that is there, once all that is there was looked at."""
    store = LmdbStore.open(path, shard=1)
    assert dict(store.states("Thing")) == model(store.last.no)
    store.close()
    assert list(check(path, shard=1)) == []
    return store.last.no


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Under the log."""
    disk = Disk(random.Random(1))
    disk.stand_in(monkeypatch)
    monkeypatch.setattr(committer, "GROUP_S", 0.0005)
    return disk


def cut_on(disk: Disk, path: Path, calls: int, sync: str, log_bytes: int) -> int:
    """A power cut after so many calls of the disk; how many commits are lost of those told."""

    def begun(count: int) -> None:
        if not count:
            disk.left = calls

    told = write(path, sync, log_bytes, begun)
    disk.cut()
    return max(0, told - reopened(path))


@SWEEPS
@pytest.mark.parametrize("sync", ["commit", "10ms"])
def test_what_was_told_as_durable_outlives_a_disk_that_forgets(
    tmp_path: Path, disk: Disk, sync: str, log_bytes: int
) -> None:
    path = tmp_path / "shard-1"
    LmdbStore.create(path, shard=1)
    for cut in range(12):
        assert not cut_on(disk, path, 20 + 7 * cut, sync, log_bytes)


def test_with_sync_off_a_disk_that_forgets_loses_commits_and_the_rest_is_whole(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "shard-1"
    LmdbStore.create(path, shard=1)
    assert sum(cut_on(disk, path, 20 + 7 * cut, "off", 1 << 30) for cut in range(12)) > 100


def really_cut(real: Image, path: Path, count: int, sync: str, log_bytes: int = 1 << 30) -> int:
    """A power cut after so many commits; how many are lost of those told."""

    def begun(done: int) -> None:
        if done == count:
            real.power_fails()

    told = write(path, sync, log_bytes, begun)
    real.power_comes_back()
    return max(0, told - reopened(path))


@SWEEPS
@pytest.mark.parametrize("sync", ["commit", "10ms"])
def test_what_was_told_as_durable_outlives_power_cuts(
    tmp_path: Path, sync: str, log_bytes: int
) -> None:
    with image(tmp_path, 64) as real:
        path = real.path / "shard-1"
        LmdbStore.create(path, shard=1)
        for cut in range(6):
            assert not really_cut(real, path, 5 + 9 * cut, sync, log_bytes)


def test_with_sync_off_power_cuts_lose_commits_and_the_rest_is_whole(tmp_path: Path) -> None:
    """That some are lost shows that the power is really cut."""
    with image(tmp_path, 64) as real:
        path = real.path / "shard-1"
        LmdbStore.create(path, shard=1)
        assert sum(really_cut(real, path, count, "off") for count in (50, 100, 200)) > 100
