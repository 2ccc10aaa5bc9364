"""An app's description and its stores: each knows the other, and nothing is thrown away on trust."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry.errors import SkerryError, StoreDamaged, StoreFull, StoreLocked, Unavailable
from skerry.runtime.app import directory, membership
from skerry.runtime.app.backup import back_up, restore
from skerry.runtime.app.reshard import reshard
from skerry.runtime.core.events import Table
from skerry.runtime.description import Running
from skerry.runtime.store import label, sealed_file
from skerry.runtime.store.store import LmdbStore
from tests.processes.started import ROOT
from tests.store import described
from tests.store.described import ALL, change, files, held
from tests.store.power import Disk, PowerFailed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    described.make(tmp_path / "data")
    return tmp_path / "data"


def flips(stored: bytes) -> Iterator[bytes]:
    """The same with one bit changed: each bit once."""
    for place in range(len(stored)):
        for bit in range(8):
            flipped = bytearray(stored)
            flipped[place] ^= 1 << bit
            yield bytes(flipped)


def quiet(line: str) -> None:
    """Say nothing."""


# ── damage ──


def test_a_description_with_any_bit_flipped_or_cut_anywhere_is_refused(data: Path) -> None:
    path = data / "app.json"
    stored, known = path.read_bytes(), directory.load(data)
    assert known == directory.decoded(stored, path)
    damaged = [*flips(stored), *(stored[:size] for size in range(len(stored)))]
    read = []
    for bytes_of in damaged:
        try:
            read.append(directory.decoded(bytes_of, path))
        except StoreDamaged as damage:
            assert str(path) in str(damage)
    assert read == []


def test_a_label_with_any_bit_flipped_is_refused(data: Path) -> None:
    path = data / "shard-1" / label.NAME
    stored = path.read_bytes()
    for flipped in random.Random(1).sample(list(flips(stored)), 300):
        path.write_bytes(flipped)
        with pytest.raises(StoreDamaged, match=r"store\.json, is damaged"):
            membership.described(data)
    for flipped in flips(stored):
        with pytest.raises(ValueError, match="checksum"):
            sealed_file.decoded(flipped, label.Label)


def test_who_runs_the_app_is_never_read_from_a_flipped_file(data: Path) -> None:
    lock = directory.lock(data)
    running = Running(os.getpid(), "described", "/tmp/sockets", [0, 1])
    directory.announce(data, running)
    assert directory.running_app(data) == running
    for flipped in flips((data / "run.json").read_bytes()):
        (data / "run.json").write_bytes(flipped)
        with pytest.raises(Unavailable, match="is damaged"):
            directory.running_app(data)
    os.close(lock)


def test_a_lock_with_any_bit_flipped_still_locks(data: Path) -> None:
    lock = directory.lock(data)
    for flipped in random.Random(1).sample(list(flips((data / "lock").read_bytes())), 4):
        (data / "lock").write_bytes(flipped)
        with pytest.raises(StoreLocked, match="is in use"):
            directory.lock(data)
    os.close(lock)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"members": [0, 0]}, "two of its shards have one id"),
        ({"slots": [0, 7] * 512}, "owner is none of its shards"),
        ({"slots": [0, 1] * 500}, "places 1000 slots"),
        ({"next_id": 1}, "is in use"),
        ({"members": []}, "owner is none of its shards"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused_though_its_checksum_is_right(
    data: Path, changes: dict[str, Any], said: str
) -> None:
    known = directory.load(data)
    assert known is not None
    change(data, placement=msgspec.structs.replace(known.placement, **changes))
    with pytest.raises(StoreDamaged, match=said):
        directory.load(data)


# ── older and foreign ──


def test_an_older_description_is_refused_by_the_stores_until_the_newest_is_back(data: Path) -> None:
    kept = {}
    for turn in range(3):
        kept[turn] = (data / "app.json").read_bytes()
        membership.enlist(data, membership.described(data))
    newest = (data / "app.json").read_bytes()
    for older in kept.values():
        (data / "app.json").write_bytes(older)
        before = files(data)
        for _ in range(3):
            with pytest.raises(StoreDamaged, match=r"app\.json is older than the store"):
                membership.described(data)
        assert files(data) == before
    (data / "app.json").write_bytes(newest)
    assert held(data) == ALL


def test_a_description_from_before_a_change_of_shards_is_refused_and_takes_nothing_away(
    data: Path, tmp_path: Path
) -> None:
    older = (data / "app.json").read_bytes()
    shutil.copytree(data, tmp_path / "older")
    newest = reshard(data, membership.described(data), 3)
    membership.enlist(data, newest)
    kept = (data / "app.json").read_bytes()
    (data / "app.json").write_bytes(older)
    before = files(data)
    with pytest.raises(StoreDamaged, match=r"app\.json is older than the store"):
        membership.described(data)
    # With its stores beside it, too: the newer ones have been worked on.
    for shard in (0, 1):
        shutil.copytree(tmp_path / "older" / f"shard-{shard}", data / f"shard-{shard}")
    with pytest.raises(StoreDamaged, match=r"app\.json is older than the store"):
        membership.described(data)
    assert files(data).items() >= before.items()
    (data / "app.json").write_bytes(kept)
    assert held(data) == ALL


@pytest.mark.parametrize("workers", [2, 3])
def test_a_look_at_an_app_that_starts_meanwhile_takes_nothing_for_older(
    data: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    look, calls = membership._labels, 0

    def after_a_start(folder: Path) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            known = directory.load(data)
            assert known is not None
            membership.enlist(data, known if workers == 2 else reshard(data, known, workers))
        return look(folder)

    monkeypatch.setattr(membership, "_labels", after_a_start)
    assert len(membership.described(data).placement.members) == workers
    assert calls == 2


def test_an_older_store_is_refused_beside_a_newer_description(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "shard-1", tmp_path / "older")
    for _ in range(2):
        membership.enlist(data, membership.described(data))
    shutil.rmtree(data / "shard-1")
    shutil.copytree(tmp_path / "older", data / "shard-1")
    with pytest.raises(StoreDamaged, match=r"shard-1 is older than .*app\.json"):
        membership.described(data)


def test_a_store_from_before_the_last_start_is_refused_when_that_ended_cleanly(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data / "shard-1", tmp_path / "older")
    membership.enlist(data, membership.described(data))
    shutil.rmtree(data / "shard-1")
    shutil.copytree(tmp_path / "older", data / "shard-1")
    assert membership.described(data), "a start that was cut short looks the same"
    change(data, clean=True)
    with pytest.raises(StoreDamaged, match=r"shard-1 is older than .*app\.json"):
        membership.described(data)


@pytest.mark.parametrize("name", ["app.json", "shard-1"])
def test_a_description_or_a_store_of_another_app_is_refused(
    data: Path, tmp_path: Path, name: str
) -> None:
    described.make(tmp_path / "other")
    if (data / name).is_dir():
        shutil.rmtree(data / name)
        shutil.copytree(tmp_path / "other" / name, data / name)
    else:
        shutil.copy(tmp_path / "other" / name, data / name)
    with pytest.raises(StoreDamaged, match="in another data directory"):
        membership.described(data)


def test_a_restored_app_s_stores_are_not_the_backed_up_app_s(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup", quiet)
    restore(tmp_path / "backup", tmp_path / "again", quiet)
    assert held(data) == held(tmp_path / "backup") == held(tmp_path / "again") == ALL
    shutil.copy(data / "app.json", tmp_path / "again" / "app.json")
    with pytest.raises(StoreDamaged, match="in another data directory"):
        membership.described(tmp_path / "again")


def test_stores_that_were_swapped_are_refused_before_anything_is_written(data: Path) -> None:
    (data / "shard-0").rename(data / "swapped")
    (data / "shard-1").rename(data / "shard-0")
    (data / "swapped").rename(data / "shard-1")
    with pytest.raises(StoreDamaged, match="folders were swapped"):
        membership.described(data)


def test_a_tree_under_the_label_of_another_is_refused(data: Path, tmp_path: Path) -> None:
    described.make(tmp_path / "other")
    for path in (tmp_path / "other" / "shard-1").iterdir():
        if path.name != label.NAME:
            shutil.copy(path, data / "shard-1" / path.name)
    with pytest.raises(StoreDamaged, match="label of another store"):
        LmdbStore.open(data / "shard-1", shard=1)


def test_rows_in_a_shard_that_does_not_own_their_slot_are_damage(data: Path) -> None:
    app = membership.described(data)
    slot = app.placement.slots.index(1)
    row = (Table.TIMER, slot.to_bytes(2, "big") + bytes(16), b"\xc0")
    described.append(data, 0, [], [row], [])
    (damage,) = membership.damages(data, app, 0)
    assert f"1 slots that app.json gives to other shards: {slot} (shard 1)" in damage
    assert membership.damages(data, app, 1) == []


# ── what is no member's ──


def stranger(data: Path, name: str) -> Path:
    """A folder that no description mentions."""
    folder = data / name
    match name:
        case "shard-9":
            folder.mkdir()
            (folder / "mine").mkdir()
        case "shard-0.bak" | "shard-7":
            shutil.copytree(data / "shard-0", folder)
        case "shard-8":
            shutil.copytree(data / "shard-0", folder)
            (folder / label.NAME).unlink()
        case "shard-6":
            described.make(data.with_name("other"))
            shutil.copytree(data.with_name("other") / "shard-0", folder)
        case _:
            folder.mkdir()
            (folder / "mine").write_text("mine")
    return folder


@pytest.mark.parametrize("name", ["shard-0.bak", "shard-6", "shard-7", "shard-8", "shard-9", "old"])
def test_a_folder_that_the_description_does_not_mention_is_named_and_left_alone(
    data: Path, name: str
) -> None:
    stranger(data, name)
    before = {path: data for path, data in files(data).items() if name in path}
    app = membership.described(data)
    (sentence,) = membership.clear(data, app)
    assert f"{data / name} is no part of the app" in sentence
    app = reshard(data, app, 3)
    assert membership.clear(data, app) == [sentence]
    assert {path: data for path, data in files(data).items() if name in path} == before
    assert (data / name).is_dir()
    assert held(data) == ALL


def test_new_shards_get_no_id_whose_folder_is_there(data: Path) -> None:
    for name in ("shard-2", "shard-4"):
        (data / name).mkdir()
        (data / name / "mine").write_text("mine")
    app = reshard(data, membership.described(data), 3)
    assert (app.placement.members, app.placement.next_id) == ([3, 5, 6], 7)
    assert held(data) == ALL


def test_without_its_description_no_store_that_was_ever_opened_is_taken_for_a_leftover(
    data: Path, tmp_path: Path
) -> None:
    (data / "app.json").unlink()
    before = files(data)
    with pytest.raises(StoreDamaged, match=r"no app\.json"):
        membership.create(data, app="described", workers=2)
    assert files(data) == before
    empty = tmp_path / "empty"
    membership.create(empty, app="described", workers=2)
    membership.enlist(empty, membership.described(empty))
    (empty / "app.json").unlink()
    with pytest.raises(StoreDamaged, match=r"no app\.json"):
        membership.create(empty, app="described", workers=2)


def test_an_old_store_is_only_cleared_beside_members_that_are_whole(
    data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "older")
    app = membership.described(data)
    new = reshard(data, app, 3)
    shutil.copytree(tmp_path / "older" / "shard-0", data / "shard-0")
    assert len(membership.clear(data, new)) == 1, "its label says that it was not dealt out"
    old = label.read(data / "shard-0")
    label.write(data / "shard-0", msgspec.structs.replace(old, dealt_into=2))
    (data / "shard-2" / "data.mdb").rename(tmp_path / "data.mdb")
    assert len(membership.clear(data, new)) == 1, "a member is missing"
    (tmp_path / "data.mdb").rename(data / "shard-2" / "data.mdb")
    assert membership.clear(data, new) == []
    assert not (data / "shard-0").exists()


# ── writing ──


def test_a_power_cut_while_the_description_is_written_leaves_the_old_one_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "app.json", set()
    old, new = b"old" * 2000, b"new" * 1000
    for seed in range(40):
        for calls in range(12):
            disk = Disk(random.Random(seed))
            with monkeypatch.context() as patched:
                disk.stand_in(patched)
                sealed_file.write(path, old)
                disk.left = calls
                try:
                    sealed_file.write(path, new)
                except PowerFailed:
                    done = False
                else:
                    done = True
                disk.cut()
            assert path.read_bytes() in ((new,) if done else (old, new))
            seen.add((done, path.read_bytes()[:3]))
            for left in tmp_path.iterdir():
                left.unlink()
    assert seen == {(False, b"old"), (False, b"new"), (True, b"new")}


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, SkerryError)],
)
def test_a_disk_that_takes_a_part_and_no_more_leaves_the_description_as_it_was(
    data: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[SkerryError]
) -> None:
    before, write = files(data), os.pwritev
    taken = 0

    def short(fd: int, parts: Any, at: int, flags: int = 0) -> int:
        nonlocal taken
        if taken:
            raise OSError(number, os.strerror(number))
        taken = write(fd, [bytes(parts[0])[:4096]], at, flags)
        return taken

    app = membership.described(data)
    monkeypatch.setattr(os, "pwritev", short)
    with pytest.raises(kind, match="Nothing acknowledged is lost"):
        membership.enlist(data, app)
    assert files(data) == before
    monkeypatch.undo()
    membership.enlist(data, membership.described(data))
    assert held(data) == ALL


def test_a_disk_that_takes_little_at_a_time_gets_the_whole_description(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwritev

    def little(fd: int, parts: Any, at: int, flags: int = 0) -> int:
        return write(fd, [bytes(parts[0])[:100]], at, flags)

    monkeypatch.setattr(os, "pwritev", little)
    membership.enlist(data, membership.described(data))
    assert held(data) == ALL


# ── crashes ──


def die(work: str, point: str, when: str, nth: int, data: Path) -> bool:
    """Whether the work died before its end."""
    command = [sys.executable, "-m", "tests.store.dying", point, when, str(nth), str(data), work]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


POINTS = ["a file's sync", "a file's rename", "a store's label"]


def deaths(work: str, data: Path, look: Callable[[], None]) -> int:
    """Each of the points, one after the other, on the folder that the crash before has left."""
    count = 0
    for point in POINTS:
        for nth in (1, 2, 3, 5):
            count += die(work, point, "before" if nth % 2 else "after", nth, data)
            look()
    return count


def test_a_start_killed_at_any_step_leaves_an_app_that_starts(data: Path) -> None:
    generation = membership.described(data).generation
    assert deaths("start", data, lambda: None) >= 8
    app = membership.described(data)
    membership.enlist(data, app)
    assert app.generation > generation
    assert held(data) == ALL


def test_a_first_start_killed_at_any_step_is_begun_again(tmp_path: Path) -> None:
    died = 0
    for point in [*POINTS, "a new store"]:
        for nth in (1, 2, 3):
            data = tmp_path / f"{point}-{nth}"
            died += die("begin", point, "after", nth, data)
            if directory.load(data) is None:
                membership.create(data, app="dying", workers=3)
            app = membership.described(data)
            assert membership.clear(data, app) == []
            assert len(list(data.glob("shard-*"))) == len(app.placement.members)
    assert died >= 10


def test_a_restore_killed_at_any_step_leaves_the_backup_whole_and_no_half_of_an_app(
    data: Path, tmp_path: Path
) -> None:
    back_up(data, tmp_path / "backup", quiet)
    before, again, died = files(tmp_path / "backup"), tmp_path / "again", 0
    for point in POINTS:
        for nth in (1, 2, 5):
            died += die("restore", point, "after", nth, again)
            assert files(tmp_path / "backup") == before
            if again.exists():
                assert held(again) == ALL
                shutil.rmtree(again)
            shutil.rmtree(tmp_path / "again.partial", ignore_errors=True)
    assert died >= 7


MOVES = [
    *POINTS,
    "a new store",
    "a write of the log",
    "old stores marked",
    "a description of the app",
    "a store thrown away",
    "a file's removal",
]


@pytest.mark.parametrize("point", MOVES)
def test_a_change_of_shards_killed_at_any_step_loses_nothing_that_is_under_way(
    data: Path, point: str
) -> None:
    died = 0
    # The same app dies again and again, on one shard more each time that it was done.
    for when, nth in (("before", 1), ("after", 1), ("before", 2), ("after", 4)):
        died += die("move", point, when, nth, data)
        assert held(data) == ALL
        app = membership.described(data)
        assert membership.clear(data, app) == []
        assert len(list(data.glob("shard-*"))) == len(app.placement.members)
    assert died
