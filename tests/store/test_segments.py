"""The files of a log, killed and cut off from power at any time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.errors import StoreDamaged
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Row
from skerry.runtime.ports import Last
from skerry.runtime.store import segments
from skerry.runtime.store.segments import AHEAD_BYTES, NAMES, SMALL_BYTES, Log, Segment
from tests.store.power import Disk, PowerFailed

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "sync", "turn", "cover", "kill", "power"]),
        st.integers(1, 4),
        st.one_of(st.just(1 << 30), st.integers(0, 8)),
    ),
    min_size=5,
    max_size=60,
)


class Owner:
    """A shard's log, and the tree's position, whose own promises are LMDB's."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self.folder, self.sync = folder, sync
        self.newest, self.covered, self.told = 1, Last(), 0
        self.given: dict[int, bytes] = {}
        """The record of each commit as it was last appended: a commit that a power cut took may
        come again with other bytes."""
        Segment.create(folder, shard=1, before=Last())
        self.open()

    def open(self) -> None:
        """A process starts, and reads what is there."""
        before = self.covered.no, self.covered.checksum
        self.log = Log(self.folder, shard=1, newest=self.newest, before=before)
        found = {decoded.no: decoded.checksum for decoded in self.log.replay()}
        assert list(found) == list(range(self.covered.no + 1, self.log.last.no + 1))
        for no, checksum in found.items():
            given = records.checksum_of(self.given.get(no, b"\0" * 8))
            assert checksum == given, f"I6: commit {no} is none that this life has appended"
        self.given = {no: self.given[no] for no in found}
        assert self.log.last.no >= self.told, "a commit that was told as durable is gone"
        self.log.resume()
        self.told = self.log.last.no

    def append(self, count: int, rng: random.Random) -> None:
        """So many commits in one write."""
        sizes = [rng.choice((10, 600, 3000)) for _ in range(count)]
        self.append_rows([(4, b"key", rng.randbytes(size)) for size in sizes])

    def append_rows(self, rows: list[Row]) -> None:
        """A commit for each of these rows, in one write."""
        new = []
        for row in rows:
            last = Last(*records.head_of(new[-1])) if new else self.log.last
            no, checksum = last.no, last.checksum
            new.append(records.encode(no + 1, 1, no + 1, checksum, [], [row]))
        self.given |= {records.head_of(record)[0]: record for record in new}
        self.log.append(new, sync=self.sync)
        if self.sync:
            self.told = self.log.last.no

    def turn(self) -> None:
        """As at the beginning of a sweep."""
        if self.log.last.no >= self.newest:
            segment = self.log.begin_segment()
            self.newest = segment.before.no + 1
            self.told = segment.before.no
            self.log.turn(segment)

    def cover(self) -> None:
        """As at the end of a sweep."""
        self.covered = self.log.turned_behind
        self.log.drop()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, sync=st.booleans(), seed=st.integers(0, 1 << 30))
def test_what_was_told_as_durable_is_there_after_any_kills_and_power_cuts(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, int, int]],
    sync: bool,
    seed: int,
) -> None:
    """`steps`: what is done, how many commits, and how many calls the disk does before it fails."""
    rng = random.Random(seed)
    disk = Disk(rng)

    def again() -> None:
        disk.cut()
        owner.open()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "os", disk)
        owner = Owner(tmp_path_factory.mktemp("log"), sync=sync)
        for step, count, calls in steps:
            disk.left = calls
            try:
                match step:
                    case "append":
                        owner.append(count, rng)
                    case "sync":
                        owner.log.sync()
                        owner.told = owner.log.last.no
                    case "turn":
                        owner.turn()
                    case "cover":
                        owner.cover()
                    case "power":
                        again()
                    case "kill":
                        owner.open()
            except PowerFailed:
                again()
            disk.left = 1 << 30
        again()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Ten commits, each of them synced."""
    owner = Owner(tmp_path, sync=True)
    for _ in range(10):
        owner.append(1, random.Random(1))
    owner.log.close()
    return owner.log


def reread(folder: Path) -> int:
    """The newest commit that is found."""
    log = Log(folder, shard=1, newest=1, before=(0, 0))
    return [decoded.no for decoded in log.replay()][-1]


def test_a_record_below_the_mark_that_is_cut_or_changed_is_damage_and_none_is_cut_off(
    tmp_path: Path, log: Log
) -> None:
    (path,) = tmp_path.glob(NAMES)
    whole = path.read_bytes()
    end = log._tail[1]
    for at in (segments.RECORDS_AT + 2, (segments.RECORDS_AT + end) // 2, end - 1):
        for spoilt in (whole[:at], whole[:at] + bytes((whole[at] ^ 4,)) + whole[at + 1 :]):
            path.write_bytes(spoilt)
            with pytest.raises(StoreDamaged, match="Nothing was cut off"):
                reread(tmp_path)
            assert path.read_bytes() == spoilt
    path.write_bytes(whole)
    assert reread(tmp_path) == 10


def test_what_a_torn_write_left_behind_a_new_record_of_its_length_is_never_replayed(
    tmp_path: Path,
) -> None:
    """A group of commits is one write; the power took its first record and left the second.
    The records are large: a small write brings zeros along, which write over what is left."""
    owner = Owner(tmp_path, sync=True)
    owner.append(3, random.Random(1))
    owner.sync, at = False, owner.log._tail[1]
    row = (4, b"key", bytes(SMALL_BYTES))
    owner.append_rows([row])
    first = owner.log._tail[1]
    owner.append_rows([row, row])
    (path,) = tmp_path.glob(NAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes(first - at) + whole[first:])
    owner.open()
    assert owner.log.last.no == 3, "nobody was told of the others"
    owner.append_rows([(4, b"key", b"1" * SMALL_BYTES)])
    assert owner.log._tail[1] == first, "the leftover stands right behind it"
    owner.open()
    assert owner.log.last.no == 4


def test_an_older_file_of_another_life_is_refused_by_the_one_that_follows_it(
    tmp_path: Path,
) -> None:
    """The same numbers and the same lengths: only the checksums tell."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        owner = Owner(folder, sync=True)
        for life in (seed, 7):
            owner.append_rows([(4, b"key", bytes((life,)) * 100)] * 3)
            owner.turn()
        owner.log.close()
    ours, theirs = (folder / segments.name_of(1) for folder in folders)
    list(Log(folders[0], shard=1, newest=7, before=(0, 0)).replay())
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(
        StoreDamaged, match=f"{segments.name_of(4)}.*does not follow the one before"
    ):
        list(Log(folders[0], shard=1, newest=7, before=(0, 0)).replay())


