"""Partitions read in turn: every item once and in order, of thousands of files few open at once."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import SkerryError
from skerry.runtime.worker.sources import OPEN_MAX, SLICE_BATCHES, Partition, Readers
from skerry.stream.ends import BadRow

BATCH = 3


class Numbers:
    """Partitions of so many numbers; counts how many of them are being read."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = {str(place): count for place, count in enumerate(counts)}
        self.open = self.open_max = self.asked = 0

    def size(self, partition: str) -> int:
        """How far its positions go."""
        self.asked += 1
        return self.counts[partition]

    def batches(
        self, partition: str, after: int | None, size: int
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Positions begin at 1, as offsets behind an item do."""
        self.open += 1
        self.open_max = max(self.open, self.open_max)
        try:
            count = self.counts[partition]
            for first in range((after or 0) + 1, count + 1, BATCH):
                upto = list(range(first, min(first + BATCH, count + 1)))
                yield upto, upto
        finally:
            self.open -= 1


def readers_of(source: Numbers) -> Readers:
    """All its partitions, from the beginning."""
    readers = Readers(lambda: None)
    for partition in source.counts:
        readers.open("numbers", source, partition, None)
    return readers


class Places:
    """A partition whose positions are what they are."""

    def __init__(self, *positions: object) -> None:
        self.positions = positions

    def batches(self, partition: str, after: object, size: int) -> Iterator[tuple[Any, Any]]:
        """All of them at once."""
        yield self.positions, self.positions


@pytest.mark.parametrize("position", [(1, 2), datetime.date(2026, 1, 1), {3}, [(1, 2)]])
def test_a_position_that_comes_back_as_another_after_a_restart_is_refused_at_once(
    position: object,
) -> None:
    partition = Partition("places", Places("a", position), "0", None, lambda: None)
    with pytest.raises(SkerryError, match="Source places, partition 0: the position"):
        partition.next(10)


@pytest.mark.parametrize("position", [3, 2.5, "b", b"c", ["d", 4], {"e": 5}])
def test_a_position_may_be_anything_that_comes_back_as_it_was(position: object) -> None:
    partition = Partition("places", Places("a", position), "0", None, lambda: None)
    items = partition.next(10)
    assert items is not None and items.positions[-1] == position


class Uneven:
    """More items than positions."""

    def batches(self, partition: str, after: object, size: int) -> Iterator[tuple[Any, Any]]:
        """Two and three."""
        yield [1, 2], [1, 2, 3]


def test_a_batch_whose_items_have_no_positions_is_refused() -> None:
    with pytest.raises(SkerryError, match="partition 0: a batch has 2 positions and 3 items"):
        Partition("uneven", Uneven(), "0", None, lambda: None).next(10)


def test_two_partitions_of_one_name_are_refused() -> None:
    readers = Readers(lambda: None)
    readers.open("twice", Numbers([3]), "0", None)
    with pytest.raises(SkerryError, match="Source twice has two partitions called '0'"):
        readers.open("twice", Numbers([3]), "0", None)


class Breaking(Numbers):
    """Breaks behind its second batch; counts how much it was asked for."""

    def batches(self, partition: str, after: int | None, size: int) -> Iterator[tuple[Any, Any]]:
        """Two of them."""
        yield from list(super().batches(partition, after, size))[:2]
        raise OSError("gone")


def test_when_a_source_breaks_what_it_gave_counts_and_nothing_more_is_read() -> None:
    readers = readers_of(Breaking([100]))
    assert [items.items for items in readers.next(1000)] == [[1, 2, 3], [4, 5, 6]]
    assert isinstance(readers.failure, OSError)
    assert (readers.next(1000), readers.finished, readers.inline) == ([], False, False)
    readers.rewind("numbers", "0", 2)
    assert [items.items for items in readers.next(4)] == [[3, 4, 5], [6]]
    assert readers.failure is None
    assert [items.items for items in readers.next(9)] == [[7, 8]]
    assert isinstance(readers.failure, OSError)


class Blocking:
    """A source that is read by a thread, with a row that is no item."""

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, Any]]:
        """Five rows."""
        for n in range(5):
            yield n, BadRow(b"two", "row 2") if n == 2 else n


def test_a_bad_row_comes_alone_from_a_source_that_blocks() -> None:
    woken = threading.Semaphore(0)
    partition = Partition("rows", Blocking(), "0", None, woken.release)
    found = list[list[Any]]()
    while not partition.finished:
        items = partition.next(10)
        if items is None:
            assert partition.finished or woken.acquire(timeout=60)
        else:
            found.append(list(items.items))
    assert [item for items in found for item in items if item != (b"two", "row 2")] == [0, 1, 3, 4]
    assert [BadRow(b"two", "row 2")] in found


def test_a_partition_is_named_by_a_text() -> None:
    with pytest.raises(SkerryError, match="name is a str, not 7"):
        Partition("places", Places(), 7, None, lambda: None)  # type: ignore[arg-type]


@given(
    st.lists(
        st.sampled_from([0, 1, 2, 5, 40, BATCH * SLICE_BATCHES * 2]), min_size=1, max_size=200
    ),
    st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=5),
)
def test_every_item_is_read_once_in_order_whatever_is_wanted_at_once(
    counts: list[int], wanted: list[tuple[int, bool]]
) -> None:
    source = Numbers(counts)
    readers, found = readers_of(source), {name: list[int]() for name in source.counts}
    for most, again in [*wanted, *[(1000, False)] * (sum(counts) // 1000 + 2 + len(counts))]:
        for items in readers.next(most):
            read = found[items.partition]
            stands = read[-1] if read else None
            if again or items.after != stands:  # As a shard does that has lost a batch.
                readers.rewind("numbers", items.partition, stands)
                again = False
            else:
                read += items.items
        progress = readers.progress()
        assert progress == (sum(map(len, found.values())), sum(counts))
    assert readers.finished
    assert found == {name: list(range(1, count + 1)) for name, count in source.counts.items()}
    assert source.open == 0


def test_of_thousands_of_partitions_few_are_open_at_once_and_all_come_to_their_turn() -> None:
    source = Numbers([10_000] * 100 + [BATCH] * 2000)
    readers = readers_of(source)
    for _ in range(40):
        readers.next(BATCH * SLICE_BATCHES * OPEN_MAX // 4)
        assert readers.progress() is not None
    assert source.open_max <= OPEN_MAX + 1, "one is closed after the next was opened"
    assert source.asked == len(source.counts), "sizes are asked once, not each time"
    reached = [p for p in source.counts if readers._partitions["numbers", p].position is not None]
    assert len(reached) == len(source.counts), "those that wait are let in"


def test_a_batch_takes_no_more_items_than_it_may_and_none_is_lost_at_a_cut() -> None:
    readers = readers_of(Numbers([1000]))
    found: list[int] = []
    newest = None
    for most in (1, 30, 99, 100, 7, 500, 64, 3, 10_000):
        batches = readers.next(most)
        assert sum(len(batch.items) for batch in batches) <= most
        for batch in batches:
            assert batch.after == newest
            newest = batch.positions[-1]
            found += batch.items
    assert found == list(range(1, 1001))
    assert readers.items == 1000


def test_reading_again_from_a_position_forgets_what_was_cut_off() -> None:
    readers = readers_of(Numbers([1000]))
    readers.next(BATCH - 1)
    readers.rewind("numbers", "0", 9)
    items = [item for batch in readers.next(5) for item in batch.items]
    assert items == [10, 11, 12, 13, 14]
