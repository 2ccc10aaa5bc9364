"""The description of the app that a supervisor runs, and its changes.

    put(field=value) -> written by the coordinator -> known here

Where an answer may be lost, whether a change was made may stay unknown for a while. Then nothing
else is changed before the same change has been tried again and its outcome is known: two versions
of one number must never be read by anybody.

Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import fields, replace

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.description import Description
from skerry.runtime.ports import Coordinator, Deposed


class Register:
    """The description of an app, as this process knows it.

    Attributes:
        app: the same object all the time; what it says changes.
    """

    def __init__(self, coordinator: Coordinator, app: Description) -> None:
        self._coordinator, self.app = coordinator, app
        self._pending: Description | None = None

    def put(self, **changes: Any) -> None:
        """Change the description, durably.

        Raises SkerryError: it is as it was; Unavailable: it may have been changed, or will be.
        """
        self.finish()
        self._pending = replace(self.app, **changes)
        self.finish()

    def finish(self) -> None:
        """Try a change again whose outcome is unknown. Raises as `put` does."""
        new = self._pending
        if new is None:
            return
        try:
            self._coordinator.replace(new, generation=new.generation)
        except Unavailable as error:
            if isinstance(error, Deposed):
                self._pending = None
            raise
        except SkerryError:
            self._pending = None
            raise
        self._pending = None
        self.know(new)

    def know(self, newer: Description) -> None:
        """Take in what the description says now."""
        for field in fields(newer):
            setattr(self.app, field.name, getattr(newer, field.name))
