"""Deals the slots of a stopped app out to new shards, when its shards have lost commits.

With `--sync off` and a power cut, each shard has lost another number of commits, so they agree no
longer on the numbers of their frames. New shards begin their streams anew with what is there. Any
other change of the number of workers moves slots while the app serves: `scaler.py`.

Every row with a slot goes to the shard that owns the slot under the new placement. Messages in
outboxes that were not taken yet go to the new owners' own streams, in their old order. That keeps
the order per pair of entities: all that x had sent to y stood in one stream, and what x sends later
queues behind that.

Safe against a crash at any moment, since new shards have new ids and new folders. When all is
synced, the labels of the old stores say that they were dealt out; then app.json makes the new
stores members, and the old ones are removed.

Reads and writes stores while no worker runs. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from skerry.runtime.app import directory, membership, placer
from skerry.runtime.core import handover, wire
from skerry.runtime.core.commit import Chain, slot_in
from skerry.runtime.core.events import (
    SLOTTED,
    Row,
    StateGroup,
    Table,
)
from skerry.runtime.core.handover import Chunk
from skerry.runtime.core.ownership import slot_of, slots_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.progress import Copy, Progress, stored
from skerry.runtime.core.streams.inbound import Inbound, InboundRow
from skerry.runtime.core.streams.outbound import Outbound, OutboundRow, OutboxRow, outbox_key
from skerry.runtime.description import Description
from skerry.runtime.ports import Store
from skerry.runtime.store.label import Label
from skerry.runtime.store.store import LmdbStore

T = TypeVar("T")
ROWS_PER_COMMIT = 5000
BACKLOG_RECORDS = 32
_encode = msgspec.msgpack.Encoder().encode


def reshard(data: Path, app: Description, workers: int) -> Description:
    """Deal an app out to this many shards; return its new description, which is durable."""
    old = app.placement
    members = membership.free_ids(data, app, workers)
    placement = placer.after(old, members)
    moved = msgspec.structs.replace(app, placement=placement, generation=app.generation + 1)
    label = membership.label_of(moved)
    new = {shard: _created(data, shard, label) for shard in members}
    stores = {shard: LmdbStore.open(data / f"shard-{shard}", shard=shard) for shard in old.members}
    try:
        deal(stores, placement, new)
    finally:
        for store in stores.values():
            store.close()
    membership.dealt_out(data, app, placement.version)
    directory.replace(data, moved, generation=app.generation)
    membership.clear(data, moved)
    return moved


def _created(data: Path, shard: int, label: Label) -> LmdbStore:
    path = data / f"shard-{shard}"
    LmdbStore.create(path, shard=shard, label=label)
    return LmdbStore.open(path, shard=shard)


def deal(
    stores: Mapping[int, Store], placement: Placement, new_stores: Mapping[int, Store]
) -> None:
    """Fill the new stores with the contents of the old ones, and close them, durable."""
    time_ns = max(store.last.time_ns for store in stores.values())
    new = {shard: _NewShard(store, shard, time_ns) for shard, store in new_stores.items()}
    moves = {shard: stored(store, placement) for shard, store in stores.items()}
    holders = _holders(moves)
    held = {shard: _Held(shard, holders, moves[shard].taken) for shard in stores}
    for shard, store in stores.items():
        _deal_states(store, held[shard], placement, new)
        _deal_rows(store, held[shard], placement, new)
    # A shard's own stream holds what was dealt or released to it, which comes before what its peers
    # have sent since. For a slot on its way, what its old owner had not run yet comes first, then
    # what its new owner has parked, then what is still under way to that (I2).
    takers = _takers(moves)
    pairs = sorted(product(stores, stores), key=lambda ends: ends[0] != ends[1])
    late = [ends for ends in pairs if ends[1] in takers and ends[0] != ends[1]]
    for sender, receiver in (ends for ends in pairs if ends not in late):
        _deal_frames(stores, sender, receiver, held[receiver], placement, new)
    for store in stores.values():
        for key, value in store.scan(Table.PARKED):
            owner = placement.slots[slot_in(key)]
            new[owner].waiting += wire.decode_runs(value)
    for sender, receiver in late:
        _deal_frames(stores, sender, receiver, held[receiver], placement, new)
    for made in new.values():
        made.finish()


def _takers(moves: Mapping[int, Progress]) -> set[int]:
    """The shards that slots are on their way to, also by a version that they have not heard of yet."""
    newest = max((progress.placement for progress in moves.values()), key=lambda each: each.version)
    takers = {shard for shard, progress in moves.items() if progress.arriving}
    for progress in moves.values():
        both = zip(progress.placement.slots, newest.slots)
        takers |= {new for old, new in both if old != new}
    return takers


def _holders(moves: Mapping[int, Progress]) -> dict[int, int]:
    """The shard that has the rows of each slot; another may have a copy that is not whole, or is old.

    A slot that was lost between two shards has none: then what is left of it anywhere counts."""
    found: dict[int, int] = {}
    for shard, progress in moves.items():
        found |= dict.fromkeys(progress.arriving, shard)
    for shard, progress in sorted(moves.items(), key=lambda each: each[1].placement.version):
        found |= dict.fromkeys(progress.ownership(shard).served.union(progress.stopped), shard)
    return found


class _Held(NamedTuple):
    """The slots whose rows in a store count."""

    shard: int
    holders: dict[int, int]
    taken: dict[int, Copy]
    """The copies in the store."""

    def __contains__(self, slot: object) -> bool:
        assert isinstance(slot, int), "a slot is a number"
        return self.holders.get(slot, self.shard) == self.shard

    def takes(self, slot: int, chunk: Chunk) -> bool:
        """Whether a chunk that has not come yet counts, too: else its owner has all the rows, or the
        copy was given up."""
        copy = self.taken.get(slot)
        return slot in self and copy is not None and copy.since == chunk.since


class _NewShard:
    """A new store, filled by ordinary commits."""

    def __init__(self, store: Store, shard: int, time_ns: int) -> None:
        self.shard, self._time_ns = shard, time_ns
        self._store = store
        self._chain = Chain(epoch=0, no=0, checksum=0)
        self.waiting: list[wire.Run] = []

    def append(self, states: list[StateGroup], rows: list[Row]) -> None:
        """Append a commit."""
        commit = self._chain.seal(self._time_ns, states, rows)
        self._store.append(commit)
        while commit.no - self._store.durable() > BACKLOG_RECORDS:
            time.sleep(0.001)  # Only the disk is at work.

    def finish(self) -> None:
        """Append the waiting messages as frames of the shard's own stream, and sync everything."""
        rows: list[Row] = []
        position = seq = 0
        for body, count in wire.bodies(self.waiting):
            seq += 1
            position += len(body)
            checksum = wire.frame_checksum(self.shard, self.shard, seq, count, body)
            row = OutboxRow(position, count, checksum, body)
            rows.append((Table.OUTBOX, outbox_key(self.shard, seq), _encode(row)))
        if rows:
            stream = OutboundRow(seq, position)
            rows.append((Table.STREAM, Outbound.row_key(self.shard), _encode(stream)))
            self.append([], rows)
        self._store.close()


