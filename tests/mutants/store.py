"""Bugs of the store: its memtable, its log, its tree, and what is kept for a backup."""

import os
import stat
from itertools import chain
from unittest.mock import ANY, patch

from msgspec.structs import replace

from skerry.runtime.store import sealed_file, segment, tree
from tests.mutants.bugs import bug


def os_of(function):
    """What a function knows as `os`; tests put a disk there that forgets what was not synced."""
    return function.__globals__["os"]


# The memtable.


@bug(
    "what was sealed during a checkpoint goes with it",
    "store.memtable:Memtable.drop_frozen",
)
def _(drop_frozen, self):
    drop_frozen(self)
    self.active = type(self.active)(1)


@bug(
    "a layer of the memtable has numbers that the one below it has",
    "store.memtable:Memtable.freeze",
)
def _(freeze, self):
    frozen = freeze(self)
    self.active = type(self.active)(1)
    return frozen


@bug(
    "a number that a known key was offered is given away in the next layer",
    "store.memtable:States.end",
)
def _(end, self):
    return self._first + len(self._numbers)


@bug("of one key's states in the memtable an older one wins", "store.memtable:States.add")
def _(add, self, changed, live):
    before = list(self._entries)
    add(self, changed, live)
    for place, (old, new) in enumerate(zip(before, self._entries)):
        if old is not None and new is not None:
            self._entries[place] = old


@bug("states taken apart win over newer ones", "store.memtable:States.take_apart")
def _(take_apart, self, group):
    for number in group.numbers:
        if self._entries[number - self._first] is not None:
            self._entries[number - self._first] = group
    take_apart(self, group)


@bug("a key that waits to be dealt to its slot is forgotten", "store.memtable:Slots._deal")
def _(deal, self):
    del self._new[-1:]
    deal(self)


@bug("the tree is marked as covering what was not carried", "store.checkpoint:Slices.take")
def _(take, self, rows):
    carried = take(self, rows)
    return None if take(self, 1) is None else carried


@bug("a memtable entry goes before the reader is renewed", "store.rows:Rows.renew")
def _(renew, self):
    pass


# Scans.


@bug(
    "a page of a scan begins with the last key of the one before, above the tree",
    "store.memtable:Slots.after",
)
def _(after_, self, slot, prefix, after):
    again = after and after in self.keys(slot) and after.startswith(prefix)
    return chain([after] if again else [], after_(self, slot, prefix, after))


@bug("a page of a scan lacks what was written since the one before", "store.memtable:Slots.keys")
def _(keys, self, slot):
    self._deal()
    self._unsorted.discard(slot)
    return keys(self, slot)


@bug(
    "a page of a scan begins with the last key of the one before, in the tree",
    "store.rows:Rows._rows_at",
)
def _(rows_at, self, cursor, prefix, after):
    if after and after.startswith(prefix) and cursor.set_key(after):
        yield after, tree.unseal(after, cursor.value(), self._files.path)
    yield from rows_at(self, cursor, prefix, after)


@bug("a deletion does not hide the row in the tree", "store.rows:_newest")
def _(newest, newer, tree):
    return newest((entry for entry in newer if entry[2] is not None), tree)


# The tree.


@bug("a row's checksum is not looked at", "store.tree:unseal")
def _(unseal, key, stored, path):
    return bytes(stored[tree._SIZE :])


@bug("a slot's fingerprint counts what was written over", "store.tree:note")
def _(note, txn, slots, slot, old, new, path):
    note(txn, slots, slot, [bytes(tree._SIZE)] * len(old), new, path)


@bug("rows that belong to no slot may vanish from the tree", "store.tree:verify")
def _(verify, txn, rows, slots, path, met=lambda key, value: None):
    with patch.object(tree, "SLOTS", tree.SLOTS - 1):
        yield from verify(txn, rows, slots, path, met)


@bug("a small store is opened unread", "store.environment:Environment.verify_small")
def _(verify_small, self):
    pass


# The log.


