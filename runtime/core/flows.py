"""What flows on from turns: replies through the stages behind their own, and changes of entities.

    turn -> reply      -> passes -> messages to entities, items to outputs
    batch -> its changes         -> a stage raises: the reply or change is a dead letter

What comes of a reply belongs to the commit of its turn. In an optimistic batch the replies of a
column pass together, behind all that their turns have sent; in any other each does alone, and the
turn counts even if a stage raises. Changes come last, when no turn of the batch can follow: what they
become waits for the next one.

No I/O, no clock. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from skerry.errors import storable
from skerry.handler import Handler
from skerry.limits import check_keys
from skerry.runtime.core.buffer import EMITS, Runs
from skerry.runtime.core.executor import Executor, Mode
from skerry.runtime.core.results import Raised, broke
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.outputs import home, partition_of
from skerry.stream.changes import Change
from skerry.stream.columns import Columns, Exit, Pass

SHOWN_CHARS_MAX = 10_000
"""How much of an item its dead letter shows."""

_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})
"""Replies that no later turn of the batch can change."""

_encode = msgspec.msgpack.Encoder().encode


class Flows:
    """What flows on from a batch; what comes of it joins `left`."""

    def __init__(
        self, executor: Executor, left: Runs, dead: DeadLetters, changes: Mapping[str, Pass]
    ) -> None:
        self._executor, self._left, self._dead = executor, left, dead
        self._changes = changes

    def collector(self, handler: Handler, replies: list[Any]) -> Callable[[Any], None]:
        """Return what collects the replies of turns, each as it is when its turn ends."""
        encode, decode, add = handler.encode_reply, handler.reply, replies.append

        def tell(reply: Any) -> None:
            add(reply if reply.__class__ in _SCALARS else decode(encode(reply)))

        return tell

    def together(self, handler: Handler, keys: list[str], replies: list[Any]) -> None:
        """Let the replies of a column flow on. Raises Raised."""
        assert handler.behind is not None, "replies of stages flow on"
        self._together(handler.entity, handler.behind, keys, replies)

    def alone(self, handler: Handler, key: str, reply: bytes) -> None:
        """Let the reply of a turn that ran alone flow on, or make a dead letter of it."""
        assert handler.behind is not None, "replies of stages flow on"
        try:
            item = handler.reply(reply)
        except msgspec.MsgspecError as unfit:
            self._bury(handler.entity, key, f"the stage {handler.stage}", reply, unfit)
            return
        self._alone(handler.entity, handler.behind, key, item, f"the stage {handler.stage}")

    def changed(self) -> bool:
        """Let the changes of the batch flow on; tell whether there are any. Raises Raised."""
        any_changed = False
        for name, behind in self._changes.items():
            cached = self._executor.cache.types[name]
            states = {**dict.fromkeys(cached.forgotten), **cached.dirty}
            if not states:
                continue
            any_changed = True
            changes = [Change(key, state) for key, state in states.items()]
            if self._executor.mode is Mode.OPTIMISTIC:
                self._together(name, behind, list(states), changes)
                continue
            for change in changes:
                self._alone(name, behind, change.key, change, f"the changes of {name}")
        return any_changed

    def _together(self, name: str, behind: Pass, keys: list[str], items: list[Any]) -> None:
        columns, error = self._pass(behind, keys, items)
        if error is not None:
            raise Raised(name) from error
        self._leave(columns)

    def _alone(self, name: str, behind: Pass, key: str, item: Any, where: str) -> None:
        columns, error = self._pass(behind, [key], [item])
        if error is None:
            self._leave(columns)
        else:
            self._bury(name, key, where, item, error)

    def _bury(self, name: str, key: str, where: str, item: Any, error: BaseException) -> None:
        failure = broke(error)
        self._dead.bury(
            name,
            key,
            f"behind {where}: {failure.error}",
            args=_encode([shown(item)]),
            traceback=failure.traceback,
            answered=True,
        )

    def _pass(
        self, behind: Pass, keys: list[str], items: list[Any]
    ) -> tuple[Sequence[Columns], BaseException | None]:
        """Run passes: (columns that can be sent, None), or (none, an error)."""
        columns, error = self._executor.call(None, behind, keys, items)
        if error is not None:
            return (), error
        try:
            for end, to, column in columns:
                check_keys(to)
                if not isinstance(end, Exit):
                    _encode(column)
        except (TypeError, ValueError, OverflowError) as unfit:
            return (), unfit
        return columns, None

    def _leave(self, columns: Sequence[Columns]) -> None:
        for end, keys, column in columns:
            if isinstance(end, Exit):
                leave(
                    self._left, end, (partition_of("", key, end.partitions) for key in keys), column
                )
            else:
                self._left.extend(end, keys, column)


def leave(left: Runs, end: Exit, partitions: Iterable[str], items: Sequence[bytes]) -> None:
    """Let items leave by an output, each in its partition."""
    head = EMITS[home(end.output)]
    for partition, item in zip(partitions, items):
        left.add(head, partition, None, (item,))


def shown(item: Any) -> str:
    """Return an item as its dead letter shows it."""
    try:
        return storable(repr(item)[:SHOWN_CHARS_MAX])
    except Exception:
        return object.__repr__(item)
