"""What becomes of the stores of an app's members, on one machine.

Idea: docs/ideas/log.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from skerry.runtime.app import membership, room
from skerry.runtime.app.opening import open_app
from skerry.runtime.config import Config
from skerry.runtime.description import Description
from skerry.runtime.ports import Coordinator
from skerry.runtime.printable import Say


class Members(Protocol):
    """Makes and removes the stores of an app's members."""

    def open(self, config: Config) -> Description:
        """Note a start in the app's description, which is made when there is none, and return it.

        Raises SkerryError: this app can't run here; StoreDamaged.
        """
        ...

    def lead(self, config: Config, app: Description) -> Description | None:
        """Make the description that of a process which leads from now on, and return it; None: it can't
        be done now. Raises SkerryError."""
        ...

    def settled(self, config: Config) -> Config:
        """Return the settings for workers, once the app is open."""
        ...

    def free_ids(self, app: Description, count: int) -> list[int]:
        """Return ids for new shards, which no shard ever had."""
        ...

    def recruit(self, app: Description, shard: int) -> None:
        """Make the store of a shard that the next version of the placement will name, unless it is
        there."""
        ...

    def enrolled(self, app: Description, shard: int) -> None:
        """Note that a shard is a member, and will hold what no other does."""
        ...

    def retire(self, app: Description, shard: int) -> None:
        """Remove the store of a shard that has given all its slots away, and is no member any more."""
        ...

    def lacking_room(self, shards: Sequence[int], slots: int) -> str:
        """Say what is missing on the disk when so many slots of these shards are copied; empty: there is
        room."""
        ...


class DirectoryMembers:
    """The stores of an app on one machine, in its data directory."""

    def __init__(self, data: Path, coordinator: Coordinator, say: Say) -> None:
        self._data, self._coordinator, self._say = data, coordinator, say

    def open(self, config: Config) -> Description:
        """Note a start; see `Members.open`."""
        return open_app(config, self._coordinator, self._data, self._say)

    def lead(self, config: Config, app: Description) -> Description:
        """Return it as it is: nobody else leads."""
        return app

    def settled(self, config: Config) -> Config:
        """Return the settings as they are."""
        return config

    def free_ids(self, app: Description, count: int) -> list[int]:
        """Return ids for new shards, whose folders do not exist yet."""
        return membership.free_ids(self._data, app, count)

    def recruit(self, app: Description, shard: int) -> None:
        """Make a store."""
        membership.recruit(self._data, app, shard)

    def enrolled(self, app: Description, shard: int) -> None:
        """Note it on the store."""
        membership.enrolled(self._data, app, shard)

    def retire(self, app: Description, shard: int) -> None:
        """Remove a store."""
        membership.retire(self._data, app, shard)

    def lacking_room(self, shards: Sequence[int], slots: int) -> str:
        """Look at the disk of the data directory."""
        return room.lacking(self._data, shards, slots)