def _pages(rows: Iterator[T]) -> Iterator[list[T]]:
    while page := list(islice(rows, ROWS_PER_COMMIT)):
        yield page


def _deal_states(
    store: Store, held: _Held, placement: Placement, new: dict[int, _NewShard]
) -> None:
    described = [msgspec.json.decode(value) for _, value in store.scan(Table.SCHEMA)]
    for name in sorted({known["type"] for known in described if "fields" in known}):
        for page in _pages(store.states(name)):
            dealt: dict[int, list[tuple[str, bytes]]] = {}
            for key, state in page:
                slot = slot_of(name, key)
                if slot in held:
                    dealt.setdefault(placement.slots[slot], []).append((key, state))
            for owner, states in dealt.items():
                new[owner].append([StateGroup.of(name, states)], [])


def _deal_rows(store: Store, held: _Held, placement: Placement, new: dict[int, _NewShard]) -> None:
    for table in sorted(SLOTTED - {Table.STATE}):
        for page in _pages(store.scan(table)):
            dealt: dict[int, list[Row]] = {}
            for key, value in page:
                slot = slot_in(key)
                if slot in held:
                    dealt.setdefault(placement.slots[slot], []).append((table, key, value))
            for owner, rows in dealt.items():
                new[owner].append([], rows)
    schemas: list[Row] = [(Table.SCHEMA, key, value) for key, value in store.scan(Table.SCHEMA)]
    for shard in new.values():
        shard.append([], schemas)


def _deal_frames(
    stores: Mapping[int, Store],
    sender: int,
    receiver: int,
    held: _Held,
    placement: Placement,
    new: dict[int, _NewShard],
) -> None:
    """Hand the messages that an old stream still held to the new owners of their targets, in order."""
    row = stores[receiver].read(Table.STREAM, Inbound.row_key(sender))
    known = InboundRow() if row is None else msgspec.msgpack.decode(row, type=InboundRow)
    prefix = receiver.to_bytes(4, "big")
    for key, value in stores[sender].scan(Table.OUTBOX, prefix):
        seq = int.from_bytes(key[4:], "big")
        if seq <= known.taken:
            continue
        runs = wire.decode_runs(msgspec.msgpack.decode(value, type=OutboxRow).body)
        if known.begun and seq == known.taken + 1:
            _, runs = wire.halves(runs, known.begun)
        for run in runs:
            if run.call == wire.Call.MARK:
                continue
            if run.call == wire.Call.CHUNK:
                for slot, body in run.extras or ():
                    chunk = handover.chunk_of(body)
                    if held.takes(slot, chunk):
                        rows = handover.groups(chunk.rows), handover.others(chunk.rows)
                        new[placement.slots[slot]].append(*rows)
                continue
            owners = [placement.slots[slot] for slot in slots_of(run.type, run.keys)]
            for owner, own in wire.dealt(run, owners).items():
                new[owner].waiting.append(own)
