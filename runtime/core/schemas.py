"""Descriptions of the ids in stored bytes: fields of states, handlers, their parameters.

Each release writes down what its own ids mean, at its start. So a store can be read without the
app, and a later release knows the names that older messages and states were stored under.

No I/O but the store's reads. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from skerry.entity_type import EntityType
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.handlers import Handlers
from skerry.runtime.ports import Committed


def _id(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _described(types: Mapping[str, EntityType]) -> Iterator[tuple[int, bytes]]:
    """Yield each id of a release with its description."""
    for kind in types.values():
        yield kind.schema_id, kind.schema
        for handler in kind.handlers.values():
            named = f"{kind.name}.{handler.name}"
            params = [param.name for param in handler.params]
            known = {"handler": named, "params": params}
            yield handler.params_id, msgspec.json.encode(known)
            yield handler.id, msgspec.json.encode({"handler": handler.name})


class Schemas:
    """The SCHEMA table of a store."""

    def __init__(self, store: Committed) -> None:
        self._store = store
        self.types: set[str] = set()
        """Entity types that the store has states of, or had, in any release."""

    def describe(self, types: Mapping[str, EntityType]) -> list[Row]:
        """Return the rows that the store lacks of this release."""
        described = dict(_described(types)).items()
        return [(Table.SCHEMA, _id(id), value) for id, value in described if self.of(id) is None]

    def load(self, handlers: Handlers) -> None:
        """Learn the names that older releases have written down."""
        for key, value in self._store.scan(Table.SCHEMA):
            known, id = msgspec.json.decode(value), int.from_bytes(key, "big")
            if "params" in known:
                handlers.old_params[id] = known["params"]
            elif "handler" in known:
                handlers.names[id] = known["handler"]
            else:
                self.types.add(known["type"])

    def of(self, id: int) -> bytes | None:
        """Return what is known of an id."""
        return self._store.read(Table.SCHEMA, _id(id))
