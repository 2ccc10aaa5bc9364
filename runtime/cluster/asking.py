"""Asks the servers what may be asked twice, again and again for a while.

An election takes 5 to 10 s, and servers that are restarted take longer. What is asked here has the
same effect once or twice, so no answer means that it is asked again.

Does network I/O and decides nothing. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import time
from typing import TypeVar

from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from skerry.errors import SkerryError, StoreFull
from skerry.runtime.cluster.engine import Ask, Away, Closed, Engine
from skerry.runtime.cluster.stream import ASK_S, FULL

PATIENCE_S = 30.0
"""How long the servers may be away as a rule before what is asked is given up."""

PAUSE_S = 0.25
"""How long to wait before the same is asked again."""

T = TypeVar("T")


class Asking:
    """What is asked on behalf of one thing of ours.

    Args:
        what: whose name errors begin with, as "Snapshots of shard 3".
        patience_s: how long the servers may be away before this is given up; 0: they are asked once.
    """

    def __init__(self, engine: Engine, what: str, patience_s: float = PATIENCE_S) -> None:
        self._engine, self._what, self._patience_s = engine, what, patience_s

    def ask(self, ask: Ask[T], limit_s: float = ASK_S) -> T:
        """Return the answer, each of which may take so long.

        Raises Away: there was none for long; NotFoundError; StoreFull; SkerryError.
        """
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return self._engine.run(lambda client: self._with_room(ask, client), limit_s)
            except (Closed, NotFoundError):
                raise
            except Away:
                if time.monotonic() > until:
                    raise
            except APIError as error:
                if time.monotonic() > until:
                    raise SkerryError(
                        f"{self._what}: NATS refuses this, it says: {error.description}. Look at the "
                        f"servers with `nats server report jetstream`."
                    ) from error
            time.sleep(PAUSE_S)

    async def _with_room(self, ask: Ask[T], client: Client) -> T:
        """Ask, and tell servers that are full from servers that do not answer."""
        try:
            return await ask(client)
        except APIError as error:
            if error.err_code not in FULL:
                raise
            raise StoreFull(
                f"{self._what}: NATS has no room, it says: {error.description}. What counted before "
                f"still counts. Make room on the servers, or raise their limits."
            ) from error
