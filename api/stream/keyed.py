"""Stages that keep something, as the entities that they are.

    to(Word.seen), and stages behind it    a handler of Word that has these behind it
    reduce(start, fn)                      an entity type with one field: the value of a key

A handler with something behind it is a private one, named by its stage: messages on their way know
what their replies are for, and those of clients flow nowhere.

Pure but for the program's functions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from typing import Any

import msgspec

from skerry.entity import Entity, EntityMeta
from skerry.entity_type import EntityType
from skerry.errors import BadApp
from skerry.handler import Handler
from skerry.stream.columns import Columns, Pass
from skerry.stream.graph import Reduce
from skerry.stream.item_types import value_type

_encode = msgspec.msgpack.Encoder().encode

Partial = Callable[[list[str], list[Any]], tuple[list[str], list[Any]]]
"""(keys, items) -> (each key once, what its items come to)."""


def flowing(handler: Handler, stage: str, behind: Pass) -> Handler:
    """Return a handler whose replies go through the passes behind its stage; None ends there."""

    def flow(keys: list[str] | None, replies: list[Any]) -> list[Columns]:
        if None not in replies:
            return behind(keys, replies)
        there = [reply is not None for reply in replies]
        return behind(list(compress(keys or [], there)), list(compress(replies, there)))

    return handler.at_stage(stage, flow)


class Reducer:
    """What `reduce` is made of.

    Args:
        stage: the stage.
        items: the type of its items.
        behind: the passes behind it; None if there is nothing.

    Raises:
        BadApp: its start can't be stored.
    """

    def __init__(self, stage: Reduce, items: Any, behind: Pass | None) -> None:
        self._stage = stage
        value = value_type(stage.start)
        try:
            self._start = _encode(stage.start)
            self._fresh = msgspec.msgpack.Decoder(value).decode
            if self._fresh(self._start) != stage.start:
                raise TypeError("it would come back as another value")
            made = _entity(stage, items, value, lambda: self._fresh(self._start))
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise BadApp(
                f"The start of the stage {stage.name!r}, {stage.start!r:.80}, can't be stored: {error}."
            ) from error
        self.partial: Partial | None = self._partial if self._combines() else None
        name = "_add" if self.partial is None else "_combine"
        self.type: EntityType = made.__skerry__
        self.handler = self.type.handlers[name]
        if behind is not None:
            self.handler = self.handler.at_stage(stage.name, behind)
            self.type = self.type.with_handler(self.handler)

    def _combines(self) -> bool:
        """Tell whether items can be reduced before they travel: only a start that changes nothing when
        it is combined counts once, however many parts there are."""
        combine = self._stage.combine
        if combine is None:
            return False
        return bool(
            combine(self._fresh(self._start), self._fresh(self._start)) == self._stage.start
        )

    def _partial(self, keys: list[str], items: list[Any]) -> tuple[list[str], list[Any]]:
        function, found = self._stage.function, dict[str, Any]()
        for key, item in zip(keys, items):
            value = found[key] if key in found else self._fresh(self._start)
            found[key] = function(value, item)
        return list(found), list(found.values())


def _entity(stage: Reduce, items: Any, value: Any, fresh: Callable[[], Any]) -> type[Entity]:
    """Make the entity class: one field, and the handlers that change it."""

    def add(self: Any, item: Any) -> Any:
        self.value = stage.function(self.value, item)
        return self.value

    def combine(self: Any, part: Any) -> Any:
        assert stage.combine is not None, "parts come where they can be combined"
        self.value = stage.combine(self.value, part)
        return self.value

    add.__annotations__ = {"item": items, "return": value}
    combine.__annotations__ = {"part": value, "return": value}
    namespace = {
        "__annotations__": {"value": value},
        "__module__": __name__,
        "__doc__": f"The values of the stage {stage.name!r}.",
        "value": msgspec.field(default_factory=fresh),
        "_add": add,
        "_combine": combine,
    }
    made: Any = EntityMeta(stage.name, (Entity,), namespace)
    return made  # type: ignore[no-any-return]
