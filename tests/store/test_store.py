"""The store against a plain dict: what was appended is there, across sweeps, reopening and damage."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import lmdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.errors import SkerryError, StoreDamaged, StoreLocked
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Commit, CommitNo, Row, StateGroup, Table
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.core.stored import schema_id_of
from skerry.runtime.store.check import check
from skerry.runtime.store.checkpoint import STEP_ROWS, Slices
from skerry.runtime.store.environment import TABLES
from skerry.runtime.store.memtable import Memtable, tree_key
from skerry.runtime.store.store import LmdbStore
from skerry.runtime.store.tree import sealed, slot_of_row

Change = tuple[str, bytes | None]


class Writer:
    """Appends commits as a shard would."""

    def __init__(
        self,
        path: Path,
        *,
        memtable_bytes: int = 1 << 30,
        log_bytes: int = 1 << 30,
        quota_bytes: int = 1 << 40,
    ) -> None:
        self.woken = threading.Event()
        self.store = LmdbStore.open(
            path,
            shard=1,
            memtable_bytes=memtable_bytes,
            log_bytes=log_bytes,
            quota_bytes=quota_bytes,
            wake=self.woken.set,
        )
        self.no, self.checksum = self.store.last.no, self.store.last.checksum

    def append(self, changes: list[Change]) -> None:
        """One commit of states and rows."""
        group = StateGroup.of("Thing", changes)
        rows = [(Table.DEAD, b"\0\1" + key.encode(), value) for key, value in changes]
        self._append([group], rows)

    def append_row(self, row: Row) -> None:
        """One commit of a row."""
        self._append([], [row])

    def _append(self, groups: list[StateGroup], rows: list[Row]) -> None:
        self.no += 1
        record = records.encode(self.no, 1, self.no, self.checksum, groups, rows)
        self.checksum = records.checksum_of(record)
        self.store.append(Commit(CommitNo(self.no), record, groups, rows))

    def settle(self) -> None:
        """Until all is durable."""
        while self.store.durable() < self.no:
            self.woken.wait(1)
            self.woken.clear()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A new store."""
    LmdbStore.create(tmp_path / "shard-1", shard=1)
    yield tmp_path / "shard-1"


def holds(store: LmdbStore, model: dict[str, bytes]) -> None:
    """The store says what the model says, however it is asked."""
    assert dict(store.states("Thing")) == model
    assert dict(store.scan(Table.DEAD)) == {b"\0\1" + k.encode(): v for k, v in model.items()}
    for key in [*model, "never"]:
        assert store.state("Thing", key) == model.get(key)
        assert store.read(Table.DEAD, b"\0\1" + key.encode()) == model.get(key)


def test_what_a_sweep_has_carried_down_is_read_from_the_tree(path: Path) -> None:
    writer, model, waiting = Writer(path, log_bytes=1), {}, []
    for number in range(20):
        model[f"key-{number % 7}"] = encode(number)
        writer.append([(f"key-{number % 7}", encode(number))])
        writer.settle()
        holds(writer.store, model)
        waiting.append(len(writer.store.memtable))
    assert min(waiting[7:]) < 14, "nothing was carried down"
    writer.store.close()


