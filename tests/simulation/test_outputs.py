"""What goes out, on its own: what is handed to sinks, how much at once, and what stays."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.runtime.core.events import Row, Write, Written
from skerry.runtime.core.tables.outputs import WRITE_BYTES, Outputs
from skerry.runtime.core.tables.table import Stamp, StoredRow


class Outlet:
    """As many sinks as are wanted, each of which gets every item as it is."""

    def __init__(self, ends: int = 1) -> None:
        self.ends = ends

    def emitted(self, item: object) -> bytes:
        return msgspec.msgpack.encode(item)

    def apply(self, items: Sequence[bytes]) -> list[tuple[int, Sequence[bytes]]]:
        return [(end, items) for end in range(self.ends)]


class Disk:
    """The rows of a shard, and the shard's outputs: each batch is durable at once."""

    def __init__(self, outlet: Outlet) -> None:
        self.rows: dict[tuple[int, bytes], bytes] = {}
        self.commits = 0
        self.start(outlet)

    def start(self, outlet: Outlet) -> list[Write]:
        """As after a crash, or with another release."""
        self.outputs = Outputs({"out": outlet}, "", lambda table, key: self.rows.get((table, key)))
        self.outputs.load(row for table in self.outputs.ids for row in self._scan(table))
        return self.outputs.offer(self.commits)

    def _scan(self, table: int) -> list[StoredRow]:
        return sorted((of, key, row) for (of, key), row in self.rows.items() if of == table)

    def batch(self, items: Sequence[bytes] = (), written: Sequence[Write] = ()) -> list[Write]:
        for item in items:
            self.outputs.take("out", "0", item)
        for write in written:
            upto = write.sequence + len(write.items) - 1
            self.outputs.written(Written(write.output, write.sink, write.partition, upto))
        self.commits += 1
        stamp = Stamp(self.commits, 0)
        for row in self.outputs.rows(stamp):
            self._keep(row)
        self.outputs.sealed(stamp)
        return self.outputs.offer(self.commits)

    def _keep(self, row: Row) -> None:
        table, key, value = row
        if value is None:
            del self.rows[table, key]
        else:
            self.rows[table, key] = value


def items(count: int, size: int = 10) -> list[bytes]:
    return [msgspec.msgpack.encode(str(n).rjust(size)) for n in range(count)]


def test_a_write_holds_a_bounded_number_of_bytes_however_many_wait() -> None:
    disk = Disk(Outlet())
    given = items(40, WRITE_BYTES // 3) + items(1, 3 * WRITE_BYTES) + items(5)
    writes, came = disk.batch(given), list[bytes]()
    while writes:
        (write,) = writes
        assert write.sequence == len(came) + 1
        assert len(write.items) == 1 or sum(map(len, write.items)) <= WRITE_BYTES * 2
        came += write.items
        writes = disk.batch(written=writes)
    assert came == given
    assert disk.outputs.unwritten == 0


def test_what_no_sink_has_is_handed_out_again_under_its_number_after_a_crash() -> None:
    disk = Disk(Outlet())
    writes = disk.batch(items(3))
    assert disk.start(Outlet()) == writes
    disk.batch(written=writes)
    assert disk.start(Outlet()) == []
    assert [write.sequence for write in disk.batch(items(1))] == [4]


def test_items_of_a_sink_that_a_release_took_away_stay_until_one_has_it_again() -> None:
    disk = Disk(Outlet(2))
    writes = disk.batch(items(3))
    assert [write.sink for write in disk.start(Outlet(1))] == [0]
    disk.batch(written=writes[:1])
    assert disk.outputs.unwritten == 0
    assert disk.start(Outlet(2)) == writes[1:]


def test_a_batch_that_is_thrown_away_leaves_no_item_and_no_number() -> None:
    disk = Disk(Outlet())
    for item in items(5):
        disk.outputs.take("out", "0", item)
    disk.outputs.undo()
    (write,) = disk.batch(items(1))
    assert (write.sequence, write.items) == (1, items(1))
