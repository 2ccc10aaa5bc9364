"""Snapshots in real NATS: whatever is killed, damaged or raced, what counts can be loaded whole."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import pytest
from nats.aio.client import Client
from nats.js.api import KeyValueConfig, RawStreamMsg, StorageType
from nats.js.errors import NotFoundError

from skerry.errors import SkerryError, StoreDamaged, StoreFull
from skerry.runtime.cluster import asking, local, names, snapshots
from skerry.runtime.cluster.engine import Ask, Away, Closed, Engine
from skerry.runtime.cluster.parts import digest_of
from skerry.runtime.cluster.snapshot_pointer import Pointer
from skerry.runtime.cluster.snapshot_stream import DIGEST, payload_of, uploads
from skerry.runtime.cluster.snapshots import Outdated, Snapshots
from skerry.runtime.store.check import check
from skerry.runtime.store.label import Label
from skerry.runtime.store.store import LmdbStore
from tests.cluster.servers import Servers
from tests.store.test_store import Writer

# The client library leaves its end of a connection that was lost to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*StreamWriter")

INCARNATION = "1f0c9a27" * 4
SHARD = 1
ASK_S = 10.0

T = TypeVar("T")


class Killed(BaseException):
    """The process ends here."""


class Tapped(Engine):
    """An engine that does something before an ask, and something after it.

    Args:
        before: is given the number of the ask, from 1.
    """

    def __init__(
        self,
        inner: Engine,
        before: Callable[[int], None] = lambda n: None,
        after: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._inner, self._before, self._after = inner, before, after
        self.asked = 0

    def run(self, ask: Ask[T], timeout_s: float) -> T:
        self.asked += 1
        n = self.asked
        self._before(n)
        answer = self._inner.run(ask, timeout_s)
        self._after(n)
        return answer


@pytest.fixture
def engine(nats: Servers) -> Iterator[Engine]:
    """A connection to the servers."""
    engine = Engine(nats.servers, name="tests")
    yield engine
    engine.close()


@pytest.fixture
def app(nats: Servers) -> Iterator[str]:
    """An app of this test alone, with its bucket."""
    app = f"test{os.urandom(4).hex()}"
    engine = Engine(nats.servers, name="tests")
    config = KeyValueConfig(names.of_app(app), history=1, storage=StorageType.FILE, replicas=3)
    engine.run(lambda client: client.jetstream().create_key_value(config), ASK_S)
    yield app
    nats.heal()
    for stream in (f"KV_{names.of_app(app)}", names.snapshots_of(app)):
        with suppress(NotFoundError):
            remove(engine, stream)
    engine.close()


def remove(engine: Engine, stream: str) -> None:
    """Remove a stream."""
    engine.run(lambda client: client.jetstream().delete_stream(stream), ASK_S)


def purge(engine: Engine, stream: str, subject: str) -> None:
    """Remove what stands under a subject."""
    engine.run(lambda client: client.jetstream().purge_stream(stream, subject=subject), ASK_S)


def read(engine: Engine, stream: str, subject: str) -> bytes:
    """What stands under a subject."""
    found = engine.run(lambda client: client.jetstream().get_msg(stream, subject=subject), ASK_S)
    return found.data or b""


def put(engine: Engine, subject: str, payload: bytes) -> None:
    """Write a part by hand, as it should be."""
    headers = {DIGEST: digest_of(payload).hex()}
    engine.run(lambda client: client.jetstream().publish(subject, payload, headers=headers), ASK_S)


def of(engine: Engine, app: str) -> Snapshots:
    """The snapshots of the shard, as an owner has them."""
    return Snapshots(engine, app, INCARNATION, SHARD, 3)


def made(folder: Path, content: bytes, **others: bytes) -> Path:
    """A folder with a few files."""
    folder.mkdir()
    for name, each in {"data.mdb": content, "store.json": b"{}", **others}.items():
        (folder / name).write_bytes(each)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """The files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_stream(engine: Engine, app: str) -> set[str]:
    """The names of all uploads that left a part."""
    stream, prefix = names.snapshots_of(app), names.parts_of(app, INCARNATION, SHARD)
    return engine.run(lambda client: uploads(client, stream, prefix), ASK_S)