encode = msgspec.msgpack.encode
KEYS = st.sampled_from([f"key-{n}" for n in range(30)])
COMMITS = st.lists(
    st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=60).map(encode)), min_size=1),
    max_size=25,
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(commits=COMMITS, reopen=st.sets(st.integers(0, 25)), log_bytes=st.sampled_from([1, 1 << 30]))
def test_a_store_equals_a_dict_over_any_commits_sweeps_and_reopenings(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[dict[str, bytes | None]],
    reopen: set[int],
    log_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("store") / "shard-1"
    LmdbStore.create(path, shard=1)
    writer, model = Writer(path, log_bytes=log_bytes), {}
    for number, changes in enumerate(commits):
        writer.append(list(changes.items()))
        for key, value in changes.items():
            model.pop(key, None)
            if value is not None:
                model[key] = value
        if number in reopen:
            writer.store.close()
            writer = Writer(path, log_bytes=log_bytes)
        holds(writer.store, model)
    writer.settle()
    holds(writer.store, model)
    writer.store.close()
    assert list(check(path, shard=1)) == []
    again = Writer(path)
    holds(again.store, model)
    again.store.close()


def test_what_is_deleted_near_the_quota_makes_room_while_nothing_else_is_written(
    path: Path,
) -> None:
    """As dead letters that are dropped: a row and a commit each, far less than fills a log."""
    writer, no, pressed = Writer(path, quota_bytes=16 << 20, log_bytes=1 << 19), 0, 0
    while pressed < 8:  # It is well above its bound, and not for what a log still holds.
        writer.append([(f"key-{no}", encode(bytes(100_000)))])
        writer.settle()
        no, pressed = no + 1, pressed + writer.store.nearly_full
    for number in range(no // 2):
        writer.append([(f"key-{number}", None)])
        writer.settle()
    assert not writer.store.nearly_full
    holds(writer.store, {f"key-{n}": encode(bytes(100_000)) for n in range(no // 2, no)})
    writer.store.close()


def test_memory_stays_bounded_with_more_entities_than_fit(path: Path) -> None:
    writer = Writer(path, memtable_bytes=400 * 1000)
    for start in range(0, 20_000, 500):
        writer.append([(f"key-{n}", encode("x" * 20)) for n in range(start, start + 500)])
        writer.store.durable()
    writer.settle()
    assert len(writer.store.memtable) < 20_000
    assert sum(1 for _ in writer.store.states("Thing")) == 20_000
    writer.store.close()


def test_a_sweep_of_many_steps_carries_each_row_once_in_the_order_of_the_tree() -> None:
    layer = Memtable()
    model: dict[str, bytes | None] = {f"key-{n}": encode(n) for n in range(3 * STEP_ROWS)}
    model |= {f"key-{n}": None for n in range(0, len(model), 7)}
    groups = [StateGroup.of(name, list(model.items())) for name in ("Thing", "Other")]
    rows = [(Table.DEAD, key.encode(), value) for key, value in model.items()]
    layer.add(groups, rows)
    slices, taken = Slices(layer.freeze()), []
    while (carried := slices.take(100)) is not None:
        for chunk in carried:
            taken += zip(chunk.keys, chunk.values, strict=True)
            assert {slot_of_row(key) for key in chunk.keys} == {chunk.slot}
    assert [key for key, _ in taken] == sorted(key for key, _ in taken)
    expected = {tree_key(Table.DEAD, key): value for _, key, value in rows}
    for name in ("Thing", "Other"):
        named = list(model)
        keys = records.state_keys(name, named, slots_of(name, named))
        expected |= {
            tree_key(Table.STATE, key): model[own] for key, own in zip(keys, named, strict=True)
        }
    assert len(taken) == len(expected)
    assert {k: None if v is None else bytes(v) for k, v in taken} == expected


def test_a_second_owner_is_refused(path: Path) -> None:
    writer = Writer(path)
    with pytest.raises(StoreLocked, match="in use by process"):
        LmdbStore.open(path, shard=1)
    writer.store.close()


def test_a_missing_foreign_or_swapped_store_is_named(path: Path) -> None:
    with pytest.raises(StoreDamaged, match="missing"):
        LmdbStore.open(path.parent / "shard-9", shard=9)
    with pytest.raises(StoreDamaged, match="belongs to shard 1"):
        LmdbStore.open(path, shard=2)
    (path / "data.mdb").write_bytes(b"no store at all" * 1000)
    with pytest.raises(StoreDamaged, match="cannot open"):
        LmdbStore.open(path, shard=1)


def test_a_fingerprint_of_another_length_is_named(path: Path) -> None:
    writer = Writer(path, log_bytes=1)
    for number in range(40):
        writer.append([(f"key-{number}", encode(number))])
        writer.settle()
    writer.store.close()
    assert not list(check(path, shard=1))
    with lmdb.open(str(path), max_dbs=3) as env, env.begin(write=True) as txn:
        slots = env.open_db(b"slots", txn=txn)
        slot, _ = next(txn.cursor(db=slots).iternext())
        txn.put(slot, b"short", db=slots)
    [said] = check(path, shard=1)
    number = int.from_bytes(slot, "big")
    assert f"The fingerprint of slot {number} of {path} has 5 bytes, not 16" in said


@pytest.mark.parametrize("table", [Table.STATE, Table.DEAD], ids=["state", "row"])
def test_a_row_that_vanished_from_a_small_store_is_noticed_when_it_is_opened(
    path: Path, table: int
) -> None:
    """No checksum of another row can tell, and who reads it takes it for one that never was."""
    writer = Writer(path, log_bytes=1)
    for number in range(40):
        writer.append([(f"key-{number}", encode(number))])
        writer.settle()
    writer.store.close()
    with lmdb.open(str(path), max_dbs=3) as env, env.begin(write=True) as txn:
        rows = env.open_db(b"rows", txn=txn)
        of_table = [key for key, _ in txn.cursor(db=rows) if key[0] == table]
        txn.delete(of_table[3], db=rows)
        slot = slot_of_row(of_table[3])
    with pytest.raises(StoreDamaged, match=f"Slot {slot} of .* rows vanished"):
        LmdbStore.open(path, shard=1)


HOUSE = (Table.SCHEMA, Table.OUTBOX, Table.STREAM, Table.META)


@pytest.mark.parametrize("table", [Table.DEAD, Table.REQUEST, *HOUSE])
@pytest.mark.parametrize("older", [True, False])
def test_a_row_that_vanished_from_the_tree_or_is_an_older_one_is_named(
    path: Path, table: int, older: bool
) -> None:
    """No row says so itself: whoever looks for it finds none, or one with a right checksum."""
    writer = Writer(path, log_bytes=1)
    for number in range(6):
        for key in (b"\0\1one", b"\0\1two"):
            writer.append_row((table, key, encode(number)))
            writer.settle()
    writer.store.close()
    assert not list(check(path, shard=1))
    with lmdb.open(str(path), max_dbs=3) as env, env.begin(write=True) as txn:
        rows = env.open_db(b"rows", txn=txn)
        victim = tree_key(table, b"\0\1one")
        assert txn.get(victim, db=rows) is not None, "it has been carried down"
        txn.delete(victim, db=rows)
        if older:
            txn.put(victim, sealed([victim], [encode(-1)])[0], db=rows)
    (said,) = check(path, shard=1)
    assert "rows vanished" in said
    with pytest.raises(StoreDamaged, match="rows vanished"):
        LmdbStore.open(path, shard=1)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_found_or_harmless_never_a_wrong_state(path: Path, seed: int) -> None:
    """Flips in states and records; those in LMDB's unused bytes change nothing."""
    rng = random.Random(seed)
    writer = Writer(path, log_bytes=1 if seed % 2 else 1 << 30)
    model = {}
    for number in range(40):
        changes = [(f"key-{n}", encode(rng.randbytes(30))) for n in range(number, number + 20)]
        writer.append(list(changes))
        model |= dict(changes)
    writer.store.close()
    victim = rng.choice(list(model.values()))
    for file in (path / "data.mdb", *path.glob("log-*")):
        stored = bytearray(file.read_bytes())
        at = stored.find(victim)
        while at >= 0:
            stored[at + rng.randrange(len(victim))] ^= 1 << rng.randrange(8)
            at = stored.find(victim)
        file.write_bytes(bytes(stored))
    assert list(check(path, shard=1))
    try:
        damaged = LmdbStore.open(path, shard=1)
    except StoreDamaged:
        return
    for key, value in model.items():
        try:
            assert damaged.state("Thing", key) == value
        except StoreDamaged as damage:
            assert "does not match its checksum" in str(damage)
    damaged.close()


def test_what_is_kept_for_a_backup_is_all_that_was_durable_and_nothing_later(path: Path) -> None:
    writer = Writer(path)
    writer.append([("a", b"1")])
    writer.settle()
    writer.store.keep(7)
    writer.append([("a", b"2")])
    writer.settle()
    writer.store.keep(8)  # Of a newer backup: its own moment, not the one before.
    writer.append([("a", b"3")])
    writer.settle()
    with pytest.raises(SkerryError, match="keeps nothing for this backup"):
        writer.store.copy_kept(7, path.parent / "late")
    copied = writer.store.copy_kept(8, path.parent / "copy")()
    writer.store.close()
    assert copied.commit == 2
    assert list(check(path.parent / "copy", shard=1)) == []
    copy = LmdbStore.open(path.parent / "copy", shard=1)
    assert copy.state("Thing", "a") == b"2"
    copy.close()


def test_a_copy_that_has_no_place_does_not_call_the_store_damaged(path: Path) -> None:
    writer = Writer(path)
    writer.append([("a", b"1")])
    writer.settle()
    writer.store.keep(7)
    gone = path.parent / "gone" / "copy"
    with pytest.raises(SkerryError, match=str(gone)) as raised:
        writer.store.copy_kept(7, gone)()
    assert not isinstance(raised.value, StoreDamaged)
    assert not gone.parent.exists(), "who gave up has removed it"
    writer.store.close()
    assert list(check(path, shard=1)) == []


def test_a_state_deeper_than_any_decoder_goes_keeps_nobody_from_the_rest(path: Path) -> None:
    """Of a release that had no limit: the store opens, before and after a sweep, and is clean."""
    deep = msgspec.msgpack.encode([1, 0])[:-1] + b"\x91" * 5000 + b"\x01"
    for _ in range(2):
        writer = Writer(path, log_bytes=1)
        writer.append([("deep", deep), ("fine", encode(1))])
        writer.settle()
        writer.store.close()
        assert list(check(path, shard=1)) == []
        reopened = Writer(path)
        assert reopened.store.state("Thing", "fine") == encode(1)
        assert reopened.store.state("Thing", "deep") == deep
        assert schema_id_of(deep) == 1
        reopened.store.close()


@given(id=st.integers(0, 2**63 - 1), fields=st.lists(st.integers(), max_size=40))
def test_a_state_names_its_schema_without_being_decoded(id: int, fields: list[int]) -> None:
    in_range = [n for n in fields if -(2**63) <= n < 2**64]
    assert schema_id_of(msgspec.msgpack.encode([id, *in_range])) == id


def test_the_pages_of_a_scan_beside_writes_show_each_key_once(path: Path) -> None:
    """Keys in the tree, in the overlay and in both; others come, go and change between pages."""
    writer, stay = Writer(path, log_bytes=1), {}
    for number in range(12):
        key = f"stays-{number}"
        stay[key] = encode(number)
        writer.append([(key, encode(number)), (f"goes-{number}", encode(number))])
        writer.settle()
    pages, after = list[list[tuple[str, bytes]]](), ""
    while page := list(islice(writer.store.states("Thing", "", after), 2)):
        pages.append(page)
        after = page[-1][0]
        number = len(pages)
        writer.append(
            [(f"comes-{number}", encode(0)), (f"goes-{number}", None), (after, encode(9))]
        )
        assert number < 40, "a scan that does not end"
    keys = [key for page in pages for key, _ in page]
    assert len(keys) == len(set(keys))
    assert stay.keys() <= set(keys)
    writer.store.close()


@pytest.mark.parametrize("table", TABLES)
def test_a_flip_in_the_name_of_a_table_is_damage_and_not_an_empty_table(
    path: Path, table: bytes
) -> None:
    writer = Writer(path, log_bytes=1)
    for number in range(20):
        writer.append([(f"key-{number}", encode(number))])
        writer.settle()
    writer.store.close()
    tree = path / "data.mdb"
    before = tree.read_bytes()
    for bit in range(8 * len(table)):
        flipped = bytearray(table)
        flipped[bit // 8] ^= 1 << bit % 8
        tree.write_bytes(before.replace(table, bytes(flipped)))
        assert list(check(path, shard=1)), f"{table!r} as {bytes(flipped)!r} is named"
        with pytest.raises(StoreDamaged, match="backup"):
            LmdbStore.open(path, shard=1)