@pytest.mark.parametrize("torn", segments.MARKS_AT)
def test_with_either_mark_torn_the_other_still_tells_damage_from_a_torn_write(
    tmp_path: Path, torn: int
) -> None:
    owner, ends = Owner(tmp_path, sync=True), [segments.RECORDS_AT]
    for _ in range(10):
        owner.append(1, random.Random(1))
        ends.append(owner.log._tail[1])
    owner.log.close()
    (path,) = tmp_path.glob(NAMES)
    spoilt = bytearray(path.read_bytes())
    spoilt[torn : torn + 8] = b"\xff" * 8
    path.write_bytes(bytes(spoilt))
    assert reread(tmp_path) == 10, "one mark is enough"
    for commit in range(1, 10):
        damaged = bytearray(spoilt)
        damaged[ends[commit] - 1] ^= 4
        path.write_bytes(bytes(damaged))
        with pytest.raises(StoreDamaged, match=f"commit {commit} is damaged"):
            reread(tmp_path)


def test_small_writes_find_the_files_length_made_and_large_ones_bring_no_zeros(
    tmp_path: Path,
) -> None:
    owner = Owner(tmp_path, sync=True)
    (path,) = tmp_path.glob(NAMES)
    owner.append(1, random.Random(1))
    size = path.stat().st_size
    for _ in range(20):
        owner.append(1, random.Random(1))
    assert path.stat().st_size == size
    last = owner.log.last
    row = (4, b"key", bytes(AHEAD_BYTES))
    owner.log.append([records.encode(last.no + 1, 1, 1, last.checksum, [], [row])], sync=True)
    assert path.stat().st_size == owner.log._tail[1]


def test_a_file_that_belongs_to_another_store_or_is_missing_or_unknown_is_named(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    owners = []
    for seed, folder in enumerate(folders):
        folder.mkdir()
        owner = Owner(folder, sync=True)
        owner.append(3, random.Random(seed))
        owner.turn()
        owner.append(3, random.Random(seed))
        owner.cover()
        owner.log.close()
        owners.append(owner)
    one, (mine,), (other,) = owners[0], folders[0].glob(NAMES), folders[1].glob(NAMES)
    before = one.covered.no, one.covered.checksum
    whole = mine.read_bytes()

    def opened(newest: int, before: tuple[int, int]) -> None:
        list(Log(folders[0], shard=1, newest=newest, before=before).replay())

    opened(4, before)
    mine.write_bytes(other.read_bytes())
    with pytest.raises(StoreDamaged, match="does not follow what the tree has got"):
        opened(4, before)
    mine.write_bytes(whole)
    mine.rename(mine.with_name(segments.name_of(5)))
    with pytest.raises(StoreDamaged, match=f"{segments.name_of(4)} is damaged: it is missing"):
        opened(4, before)
    mine.with_name(segments.name_of(5)).rename(mine.with_name(segments.name_of(1)))
    with pytest.raises(StoreDamaged, match="it begins with commit 4"):
        opened(1, (0, 0))
    mine.with_name(segments.name_of(1)).rename(mine)
    Segment.create(folders[0], shard=1, before=Last())
    with pytest.raises(StoreDamaged, match="the tree beside it is older"):
        opened(1, (0, 0))
    assert mine.read_bytes() == whole