def counting(owner: Snapshots) -> set[str]:
    """The names of the snapshots that count."""
    return {one.name for one in (owner.newest(), owner.before()) if one is not None}


def subject_of(app: str, pointer: Pointer, part: int) -> str:
    return f"{names.parts_of(app, INCARNATION, SHARD)}.{pointer.name}.{part}"


def loaded(owner: Snapshots, pointer: Pointer | None, folder: Path) -> dict[str, bytes]:
    """The files of a snapshot."""
    assert pointer is not None
    owner.load(pointer, folder)
    return files(folder)


def test_a_store_comes_back_as_it_was_copied(engine: Engine, app: str, tmp_path: Path) -> None:
    LmdbStore.create(tmp_path / "shard", shard=SHARD)
    writer = Writer(tmp_path / "shard")
    for no in range(20):
        writer.append(
            [(f"key-{no}-{n}", msgspec.msgpack.encode(os.urandom(100))) for n in range(500)]
        )
    writer.settle()
    writer.store.keep(1)
    copied = writer.store.copy_kept(1, tmp_path / "copy")()
    states = dict(writer.store.states("Thing"))
    writer.store.close()

    owner = of(engine, app)
    owner.save(tmp_path / "copy", commit=copied.commit, sequence=25)
    pointer = owner.newest()
    assert pointer is not None
    assert (pointer.commit, pointer.sequence, pointer.size) == (20, 25, copied.size + 182)

    back = tmp_path / "back"
    assert loaded(of(engine, app), pointer, back) == files(tmp_path / "copy")
    assert back.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in back.iterdir()} == {0o600}
    assert list(check(back, shard=SHARD)) == []
    store = LmdbStore.open(back, shard=SHARD)
    assert (store.last.no, dict(store.states("Thing"))) == (20, states)
    store.close()


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 3 * 512 * 1024 + 1])
def test_files_of_any_size_come_back(engine: Engine, app: str, tmp_path: Path, size: int) -> None:
    folder = made(tmp_path / "copy", os.urandom(size), zeros=bytes(size), empty=b"")
    owner = of(engine, app)
    owner.save(folder, commit=1, sequence=1)
    assert loaded(owner, owner.newest(), tmp_path / "back") == files(folder)


