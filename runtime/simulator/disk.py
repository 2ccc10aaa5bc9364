"""A simulated disk: keeps what was synced, and forgets the rest on a crash.

It holds the records of the real core and replays them as the real store does; what it
leaves out is the B-tree, so that a crash is one line. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import Decoded, state_key
from skerry.runtime.core.events import Commit, Row
from skerry.runtime.core.ownership import slot_of, slots_of
from skerry.runtime.ports import EVERY_SLOT, Last


class MemoryStore:
    """The store of a simulated shard; see `runtime/ports.py` for its promises."""

    def __init__(self) -> None:
        self.last = Last()
        self.kept: tuple[int, list[bytes]] = 0, []
        """The number of the newest cut, and the records that it holds."""
        self.ahead: Callable[[int, int], int] = max
        """Between these two commits: how far the disk is when a cut is taken."""
        self.prompt = False
        """Whether what is appended is durable at once."""
        self.full = False
        """Whether most of its quota is used."""
        self.met_leftovers = 0
        """How often a replay came to what a torn write had left behind a newer record."""
        self._leftovers: dict[int, bytes] = {}
        """Records behind one that a crash took, each where the commit of this number stands."""
        self._records: list[bytes] = []
        self._synced = 0
        self._states: dict[tuple[str, str], bytes] = {}
        self._rows: dict[tuple[int, bytes], bytes] = {}

    def state(self, type: str, key: str) -> bytes | None:
        """The newest sealed state of an entity."""
        return self._states.get((type, key))

    def states_at(self, type: str, keys: Sequence[str], slots: Sequence[int]) -> list[bytes | None]:
        """The newest sealed states of many entities of a type, each with its slot."""
        assert list(slots) == slots_of(type, keys), "who asks knows the slots"
        return [self.state(type, key) for key in keys]

    def read(self, table: int, key: bytes) -> bytes | None:
        """The newest sealed row of a table."""
        return self._rows.get((table, key))

    def scan(
        self, table: int, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a table in order of key."""
        found = [(k, v) for (t, k), v in self._rows.items() if t == table and k.startswith(prefix)]
        yield from sorted((key, value) for key, value in found if key > after)

    def states(
        self, type: str, prefix: str = "", after: str = "", slots: Sequence[int] = EVERY_SLOT
    ) -> Iterator[tuple[str, bytes]]:
        """States of a type, slot by slot."""
        behind = state_key(type, after) if after else b""
        found = [
            (state_key(t, key), key, state)
            for (t, key), state in self._states.items()
            if t == type and key.startswith(prefix) and slot_of(t, key) in slots
        ]
        yield from ((key, state) for row, key, state in sorted(found) if row > behind)

    def append(self, commit: Commit) -> None:
        """Visible now, durable when synced."""
        self._records.append(commit.record)
        self._leftovers.pop(len(self._records), None)
        if self.prompt:
            self._synced = len(self._records)
        self._apply(records.decode(commit.record))

    def keep(self, no: int) -> None:
        """The durable records, and some that the disk has finished and not told of yet."""
        upto = self.ahead(self._synced, len(self._records))
        self.kept = no, self._records[:upto]
        self._synced = upto

    def restored(self) -> MemoryStore:
        """Another disk, with what was kept."""
        other = MemoryStore()
        other._records = list(self.kept[1])
        other.crash(len(other._records))
        return other

    def sync(self, no: int) -> None:
        """The disk has finished everything up to this commit."""
        self._synced = max(self._synced, no)

    def durable(self) -> int:
        """The newest durable commit."""
        return self._synced

    def close(self) -> None:
        """All is durable."""
        self._synced = len(self._records)

    def rows_ever(self) -> Iterator[Row]:
        """What the commits that are there did to rows, in order."""
        for record in self._records:
            yield from records.decode(record).rows

    @property
    def backlog(self) -> tuple[int, int]:
        """Records that are not durable yet, and no bytes: a test counts records."""
        return self.appended - self._synced, 0

    @property
    def nearly_full(self) -> bool:
        """Whether nothing new should be accepted."""
        return self.full

    @property
    def used_bytes(self) -> int:
        """What the rows take: nobody asks."""
        return 0

    @property
    def appended(self) -> int:
        """The newest commit that was given to the disk."""
        return len(self._records)

    def crash(self, keep: int = 0) -> None:
        """The power fails: what was not synced was never there, but for what the disk kept anyway.

        Of a write that it took, the first record is torn, and the others lie behind it until newer
        ones are written over them."""
        self._synced = max(self._synced, keep)
        lost = enumerate(self._records[self._synced + 1 :], self._synced + 2)
        self._leftovers.update(lost)
        self._records = self._records[: self._synced]
        self._states, self._rows = {}, {}
        previous = 0
        for record in self._records:
            decoded = records.decode(record)
            assert decoded.previous == previous, f"I6: the chain breaks at commit {decoded.no}"
            previous = decoded.checksum
            self._replay(decoded)
        while (left := self._leftovers.get(self.last.no + 1)) is not None:
            self.met_leftovers += 1
            decoded = records.decode(left)
            if decoded.previous != self.last.checksum:
                return
            self._records.append(left)
            self._synced += 1
            self._replay(decoded)

    def lose(self, kept: int) -> None:
        """The power fails, and nothing behind this commit was ever synced."""
        self._synced = kept
        self._records = self._records[:kept]
        self.last = Last()
        self.crash()

    def _replay(self, decoded: Decoded) -> None:
        self._apply(decoded)
        self.last = Last(decoded.no, decoded.checksum, decoded.epoch, decoded.time_ns)

    def _apply(self, decoded: Decoded) -> None:
        for group in decoded.states:
            for key, state in group.each():
                if state is None:
                    self._states.pop((group.type, key), None)
                else:
                    self._states[group.type, key] = state
        for table, row_key, value in decoded.rows:
            if value is None:
                self._rows.pop((table, row_key), None)
            else:
                self._rows[table, row_key] = value
