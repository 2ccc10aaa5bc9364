"""Items of sources: the stages that they pass, their messages, and the position, in one commit.

Items follow the position of the newest commit, or their source is told to read on from it. In
an optimistic batch they pass the stages together. In any other each does alone, and one that
raises becomes a dead letter with its place and what can be shown of it.

No I/O, no clock. Idea: docs/ideas/streams.md. Asserts nothing of its own: turns are the executor's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import msgspec
import xxhash

from skerry.limits import check_keys
from skerry.runtime.core.buffer import Runs
from skerry.runtime.core.delivery import Delivery
from skerry.runtime.core.events import Items, Rewind
from skerry.runtime.core.executor import Executor, Mode
from skerry.runtime.core.flows import leave, shown
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.results import Raised, broke
from skerry.runtime.core.settings import Pipeline
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.outputs import partition_of
from skerry.runtime.core.tables.positions import Positions, partition_slot
from skerry.stream.columns import Columns, Exit
from skerry.stream.ends import BadRow

_encode = msgspec.msgpack.Encoder().encode


class SourceItems:
    """The items of a batch."""

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        executor: Executor,
        delivery: Delivery,
        positions: Positions,
        ownership: Ownership,
        left: Runs,
        dead: DeadLetters,
    ) -> None:
        self._pipelines, self._executor, self._delivery = pipelines, executor, delivery
        self._positions, self._ownership = positions, ownership
        self._left, self._dead = left, dead

    @staticmethod
    def identity(event: Items) -> int:
        """A number that names an event again after a restart."""
        where = event.source, event.partition
        return xxhash.xxh3_64_intdigest(_encode((where, event.positions[-1])))

    def run(self, event: Items) -> Rewind | None:
        """Run items and move their position; or say where to read on. Raises Raised."""
        if not self._ownership.serves(partition_slot(event.source, event.partition)):
            return None  # Its partition has left: whoever has it now reads them anew.
        newest = self._positions.newest(event.source, event.partition)
        if event.after != newest:
            return Rewind(event.source, event.partition, newest)
        if type(event.items[0]) is BadRow:
            assert len(event.items) == 1, "a bad row comes alone"
            self._bury_row(event, event.items[0])
        elif self._executor.mode is Mode.OPTIMISTIC:
            columns, error = self._apply(event, event.items)
            if error is not None:
                raise Raised from error
            self._send(event, columns)
        else:
            for place in range(len(event.items)):
                self._alone(event, place)
        self._positions.move(event.source, event.partition, event.positions[-1])
        return None

    def _apply(
        self, event: Items, items: Sequence[Any]
    ) -> tuple[Sequence[Columns], BaseException | None]:
        columns, error = self._executor.call(None, self._pipelines[event.source].apply, items)
        return columns or (), error

    def _alone(self, event: Items, place: int) -> None:
        """Run one item. When its stages raise, it alone becomes a dead letter."""
        failure = self._executor.poison("a stage or the handler")
        if failure is None:
            columns, error = self._apply(event, [event.items[place]])
            try:
                for _, keys, column in columns:
                    check_keys(keys)
                    _encode(column)
            except (TypeError, ValueError, OverflowError) as unfit:
                error = unfit
            if error is None:
                self._send(event, columns)
                return
            failure = broke(error)
        error_text = f"item at {_told(event.positions, place)}: {failure.error}"
        self._bury(event, error_text, shown(event.items[place]), failure.traceback)

    def _send(self, event: Items, columns: Sequence[Columns]) -> None:
        """Send messages to their entities, and items that leave by a sink to its output."""
        for end, keys, column in columns:
            if not isinstance(end, Exit):
                self._delivery.send(end, keys, column)
                continue
            slot = partition_slot(event.source, event.partition)
            # Items have the partition of their key; without keys, that of their source's partition.
            of_keys = [partition_of("", key, end.partitions) for key in keys]
            leave(self._left, end, of_keys or repeat(str(slot % end.partitions)), column)

    def _bury_row(self, event: Items, row: BadRow) -> None:
        """Keep a row that its source could not read: its place and its bytes."""
        raw: str | bytes = row.raw
        with contextlib.suppress(UnicodeDecodeError):
            raw = row.raw.decode()
        self._bury(event, row.error, raw)

    def _bury(self, event: Items, error: str, kept: str | bytes, traceback: str = "") -> None:
        self._dead.bury(
            f"source {event.source}",
            event.partition,
            error,
            args=_encode([kept]),
            traceback=traceback,
            answered=True,
        )


def _told(positions: Sequence[Any], place: int) -> str:
    """The place of an item, for a person: in its source's own words, if it has any."""
    told = getattr(positions, "told", None)
    return f"position {positions[place]!r}" if told is None else str(told(place))
