"""A replicated log, over a stream that answers in every way that servers do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.errors import StoreDamaged
from skerry.runtime.cluster.appending import (
    Acked,
    Appending,
    Found,
    Missing,
    Refused,
    Step,
    Unknown,
)
from skerry.runtime.cluster.log import Astray, Behind, Replaced, ReplicatedLog
from skerry.runtime.core import commit as records
from skerry.runtime.ports import Last, LogDamaged
from skerry.runtime.store.segments import Segments
from tests.cluster.unsteady import NAME, Unsteady

hosts = st.integers(0, 2)


class Host:
    """A host's copy of the log, and its owner while there is one."""

    def __init__(self, folder: Path, stream: Unsteady) -> None:
        folder.mkdir()
        self.folder, self.stream = folder, stream
        self.token = Segments.create(folder, shard=1)
        self.log: ReplicatedLog | None = None
        self.acked: list[bytes] = []
        """Records of which this owner knows that they are durable."""

    def open(self) -> list[int]:
        """Take over; returns the commits that were found."""
        self.close()
        local = Segments(self.folder, shard=1, token=self.token, before=(0, 0))
        self.log = ReplicatedLog(local, self.stream, pause=lambda seconds: None)
        found = [decoded.no for decoded in self.log.replay()]
        self.log.resume()
        return found

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    def append(self, rng: random.Random, count: int, *, large: int = 3000) -> None:
        """Append so many commits at once."""
        assert self.log is not None
        new: list[bytes] = []
        for _ in range(count):
            last = Last(*records.head_of(new[-1])) if new else self.log.last
            row = (4, b"key", rng.randbytes(rng.choice((10, 600, large))))
            new.append(records.encode(last.no + 1, last.epoch + 1, 1, last.checksum, [], [row]))
        self.log.append(new, sync=True)
        self.acked += new


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    stream = Unsteady()
    pair = Host(tmp_path / "a", stream), Host(tmp_path / "b", stream)
    yield pair
    for host in pair:
        host.close()


def written(stream: Unsteady, folder: Path) -> list[bytes]:
    """The records of the stream, as a host without data reads them."""
    reader = Host(folder, stream)
    try:
        reader.open()
        assert reader.log is not None
        return list(reader.log._records(1, len(stream.messages)))
    finally:
        reader.close()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.tuples(hosts, st.booleans(), st.integers(1, 4)), max_size=25),
    seed=st.integers(0, 1 << 30),
)
def test_whatever_answers_come_or_not_each_acknowledged_commit_stands_once_and_one_owner_goes_on(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, int]], seed: int
) -> None:
    """`steps`: whose turn it is, whether that one opens the log anew, how many commits it appends."""
    rng = random.Random(seed)
    folder, stream = tmp_path_factory.mktemp("hosts"), Unsteady(rng, room=900)
    hosts = [Host(folder / str(n), stream) for n in range(3)]
    owner: Host | None = None
    acked: list[bytes] = []
    for number, opens, count in steps:
        host = hosts[number]
        opened = opens or host.log is None
        if opened:
            host.open()
        host.acked = []
        try:
            host.append(rng, count)
        except Replaced:
            assert host is not owner or opened, "an owner that nobody has replaced was stopped"
            host.close()
        else:
            assert host is owner or opened, "two owners go on"
            owner = host
            acked += host.acked
    for host in hosts:
        host.close()
    there = [records.checksum_of(record) for record in written(stream, folder / "reader")]
    wanted = [records.checksum_of(record) for record in acked]
    assert len(set(there)) == len(there)
    assert [checksum for checksum in there if checksum in set(wanted)] == wanted


def test_a_host_reads_on_where_its_own_disk_ends(pair: tuple[Host, Host]) -> None:
    a, b = pair
    rng = random.Random(1)
    a.open()
    a.append(rng, 5)
    assert b.open() == [1, 2, 3, 4, 5]
    b.append(rng, 3)
    with pytest.raises(Replaced, match="was replaced"):
        a.append(rng, 1)
    assert a.open() == [1, 2, 3, 4, 5, 6, 7, 8]
    a.append(rng, 1)
    assert a.log is not None and a.log.last.no == 9


def test_a_disk_that_is_wiped_is_filled_from_the_stream(
    pair: tuple[Host, Host], tmp_path: Path
) -> None:
    a, _ = pair
    a.open()
    a.append(random.Random(1), 7)
    assert Host(tmp_path / "wiped", a.stream).open() == [1, 2, 3, 4, 5, 6, 7]


def test_a_copy_that_the_stream_does_not_continue_is_not_used(
    pair: tuple[Host, Host], tmp_path: Path
) -> None:
    """One that is ahead of the stream, and one of other commits with the same numbers."""
    a, _ = pair
    rng = random.Random(1)
    a.open()
    a.append(rng, 3)
    other = Host(tmp_path / "other", Unsteady())
    other.open()
    other.append(random.Random(2), 3)
    other.append(rng, 2)
    other.stream = a.stream
    with pytest.raises(Behind, match="ends with commit 3, and has acknowledged commit 5 to this"):
        other.open()
    a.append(rng, 4)
    with pytest.raises(Astray, match="Commit 5 on this host is none of"):
        other.open()