def test_servers_that_take_small_messages_only_get_small_parts(
    engine: Engine, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even the manifest is in parts then."""
    folder = made(tmp_path / "copy", os.urandom(1 << 20))
    owner = of(engine, app)
    monkeypatch.setattr(snapshots, "HEADERS_BYTES", (1 << 20) - 4096)
    owner.save(folder, commit=1, sequence=1)
    newest = owner.newest()
    assert newest is not None
    assert (newest.parts, newest.manifest_parts) == (257, 2)
    assert loaded(owner, newest, tmp_path / "back") == files(folder)
    purge(engine, names.snapshots_of(app), subject_of(app, newest, 258))
    with pytest.raises(StoreDamaged, match="part 258 is missing"):
        owner.load(newest, tmp_path / "gone")
    monkeypatch.setattr(snapshots, "HEADERS_BYTES", (1 << 20) - 4095)
    with pytest.raises(SkerryError, match="Set max_payload to"):
        owner.save(folder, commit=2, sequence=2)


def test_the_log_is_kept_from_the_snapshot_before_the_newest_on(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    owner = of(engine, app)
    assert (owner.newest(), owner.before(), owner.safe_sequence()) == (None, None, 0)
    safe = []
    for n in (1, 2, 3):
        owner.save(made(tmp_path / f"copy-{n}", b"%d" % n), commit=n, sequence=10 * n)
        safe.append(owner.safe_sequence())
    assert safe == [0, 10, 20]
    assert in_stream(engine, app) == counting(owner)
    assert loaded(owner, owner.newest(), tmp_path / "newest")["data.mdb"] == b"3"
    assert loaded(owner, owner.before(), tmp_path / "before")["data.mdb"] == b"2"


def test_shards_and_incarnations_do_not_touch_each_other(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    folder = made(tmp_path / "copy", b"content")
    others = [
        Snapshots(engine, app, INCARNATION, 11, 3),
        Snapshots(engine, app, "00" + INCARNATION[2:], SHARD, 3),
    ]
    for owner in [*others, of(engine, app)]:
        for n in (1, 2, 3):
            owner.save(folder, commit=n, sequence=n)
    for number, owner in enumerate(others):
        assert owner.safe_sequence() == 2
        assert loaded(owner, owner.newest(), tmp_path / f"back-{number}") == files(folder)


def test_a_shard_that_has_left_leaves_nothing_and_others_keep_theirs(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    folder = made(tmp_path / "copy", b"content")
    owner, other = of(engine, app), Snapshots(engine, app, INCARNATION, 11, 3)
    owner.remove()
    for each in (owner, other):
        each.save(folder, commit=1, sequence=1)
    for _ in range(2):  # Who removes it may be killed, and begin again.
        owner.remove()
        assert owner.newest() is None
        assert in_stream(engine, app) == set()
    assert loaded(other, other.newest(), tmp_path / "back") == files(folder)


def test_a_new_life_of_an_app_removes_what_all_shards_of_earlier_ones_have_left_and_nothing_else(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    folder = made(tmp_path / "copy", b"content")
    of(engine, app).remove_earlier()  # No shard has ever saved one.
    lives = ["00" + INCARNATION[2:], "11" + INCARNATION[2:]]
    earlier = [Snapshots(engine, app, life, shard, 3) for life in lives for shard in (0, 11)]
    ours = [of(engine, app), Snapshots(engine, app, INCARNATION, 11, 3)]
    for owner in [*earlier, *ours]:
        owner.save(folder, commit=1, sequence=1)
    ours[0].remove_earlier()
    left = engine.run(lambda client: uploads(client, ours[0].stream, ours[0].stream), ASK_S)
    assert left == {INCARNATION[:8]}
    for number, owner in enumerate(ours):
        assert loaded(owner, owner.newest(), tmp_path / f"back-{number}") == files(folder)


def test_an_owner_that_is_killed_at_any_step_leaves_the_old_snapshot_and_nothing_for_ever(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    """Both before a question is sent, and after it was answered to nobody."""
    owner = of(engine, app)
    owner.save(made(tmp_path / "first", b"0"), commit=1, sequence=1)
    folder = made(tmp_path / "copy", os.urandom(600_000))
    sequence, at, ended = 1, 0, False
    left: set[str] = set()
    while not ended:
        at += 1
        for moment in ("before", "after"):

            def die(n: int, at: int = at) -> None:
                if n == at:
                    raise Killed

            sequence += 1
            was = owner.newest()
            dying = of(Tapped(engine, **{moment: die}), app)
            try:
                dying.save(folder, commit=1, sequence=sequence)
                ended = True
            except Killed:
                pass
            now = owner.newest()
            assert now is not None
            assert now == was or now.sequence == sequence
            assert counting(owner) <= in_stream(engine, app)
            left |= in_stream(engine, app) - counting(owner)
            if now != was:
                assert loaded(owner, now, tmp_path / f"back-{sequence}") == files(folder)
    assert at > 8, "many steps were tried"
    assert left, "some were killed in the midst"
    owner.save(folder, commit=1, sequence=sequence + 1)
    assert in_stream(engine, app) == counting(owner)


def test_a_part_that_is_missing_or_another_is_named_and_the_snapshot_before_is_whole(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    owner = of(engine, app)
    old = made(tmp_path / "old", b"old")
    owner.save(old, commit=1, sequence=1)
    owner.save(made(tmp_path / "new", os.urandom(600_000)), commit=2, sequence=2)
    newest, stream = owner.newest(), names.snapshots_of(app)
    assert newest is not None
    assert (newest.parts, newest.manifest_parts) == (3, 1)
    for part in range(4):
        subject = subject_of(app, newest, part)
        whole = read(engine, stream, subject)
        put(engine, subject, b"another" + whole[7:])
        with pytest.raises(StoreDamaged, match=f"{newest.name} of shard 1 .*part {part}") as raised:
            owner.load(newest, tmp_path / "back")
        assert "do not match its digest" in str(raised.value)
        assert "Take the snapshot before it" in str(raised.value)
        purge(engine, stream, subject)
        with pytest.raises(StoreDamaged, match=f"{newest.name} of .*part {part} is missing"):
            owner.load(newest, tmp_path / "back")
        assert not (tmp_path / "back").exists(), "nothing of it can be used"
        put(engine, subject, whole)
    owner.load(newest, tmp_path / "mended")
    assert loaded(owner, owner.before(), tmp_path / "back") == files(old)


def test_a_host_begins_with_the_snapshot_before_when_the_newest_is_damaged(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    owner, stream, said = of(engine, app), names.snapshots_of(app), list[str]()
    label = Label(shard=SHARD, app=app)
    local.fetch(tmp_path / "shard", label, owner, said.append)
    writer = Writer(tmp_path / "shard")
    for n in (1, 2):
        writer.append([(f"key-{n}", b"1")])
        writer.settle()
        writer.store.keep(n)
        copied = writer.store.copy_kept(n, tmp_path / f"copy-{n}")()
        owner.save(tmp_path / f"copy-{n}", commit=copied.commit, sequence=n)
    writer.store.close()
    for n, pointer in ((2, owner.newest()), (1, owner.before())):
        local.fetch(tmp_path / f"host-{n}", label, owner, said.append)
        store = LmdbStore.open(tmp_path / f"host-{n}", shard=SHARD)
        assert store.last.no == n
        store.close()
        assert len(said) == 2 - n
        assert pointer is not None
        purge(engine, stream, subject_of(app, pointer, 0))
    assert "the snapshot before the newest is loaded" in said[0]
    with pytest.raises(StoreDamaged, match=r"part 0 is missing"):
        local.fetch(tmp_path / "host-0", label, owner, said.append)
    assert not (tmp_path / "host-0").exists()


def test_what_the_servers_lost_before_it_counts_never_counts(
    engine: Engine, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_S", 0.5)
    owner, stream = of(engine, app), names.snapshots_of(app)
    owner.save(made(tmp_path / "old", b"old"), commit=1, sequence=1)
    was = owner.newest()

    def lose(n: int) -> None:
        for name in in_stream(engine, app) - counting(owner):
            purge(engine, stream, f"{names.parts_of(app, INCARNATION, SHARD)}.{name}.1")

    losing = of(Tapped(engine, before=lose), app)
    with pytest.raises(StoreDamaged, match=r"shard 1: part 1 was acknowledged .* not there"):
        losing.save(made(tmp_path / "new", os.urandom(2_000_000)), commit=2, sequence=2)
    assert owner.newest() == was


def test_of_owners_that_race_the_later_snapshot_counts_and_is_whole(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    folders = {n: made(tmp_path / f"copy-{n}", os.urandom(1000)) for n in range(1, 25)}
    errors: list[BaseException] = []

    def save(n: int) -> None:
        try:
            of(engine, app).save(folders[n], commit=n, sequence=n)
        except BaseException as error:
            errors.append(error)

    for n in range(1, 25, 3):
        threads = [threading.Thread(target=save, args=(one,)) for one in (n + 2, n, n + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        owner = of(engine, app)
        newest = owner.newest()
        assert errors == []
        assert newest is not None
        assert newest.sequence == n + 2
        assert loaded(owner, newest, tmp_path / f"back-{n}") == files(folders[n + 2])
        assert counting(owner) <= in_stream(engine, app)


def test_an_older_owner_never_moves_the_pointer_back(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    """It resumes in front of each of its steps, when the newer one has saved twice."""
    at = 0
    while True:
        at += 1
        newer = of(engine, app)
        begin = 100 * at

        def overtake(n: int, at: int = at, begin: int = begin, newer: Snapshots = newer) -> None:
            if n == at:
                for sequence in (begin + 50, begin + 60):
                    folder = tmp_path / f"newer-{sequence}"
                    newer.save(made(folder, b"newer"), commit=2, sequence=sequence)

        tapped = Tapped(engine, before=overtake)
        of(tapped, app).save(made(tmp_path / f"older-{at}", b"older"), commit=1, sequence=begin)
        if tapped.asked < at:
            break
        newest, before = newer.newest(), newer.before()
        assert newest is not None
        assert before is not None
        assert (newest.sequence, before.sequence) == (begin + 60, begin + 50)
        assert loaded(newer, newest, tmp_path / f"back-{at}")["data.mdb"] == b"newer"
        newer.save(tmp_path / f"older-{at}", commit=2, sequence=begin + 70)
        assert in_stream(engine, app) == counting(newer)
    assert at > 8, "many steps were tried"


def test_an_older_owner_does_not_purge_what_a_newer_one_is_uploading(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    """In front of each of the newer one's steps, the older one saves."""
    older = of(engine, app)
    made(tmp_path / "older", b"older")
    folder = made(tmp_path / "newer", os.urandom(600_000))
    at = 0
    while True:
        at += 1
        begin = 100 * at

        def save(n: int, at: int = at, begin: int = begin) -> None:
            if n == at:
                older.save(tmp_path / "older", commit=1, sequence=begin - 1)

        tapped = Tapped(engine, before=save)
        of(tapped, app).save(folder, commit=2, sequence=begin)
        if tapped.asked < at:
            break
        newest = older.newest()
        assert newest is not None
        assert newest.sequence == begin
        assert loaded(older, newest, tmp_path / f"back-{at}") == files(folder)
    assert at > 8, "many steps were tried"


def test_a_pointer_that_moved_while_its_answer_was_lost_has_moved_once(
    engine: Engine, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer is lost once: what was asked is done all the same."""
    monkeypatch.setattr(asking, "PAUSE_S", 0.01)
    owner = of(engine, app)
    owner.save(made(tmp_path / "old", b"old"), commit=1, sequence=1)
    was = owner.newest()
    lost = of(Tapped(engine, after=_every_second_is_lost), app)
    lost.save(made(tmp_path / "new", os.urandom(600_000)), commit=2, sequence=2)
    assert owner.before() == was
    assert loaded(owner, owner.newest(), tmp_path / "back") == files(tmp_path / "new")
    assert in_stream(engine, app) == counting(owner)


def _every_second_is_lost(n: int) -> None:
    if n % 2:
        raise Away("lost")


def test_a_snapshot_that_was_purged_while_it_was_loaded_is_outdated_and_not_damaged(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    owner = of(engine, app)
    folder = made(tmp_path / "copy", b"content")
    owner.save(folder, commit=1, sequence=1)
    old = owner.newest()
    assert old is not None
    for n in (2, 3):
        owner.save(folder, commit=n, sequence=n)
    with pytest.raises(Outdated, match="Load the newest"):
        owner.load(old, tmp_path / "back")


def test_a_server_that_is_killed_in_the_midst_changes_nothing(
    nats: Servers, engine: Engine, app: str, tmp_path: Path
) -> None:
    """The one that leads, while a snapshot is uploaded, and another while it is downloaded."""
    owner = of(engine, app)
    owner.prepare()
    folder = made(tmp_path / "copy", os.urandom(8 << 20))

    def kill(n: int) -> None:
        if n == 12:
            nats.kill(nats.leader(names.snapshots_of(app)))

    of(Tapped(engine, before=kill), app).save(folder, commit=1, sequence=1)
    newest = owner.newest()
    assert newest is not None
    nats.heal()

    def kill_again(n: int) -> None:
        if n == 4:
            nats.kill(nats.leader(names.snapshots_of(app)))

    owner = of(Tapped(engine, before=kill_again), app)
    assert loaded(owner, newest, tmp_path / "back") == files(folder)


def test_servers_that_stay_away_are_not_waited_for_for_ever(
    nats: Servers, engine: Engine, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE_S", 1.0)
    owner = of(engine, app)
    folder = made(tmp_path / "copy", b"content")
    owner.save(folder, commit=1, sequence=1)
    newest = owner.newest()
    assert newest is not None
    for i in nats.indexes:
        nats.stop(i)
    with pytest.raises(Away):
        owner.save(folder, commit=2, sequence=2)
    with pytest.raises(Away):
        owner.load(newest, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    nats.heal()
    owner.save(folder, commit=2, sequence=2)
    assert loaded(owner, owner.newest(), tmp_path / "back") == files(folder)


def test_an_engine_that_is_closed_ends_an_upload_at_once(
    nats: Servers, app: str, tmp_path: Path
) -> None:
    engine = Engine(nats.servers, name="tests")

    def close(n: int) -> None:
        if n == 6:
            engine.close()

    tapped = Tapped(engine, before=close)
    with pytest.raises(Closed):
        of(tapped, app).save(made(tmp_path / "copy", os.urandom(4 << 20)), commit=1, sequence=1)
    assert tapped.asked == 6, "it does not ask again"


def test_a_stream_without_room_says_so_and_is_left_as_it_was(
    engine: Engine, app: str, tmp_path: Path
) -> None:
    owner, stream = of(engine, app), names.snapshots_of(app)
    owner.save(made(tmp_path / "old", b"old"), commit=1, sequence=1)
    was = owner.newest()
    _edit(engine, stream, max_bytes=2 << 20)
    large = made(tmp_path / "large", os.urandom(4 << 20))
    with pytest.raises(StoreFull, match="NATS has no room"):
        owner.save(large, commit=2, sequence=2)
    assert owner.newest() == was
    assert in_stream(engine, app) == counting(owner)
    _edit(engine, stream, max_bytes=-1)
    owner.save(large, commit=2, sequence=2)
    assert loaded(owner, owner.newest(), tmp_path / "back") == files(large)


def _edit(engine: Engine, stream: str, **changes: object) -> None:
    async def edit(client: Client) -> None:
        context = client.jetstream()
        config = (await context.stream_info(stream)).config
        await context.update_stream(config.evolve(**changes))

    engine.run(edit, ASK_S)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_replicas": 1}, r"num_replicas is 1\. Set it back: .* --replicas=3$"),
        ({"max_age": 3600}, r"max_age is 3600.*--max-age=0$"),
        ({"discard": "old"}, r"discard is old.*--discard=new$"),
        ({"max_msgs": 9}, r"max_msgs is 9.*--max-msgs=-1$"),
        ({"allow_direct": False}, r"allow_direct is .*--allow-direct$"),
    ],
)
def test_a_stream_that_was_edited_is_refused_with_what_mends_it(
    engine: Engine, app: str, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    owner = of(engine, app)
    folder = made(tmp_path / "copy", b"content")
    owner.save(folder, commit=1, sequence=1)
    newest = owner.newest()
    assert newest is not None
    _edit(engine, names.snapshots_of(app), **changes)
    for refused in (
        lambda: owner.save(folder, commit=2, sequence=2),
        lambda: owner.load(newest, tmp_path / "back"),
    ):
        with pytest.raises(StoreDamaged, match=says):
            refused()
    assert owner.newest() == newest


def test_what_was_removed_by_hand_is_named(engine: Engine, app: str, tmp_path: Path) -> None:
    owner, stream = of(engine, app), names.snapshots_of(app)
    owner.save(made(tmp_path / "copy", b"content"), commit=1, sequence=1)
    newest = owner.newest()
    assert newest is not None
    remove(engine, stream)
    with pytest.raises(StoreDamaged, match=f"{stream}: the stream is missing"):
        owner.load(newest, tmp_path / "back")
    bucket = names.of_app(app)
    key = f"$KV.{bucket}.{names.pointer_of(INCARNATION, SHARD)}"
    engine.run(lambda client: client.jetstream().publish(key, b'{"checksum"'), ASK_S)
    with pytest.raises(StoreDamaged, match=f"key snapshot.* of the bucket {bucket}.* is damaged"):
        owner.newest()
    engine.run(lambda client: client.jetstream().delete_key_value(bucket), ASK_S)
    with pytest.raises(StoreDamaged, match=f"bucket {bucket}.* is missing"):
        owner.newest()


class Near:
    """A client whose nearest server has not heard of a part, or has it damaged; the leader has it."""

    def __init__(self, near: RawStreamMsg | None) -> None:
        self._near = near

    def jetstream(self) -> Near:
        return self

    async def get_msg(self, stream: str, subject: str, direct: bool = False) -> RawStreamMsg:
        if not direct:
            return RawStreamMsg(data=b"whole")
        if self._near is None:
            raise NotFoundError
        return self._near


@pytest.mark.parametrize(
    "near",
    [None, RawStreamMsg(data=b"whale", headers={DIGEST: digest_of(b"whole").hex()})],
    ids=["missing", "damaged"],
)
def test_a_part_that_one_server_does_not_have_whole_comes_from_the_leader(
    near: RawStreamMsg | None,
) -> None:
    found = asyncio.run(payload_of(cast(Client, Near(near)), "stream", "subject"))
    assert found == b"whole"
