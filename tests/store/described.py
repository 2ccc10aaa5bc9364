"""An app's data directory, made without running the app: states in each shard, messages under way."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Raw

from skerry.runtime.app import directory, membership
from skerry.runtime.core import commit as records
from skerry.runtime.core import wire
from skerry.runtime.core.events import Commit, CommitNo, Row, StateGroup, Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.streams.outbound import Outbound, OutboundRow, OutboxRow, outbox_key
from skerry.runtime.description import Description
from skerry.runtime.store.store import LmdbStore

KEYS = [f"k{n}" for n in range(40)]
UNDER_WAY = [f"m{n}" for n in range(12)]
_encode = msgspec.msgpack.encode


def make(data: Path, *, workers: int = 2) -> Description:
    """An app that has run once."""
    app = membership.create(data, app="described", workers=workers)
    for shard in app.placement.members:
        own = [key for key in KEYS if app.placement.slots[slot_of("Thing", key)] == shard]
        keys = [key for key in UNDER_WAY if app.placement.slots[slot_of("Thing", key)] == shard]
        append(data, shard, own, [], keys)
    membership.enlist(data, app)
    return app


def append(data: Path, shard: int, own: list[str], rows: list[Row], messages: list[str]) -> None:
    """A commit: states of these keys, rows, and a frame for the shard itself with messages."""
    store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
    if messages:
        run = wire.Run(0, "Thing", 1, 0, messages, wire.NO_COLUMNS, [Raw(b"\x90")] * len(messages))
        body = wire.encode_runs([run])
        frame = OutboxRow(
            len(body),
            len(messages),
            wire.frame_checksum(shard, shard, 1, len(messages), body),
            body,
        )
        rows = [
            *rows,
            (Table.OUTBOX, outbox_key(shard, 1), _encode(frame)),
            (Table.STREAM, Outbound.row_key(shard), _encode(OutboundRow(1, len(body)))),
        ]
    schema = _encode(1)
    rows = [*rows, (Table.SCHEMA, schema, msgspec.json.encode({"type": "Thing", "fields": []}))]
    states = [StateGroup.of("Thing", [(key, _encode(["of", key])) for key in own])]
    no = store.last.no + 1
    record = records.encode(no, 1, no, store.last.checksum, states, rows)
    store.append(Commit(CommitNo(no), record, states, rows))
    store.close()


def held(data: Path) -> tuple[list[str], list[str]]:
    """(keys with a state, keys of messages under way) in a whole app that nobody runs."""
    app = membership.described(data)
    for shard in app.placement.members:
        assert membership.damages(data, app, shard) == []
    return contents(data, app)


def contents(data: Path, app: Description) -> tuple[list[str], list[str]]:
    """The same of its members, whatever else is wrong with it."""
    keys: list[str] = []
    waiting: list[str] = []
    for shard in app.placement.members:
        store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
        keys += [key for key, _ in store.states("Thing")]
        for _, row in store.scan(Table.OUTBOX):
            for run in wire.decode_runs(msgspec.msgpack.decode(row, type=OutboxRow).body):
                waiting += run.keys
        store.close()
    return sorted(keys), sorted(waiting)


ALL = sorted(KEYS), sorted(UNDER_WAY)


def files(data: Path) -> dict[str, bytes]:
    """What a folder holds, but for locks."""
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and path.name not in {"lock", "lock.mdb"}
    }


def change(data: Path, **changes: object) -> None:
    """Write the description anew, otherwise as it was, with the right checksum."""
    app = directory.load(data)
    assert app is not None
    directory.save(data, msgspec.structs.replace(app, **changes))
