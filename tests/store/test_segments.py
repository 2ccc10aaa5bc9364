"""The segments of a log: what their bytes say after damage, torn writes and mix-ups."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from skerry.errors import StoreDamaged
from skerry.runtime.core import commit as records
from skerry.runtime.ports import Last
from skerry.runtime.store.segment import MARKS_AT, NAMES, RECORDS_AT, Segment, name_of
from skerry.runtime.store.segments import AHEAD_BYTES, SMALL_BYTES, Segments
from tests.ports.logs import Folder, Owner


def owner_in(folder: Path) -> Owner:
    return Owner(Folder(folder), sync=True)


def end_of(owner: Owner) -> int:
    """Where its newest record ends."""
    assert isinstance(owner.log, Segments)
    return owner.log._tail[1]


def token_of(newest: int) -> bytes:
    """The token of a log whose newest segment begins with this commit."""
    return newest.to_bytes(8, "little")


@pytest.fixture
def ten(tmp_path: Path) -> Owner:
    """Ten commits, each of them synced."""
    owner = owner_in(tmp_path)
    for _ in range(10):
        owner.append(1, random.Random(1))
    owner.log.close()
    return owner


def reread(folder: Path) -> int:
    """The newest commit that is found."""
    log = Segments(folder, shard=1, token=token_of(1), before=(0, 0))
    return [decoded.no for decoded in log.replay()][-1]


def test_a_record_below_the_mark_that_is_cut_or_changed_is_damage_and_none_is_cut_off(
    tmp_path: Path, ten: Owner
) -> None:
    (path,) = tmp_path.glob(NAMES)
    whole = path.read_bytes()
    end = end_of(ten)
    for at in (RECORDS_AT + 2, (RECORDS_AT + end) // 2, end - 1):
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
    owner = owner_in(tmp_path)
    owner.append(3, random.Random(1))
    owner.sync, at = False, end_of(owner)
    row = (4, b"key", bytes(SMALL_BYTES))
    owner.append_rows([row])
    first = end_of(owner)
    owner.append_rows([row, row])
    (path,) = tmp_path.glob(NAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes(first - at) + whole[first:])
    owner.open()
    assert owner.log.last.no == 3, "nobody was told of the others"
    owner.append_rows([(4, b"key", b"1" * SMALL_BYTES)])
    assert end_of(owner) == first, "the leftover stands right behind it"
    owner.open()
    assert owner.log.last.no == 4


def test_an_older_file_of_another_life_is_refused_by_the_one_that_follows_it(
    tmp_path: Path,
) -> None:
    """The same numbers and the same lengths: only the checksums tell."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        owner = owner_in(folder)
        for life in (seed, 7):
            owner.append_rows([(4, b"key", bytes((life,)) * 100)] * 3)
            owner.roll()
        owner.log.close()
    ours, theirs = (folder / name_of(1) for folder in folders)
    list(Segments(folders[0], shard=1, token=token_of(7), before=(0, 0)).replay())
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(StoreDamaged, match=f"{name_of(4)}.*does not follow the one before"):
        list(Segments(folders[0], shard=1, token=token_of(7), before=(0, 0)).replay())


@pytest.mark.parametrize("torn", MARKS_AT)
def test_with_either_mark_torn_the_other_still_tells_damage_from_a_torn_write(
    tmp_path: Path, torn: int
) -> None:
    owner, ends = owner_in(tmp_path), [RECORDS_AT]
    for _ in range(10):
        owner.append(1, random.Random(1))
        ends.append(end_of(owner))
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
    owner = owner_in(tmp_path)
    (path,) = tmp_path.glob(NAMES)
    owner.append(1, random.Random(1))
    size = path.stat().st_size
    for _ in range(20):
        owner.append(1, random.Random(1))
    assert path.stat().st_size == size
    last = owner.log.last
    row = (4, b"key", bytes(AHEAD_BYTES))
    owner.log.append([records.encode(last.no + 1, 1, 1, last.checksum, [], [row])], sync=True)
    assert path.stat().st_size == end_of(owner)


def test_a_file_that_belongs_to_another_store_or_is_missing_or_unknown_is_named(
    tmp_path: Path,
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    owners = []
    for seed, folder in enumerate(folders):
        folder.mkdir()
        owner = owner_in(folder)
        owner.append(3, random.Random(seed))
        owner.roll()
        owner.append(3, random.Random(seed))
        owner.trim()
        owner.log.close()
        owners.append(owner)
    one, (mine,), (other,) = owners[0], folders[0].glob(NAMES), folders[1].glob(NAMES)
    before = one.covered.no, one.covered.checksum
    whole = mine.read_bytes()

    def opened(newest: int, before: tuple[int, int]) -> None:
        list(Segments(folders[0], shard=1, token=token_of(newest), before=before).replay())

    opened(4, before)
    mine.write_bytes(other.read_bytes())
    with pytest.raises(StoreDamaged, match="does not follow what the tree has got"):
        opened(4, before)
    mine.write_bytes(whole)
    mine.rename(mine.with_name(name_of(5)))
    with pytest.raises(StoreDamaged, match=f"{name_of(4)} is damaged: it is missing"):
        opened(4, before)
    mine.with_name(name_of(5)).rename(mine.with_name(name_of(1)))
    with pytest.raises(StoreDamaged, match="it begins with commit 4"):
        opened(1, (0, 0))
    mine.with_name(name_of(1)).rename(mine)
    Segment.create(folders[0], shard=1, before=Last())
    with pytest.raises(StoreDamaged, match="the tree beside it is older"):
        opened(1, (0, 0))
    assert mine.read_bytes() == whole