@bug("the log is trimmed when its checkpoint has only begun", "store.segments:Segments.roll")
def _(roll, self):
    roll(self)
    self.trim()


@bug(
    "a checkpoint begins before all that it carries is synced",
    "store.segments:Segments.prepare_roll",
)
def _(prepare_roll, self):
    with patch.object(self, "_unsynced", False):
        return prepare_roll(self)


@bug(
    "what a killed process left in the page cache is built on without a sync",
    "store.segments:Segments.resume",
)
def _(resume, self):
    with patch.object(os_of(resume), "fsync", lambda fd: None):
        resume(self)


@bug("the mark is ahead of the sync", "store.segments:Segments.append")
def _(append, self, waiting, *, sync):
    append(self, waiting, sync=sync)
    if not sync:
        self._mark()


@bug("both marks are written at one place", "store.segments:Segments._mark")
def _(mark, self):
    with patch.object(segment, "MARKS_AT", segment.MARKS_AT[:1] * 2):
        mark(self)


@bug("a log that the tree knows nothing of is thrown away", "store.segments:Segments.__init__")
def _(init, self, folder, *, shard, token, before):
    newest = int.from_bytes(token, "little")
    for path in folder.glob(segment.NAMES):
        if path.name > segment.name_of(newest):
            path.unlink()
    init(self, folder, shard=shard, token=token, before=before)


@bug(
    "the log of another life of the shard is taken for its own", "store.segments:Segments.__init__"
)
def _(init, self, folder, *, shard, token, before):
    oldest = folder / segment.name_of(before[0] + 1)
    if oldest.exists():
        before = before[0], segment.Segment.open(oldest, shard=shard).before.checksum
    init(self, folder, shard=shard, token=token, before=before)


@bug("the log is cut off at a bad record", "store.segment:Segment.records")
def _(records, self, due):
    return records(self, 0)


@bug("a record need not follow the one before it in its file", "store.segment:_next")
def _(next_record, file, at, size):
    decoded, end = next_record(file, at, size)
    return replace(decoded, previous=ANY), end


@bug("a file of the log need not follow the one before it", "store.segments:Segments.replay")
def _(replay, self):
    loose = [
        replace(each, before=replace(each.before, checksum=ANY, epoch=ANY, time_ns=ANY))
        for each in self._segments
    ]
    with patch.object(self, "_segments", loose):
        yield from replay(self)


@bug("a write that took less is a write", "store.disk:write_all")
def _(write_all, fd, data, at, flags=0):
    os_of(write_all).pwritev(fd, [data], at, flags)


@bug("--sync 10ms does not sync", "store.committer:Committer._write")
def _(write, self, records):
    with patch.object(self, "_sync", "off" if self._sync == "10ms" else self._sync):
        write(self, records)


@bug("--sync commit does not sync", "store.committer:Committer._write")
def _(write, self, records):
    with patch.object(self, "_sync", "off" if self._sync == "commit" else self._sync):
        write(self, records)


# What is kept for a backup.


@bug("the store keeps for a backup what it kept for the one before", "store.store:LmdbStore.keep")
def _(keep, self, no):
    if self._kept is None:
        keep(self, no)
    else:
        self._kept = replace(self._kept, no=no)


@bug(
    "a backup that comes late takes away what a newer one keeps",
    "store.store:LmdbStore.copy_kept",
)
def _(copy_kept, self, no, folder):
    try:
        return copy_kept(self, no, folder)
    finally:
        self._kept = None


# Small files.


@bug("a small file gets its name before it is synced", "store.sealed_file:write")
def _(write, path, data):
    fsync = os_of(write).fsync

    def of_folders(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            fsync(fd)

    with patch.object(os_of(write), "fsync", of_folders):
        write(path, data)


@bug("the checksum of a small file is not compared", "store.sealed_file:decoded")
def _(decoded, raw, type):
    return decoded(sealed_file._sealed(raw[sealed_file._HEAD_BYTES :]), type)


@bug("rows of slots on their way are damage", "core.progress:Progress.away")
def _(away, self):
    return set()
