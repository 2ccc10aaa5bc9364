"""The handlers of this release, and what stored messages of older releases meant.

A message in a store names its handler and its parameters by their ids. This release knows its
own; of older ones it knows the names that they have written down.

No I/O. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from skerry.entity_type import EntityType
from skerry.handler import Handler


class Handlers:
    """Handlers by the ids that stand in stored messages and in frames."""

    def __init__(self, types: Mapping[str, EntityType]) -> None:
        self.types = types
        self.by_id = {h.id: h for t in types.values() for h in t.handlers.values()}
        self.names: dict[int, str] = {}
        """Names of handlers by id, as far as any release has written them down."""
        self.old_params: dict[int, list[str]] = {}
        """Parameter names of argument lists of older releases, by their ids."""

    def arguments(self, handler: Handler, params: int, blob: bytes, *, skip: int = 0) -> bytes:
        """Stored arguments as this release orders them: what an older one stored is mapped by name.

        Args:
            skip: how many arguments stand before these, such as an outcome.
        """
        if params == handler.params_id or params not in self.old_params:
            return blob
        return handler.reordered(self.old_params[params], blob, skip=skip)