def test_a_disk_that_ends_before_the_stream_begins_is_of_no_use(
    pair: tuple[Host, Host],
) -> None:
    a, b = pair
    rng = random.Random(1)
    a.open()
    for _ in range(3):
        a.append(rng, 2, large=10)
    b.open()
    for _ in range(3):
        a.append(rng, 2, large=10)
    a.stream.purged = 3
    assert b.open() == list(range(1, 13)), "the stream begins right behind this disk"
    b.append(rng, 1, large=10)
    a.stream.purged = 7
    with pytest.raises(Astray, match="none of the stream skerry-test-0, of which there are"):
        a.open()


def test_an_empty_disk_is_of_no_use_once_the_stream_was_purged(
    pair: tuple[Host, Host], tmp_path: Path
) -> None:
    """As a host leaves it that is killed before its first commit, or loses power soon after it."""
    a, b = pair
    a.open()
    for _ in range(3):
        a.append(random.Random(1), 1)
    a.stream.purged = 1
    with pytest.raises(Astray, match="none of the stream"):
        b.open()


def test_a_disk_that_is_damaged_is_of_no_use_and_the_log_not_damaged(
    pair: tuple[Host, Host],
) -> None:
    a, _ = pair
    a.open()
    a.append(random.Random(1), 3)
    a.close()
    (path,) = a.folder.glob("log-*")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises((Astray, StoreDamaged)) as raised:
        a.open()
    assert not isinstance(raised.value, LogDamaged)


def test_a_record_larger_than_a_message_is_in_parts_that_count_with_the_last(
    tmp_path: Path,
) -> None:
    stream, rng = Unsteady(room=700), random.Random(1)
    a = Host(tmp_path / "a", stream)
    a.open()
    a.append(rng, 6, large=5000)
    whole = len(stream.messages)
    assert whole > 10
    a.append(rng, 1, large=5000)
    a.close()
    del stream.messages[whole + 1 :]
    b = Host(tmp_path / "b", stream)
    assert b.open() == [1, 2, 3, 4, 5, 6], "its owner was killed between two parts"
    b.append(rng, 4, large=5000)
    b.close()
    assert b.open() == list(range(1, 11))
    assert Host(tmp_path / "c", stream).open() == list(range(1, 11))
    b.close()


def test_a_stream_that_has_lost_what_it_acknowledged_ends_its_owner(tmp_path: Path) -> None:
    stream, rng = Unsteady(), random.Random(1)
    host = Host(tmp_path / "a", stream)
    host.open()
    for _ in range(4):
        host.append(rng, 1)
    del stream.messages[2:]
    with pytest.raises(StoreDamaged, match="ends with message 2, and has acknowledged 4"):
        host.append(rng, 1)


@pytest.mark.parametrize("at", [0, 1, 20, 30, -1])
def test_a_flipped_bit_in_a_message_is_named_and_nothing_is_cut_off(
    pair: tuple[Host, Host], tmp_path: Path, at: int
) -> None:
    a, _ = pair
    a.open()
    for _ in range(3):
        a.append(random.Random(1), 1)
    payload = bytearray(a.stream.messages[1])
    payload[at] ^= 0x40
    a.stream.messages[1] = bytes(payload)
    with pytest.raises(LogDamaged, match="message 2 is not what a log holds"):
        Host(tmp_path / "reader", a.stream).open()
    assert len(a.stream.messages) == 3


# ── one append ──


@pytest.mark.parametrize(
    "odd",
    [
        Acked(NAME, 8, duplicate=True),
        Acked(NAME, 0, duplicate=True),
        Acked(NAME, 7),
        Acked("other", 8),
        Unknown(),
    ],
)
def test_an_acknowledgement_of_anything_else_is_no_outcome(odd: Acked | Unknown) -> None:
    append = Appending(NAME, 7, b"mine")
    append.published(odd)
    assert append.step is Step.LOOK
    append.looked(Missing())
    assert append.step is Step.PUBLISH, "nothing there is never a verdict"
    append.published(Refused(8))
    assert append.step is Step.LOOK
    append.looked(Found(b"mine"))
    assert append.step is Step.DURABLE


def test_a_refusal_counts_as_fenced_only_when_others_bytes_stand_there() -> None:
    append = Appending(NAME, 7, b"mine")
    append.published(Refused(8))
    append.looked(Unknown())
    append.published(Refused(8))
    append.looked(Found(b"theirs"))
    assert append.step is Step.FENCED


def test_a_server_that_is_behind_for_a_moment_ends_nobody() -> None:
    append = Appending(NAME, 7, b"mine")
    for _ in range(15):
        append.published(Refused(5))
    append.published(Acked(NAME, 8))
    assert append.step is Step.DURABLE
