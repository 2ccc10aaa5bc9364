"""Replies of stages that flow on: each turn's reply passes the stages behind its own.

    turn -> reply -> passes of the stage -> messages to entities, items to outputs
                                         -> a stage raises: the reply is a dead letter

What comes of a reply belongs to the commit of its turn. In an optimistic batch the replies of a
column pass together, behind all that their turns have sent; in any other each does alone, and the
turn counts even if a stage raises.

No I/O, no clock. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from skerry.errors import storable
from skerry.handler import Handler
from skerry.limits import check_keys
from skerry.runtime.core.buffer import EMITS, Runs
from skerry.runtime.core.executor import Executor
from skerry.runtime.core.results import Raised, broke
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.outputs import home, partition_of
from skerry.stream.columns import Columns, Exit

SHOWN_CHARS_MAX = 10_000
"""How much of an item its dead letter shows."""

_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})
"""Replies that no later turn of the batch can change."""

_encode = msgspec.msgpack.Encoder().encode


class Flows:
    """The replies of a batch that flow on; what comes of them joins `left`."""

    def __init__(self, executor: Executor, left: Runs, dead: DeadLetters) -> None:
        self._executor, self._left, self._dead = executor, left, dead

    def collector(self, handler: Handler, replies: list[Any]) -> Callable[[Any], None]:
        """Return what collects the replies of turns, each as it is when its turn ends."""
        encode, decode, add = handler.encode_reply, handler.reply, replies.append

        def tell(reply: Any) -> None:
            add(reply if reply.__class__ in _SCALARS else decode(encode(reply)))

        return tell

    def together(self, handler: Handler, keys: list[str], replies: list[Any]) -> None:
        """Let the replies of a column flow on. Raises Raised."""
        columns, error = self._pass(handler, keys, replies)
        if error is not None:
            raise Raised(handler.entity) from error
        self._leave(columns)

    def alone(self, handler: Handler, key: str, reply: bytes) -> None:
        """Let the reply of a turn that ran alone flow on, or make a dead letter of it."""
        item: Any = reply
        try:
            item = handler.reply(reply)
            columns, error = self._pass(handler, [key], [item])
        except msgspec.MsgspecError as unfit:
            columns, error = [], unfit
        if error is None:
            self._leave(columns)
            return
        failure = broke(error)
        self._dead.bury(
            handler.entity,
            key,
            f"behind the stage {handler.stage}: {failure.error}",
            args=_encode([shown(item)]),
            traceback=failure.traceback,
            answered=True,
        )

    def _pass(
        self, handler: Handler, keys: list[str], replies: list[Any]
    ) -> tuple[Sequence[Columns], BaseException | None]:
        """Run the passes behind a stage: (columns that can be sent, None), or (none, an error)."""
        assert handler.behind is not None, "replies of stages flow on"
        columns, error = self._executor.call(None, handler.behind, keys, replies)
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
