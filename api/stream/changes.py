"""Change: what a commit made of an entity, as an item of `app.changes(…)`.

Pure data.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from skerry.entity import Entity

E = TypeVar("E", bound=Entity)


class Change(Struct, Generic[E], frozen=True):
    """What a commit made of an entity.

    Stages see the state itself: they may look at it, and change nothing. A sink gets plain values,
    `{"key": …, "state": {…}}`, as `skerry export` prints them.
    """

    key: str
    """The entity's key."""
    state: E | None
    """Its state behind the commit; None: it was forgotten."""

    def plain(self) -> dict[str, Any]:
        """Return the change as plain values."""
        state = None if self.state is None else msgspec.structs.asdict(self.state)
        return {"key": self.key, "state": state}
