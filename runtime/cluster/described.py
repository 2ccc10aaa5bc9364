"""The description of an app in its bucket, and this host's copy of it.

    newest()       what this host has heard of, without asking
    read()         asked for, and compared with the copy
    replace(new)   in the place of the one that was read or written last

Does network and file I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from pathlib import Path

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.app import directory
from skerry.runtime.cluster import joining
from skerry.runtime.cluster.bucket import Bucket, Entry, Overtaken
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.presence import DESCRIPTION, Presence
from skerry.runtime.description import Description
from skerry.runtime.ports import Deposed
from skerry.runtime.printable import Say
from skerry.runtime.store import sealed_file

ANSWER_S = 1.0
"""How long an answer may take."""


class Described:
    """The description, for a host that is present."""

    def __init__(
        self, engine: Engine, bucket: Bucket, presence: Presence, app: str, data: Path, say: Say
    ) -> None:
        self._engine, self._bucket, self._presence = engine, bucket, presence
        self._app, self._data, self._say = app, data, say
        self._based = 0
        """The revision of the description that `replace` is to replace."""
        self._decoded_last: tuple[int, Description | None] = (0, None)

    def read(self) -> Description | None:
        """Read the description, which `replace` replaces from then on; None: the app was never started.

        It is asked for once, and not at all while the servers are away: who calls has workers to look
        after, and asks again.

        Raises StoreDamaged; SkerryError: the data directory is another app's; Away.
        """
        newest, mine = self._asked(), self._mine()
        self._based = newest.revision
        if newest.value is None:
            if mine is not None:
                raise SkerryError(
                    f"{self._data} holds the app {mine.app!r}, which NATS at "
                    f"{', '.join(self._engine.servers)} does not know: it was not made there. Choose "
                    f"another folder with --data, or other servers with --cluster."
                )
            return None
        app = self._decoded(newest.value)
        if mine is not None and (mine.app, mine.directory) != (app.app, app.directory):
            raise SkerryError(
                f"{self._data} holds another app than {app.app!r} in NATS, or an earlier life of it. "
                f"Choose another folder with --data."
            )
        if mine is not None and _age(mine) > _age(app):
            raise StoreDamaged(
                f"The description of {app.app!r} in NATS is of start {app.generation}, version "
                f"{app.placement.version}; {self._data} has seen start {mine.generation}, version "
                f"{mine.placement.version}. NATS has lost what it acknowledged. Bring back the "
                f"servers that have it, or restore the app's last backup. Nothing was changed."
            )
        if mine != app:
            self._copy(app)
        return app

    def _asked(self) -> Entry:
        """Ask for the newest description, once. Raises StoreDamaged, Away."""
        if silent_s := self._presence.silent_s:
            raise Away(f"NATS has not answered for {silent_s:.0f} s.")
        found = self._bucket.look(DESCRIPTION, ANSWER_S)
        newest = self._presence.description
        if found.revision < newest.revision:
            return newest  # From a server that lags behind.
        if found.value is None and (left := self._left()):
            raise StoreDamaged(
                f"The bucket {self._bucket.name} in NATS has no description of the app {self._app!r}, but "
                f"{left}. Restore the app's last backup; if it is to begin anew, remove what is left "
                f"with `nats stream rm`. Nothing was changed."
            )
        self._presence.saw(found)
        return found

    def _left(self) -> str:
        """Say what shows that there was a description; empty: nothing does. Raises Away."""
        if self._presence.description.value is not None:
            return "it had one before"
        logs = joining.logs(self._engine, self._app)
        return f"its logs are there: {', '.join(logs)}" if logs else ""

    def newest(self) -> Description | None:
        """Return the newest description that this host has heard of, without asking; None: none yet.

        Raises StoreDamaged.
        """
        found = self._presence.description
        if found.value is not None and found.revision != self._decoded_last[0]:
            app = self._decoded(found.value)
            self._copy(app)
            self._decoded_last = found.revision, app
        return self._decoded_last[1]

    def replace(self, new: Description, *, generation: int) -> None:
        """Replace the description of this generation, durably. One that stands there already counts
        as written: an earlier try may have done it.

        It is tried once, as `read` is.

        Raises Deposed: another host leads by now; StoreDamaged. Nothing was changed then. Away:
        whether it was replaced is unknown; the same one is to be tried again.
        """
        value = sealed_file.encoded(new, indent=1)
        before = self._asked()
        if before.value != value:
            there = self._decoded(before.value).generation if before.value is not None else 0
            if there != generation:
                raise Deposed(self._changed(generation, f"it describes start {there}"))
            if before.revision != self._based:
                raise Deposed(self._changed(generation, "it describes another one now"))
            try:
                change = self._bucket.change(DESCRIPTION, value, before.revision)
                revision = change.attempt(ANSWER_S)
            except Overtaken:
                raise Deposed(self._changed(generation, "it describes another one now")) from None
            before = Entry(value, revision, "")
            self._presence.saw(before)
        self._based = before.revision
        self._copy(new)

    def _mine(self) -> Description | None:
        """Return this host's copy; None: there is none that can be read."""
        try:
            return directory.load(self._data)
        except StoreDamaged as damage:
            self._say(f"{damage} It is a copy, and is made anew from the cluster.")
            return None

    def _copy(self, app: Description) -> None:
        """Keep a copy in the data directory. The app does not depend on it, and goes on without."""
        try:
            directory.save(self._data, app)
        except SkerryError as error:
            self._say(f"{error} Tools on this machine read an older description until then.")

    def _changed(self, generation: int, instead: str) -> str:
        return (
            f"The description of {self._app!r} in NATS was changed by somebody else: start "
            f"{generation} has been, and {instead}. Nothing was written."
        )

    def _decoded(self, value: bytes) -> Description:
        return directory.decoded(
            value,
            f"The key {DESCRIPTION} of the bucket {self._bucket.name} in NATS",
            "Restore the app's last backup.",
        )


def _age(app: Description) -> tuple[int, int]:
    return app.generation, app.placement.version
