"""What an app offers its callers: entity types, their handlers, the slot of each key.

From the app's greeting. No socket, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from skerry.errors import UnknownEntity, UnknownHandler
from skerry.runtime.client.pending import Kind
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.gateway.protocol import Greeting

SLOTS_KNOWN_MAX = 1 << 20
"""Keys of a type whose slot is remembered: about 100 MB at most. Then all are forgotten."""


class _Slots(dict[str, int]):
    """Key to slot, for one entity type. A missing key is worked out."""

    def __init__(self, type_name: str) -> None:
        super().__init__()
        self._type = type_name

    def __missing__(self, key: str) -> int:
        if len(self) >= SLOTS_KNOWN_MAX:
            self.clear()
        slot = self[key] = slot_of(self._type, key)
        return slot


class _Type:
    """What requests need to know of an entity type."""

    def __init__(self, name: str, handlers: Iterable[str]) -> None:
        self.slots = _Slots(name)
        self.kinds = {(h, reply): Kind(name, h, reply) for h in handlers for reply in (True, False)}


class Catalogue:
    """The entity types of a running app."""

    def __init__(self) -> None:
        self._greeting: Greeting | None = None
        self._types: dict[str, _Type] = {}

    def adopt(self, greeting: Greeting) -> None:
        """Offer what this greeting says from now on."""
        before, self._greeting = self._greeting, greeting
        if before is None or before.types != greeting.types:
            self._types.clear()

    def find(self, type_name: str, key: str, handler: str, reply: bool) -> tuple[int, Kind]:
        """Return the slot of a key, and the kind of a request to it.

        Raises UnknownEntity, UnknownHandler.
        """
        known = self._types.get(type_name)
        kind = None if known is None else known.kinds.get((handler, reply))
        if known is None or kind is None:
            known = self._offered(type_name, handler)
            kind = known.kinds[handler, reply]
        return known.slots[key], kind

    def check(self, type_name: str, handler: str) -> None:
        """Raise UnknownEntity or UnknownHandler unless the app has this handler."""
        self._offered(type_name, handler)

    def slot(self, type_name: str, key: str) -> int:
        """Return the slot of an entity, also of a class that is gone. Raises UnknownEntity."""
        assert self._greeting is not None, "a session is greeted before it is used"
        if type_name in self._greeting.kept and type_name not in self._greeting.types:
            return slot_of(type_name, key)
        return self._offered(type_name).slots[key]

    def _offered(self, type_name: str, handler: str | None = None) -> _Type:
        assert self._greeting is not None, "a session is greeted before it is used"
        types = self._greeting.types
        handlers = types.get(type_name)
        if handlers is None:
            raise UnknownEntity(type_name, types)
        if handler is not None and handler not in handlers:
            raise UnknownHandler(type_name, handler, handlers)
        known = self._types.get(type_name)
        if known is None:
            known = self._types[type_name] = _Type(type_name, handlers)
        return known
