"""The key that says which snapshots of a shard count: it moves forward only.

    read -> a newer or equal one stands -> done
         -> write, expecting the revision that was read -> read again, whatever was answered

An answer may be lost, and a refusal may be of a write of ours that was taken. So only the key itself
tells whether it has moved: a snapshot's name is that of one upload.

Does network I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import time
from contextlib import suppress

from msgspec import Struct
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError

from skerry.errors import StoreDamaged
from skerry.runtime.cluster.asking import PATIENCE_S, PAUSE_S, Asking
from skerry.runtime.cluster.engine import Away
from skerry.runtime.cluster.stream import ASK_S, WRONG_LAST
from skerry.runtime.store import sealed_file

NO_STREAM = 10059
"""JetStream: "stream not found"."""


class Pointer(Struct, frozen=True):
    """What is needed to find a snapshot, and to tell whether it is whole."""

    name: str
    sequence: int
    """The message of the shard's log up to which all commits are in it."""
    commit: int
    size: int
    """Bytes of its files."""
    parts: int
    """How many parts its files have. Those of the manifest follow."""
    manifest_parts: int
    digest: str
    """Of the manifest."""


class Pointers(Struct, frozen=True):
    """The snapshots of a shard that count."""

    newest: Pointer
    before: Pointer | None = None


class PointerKey:
    """The key of one shard.

    Args:
        bucket: the app's.
    """

    def __init__(self, asking: Asking, bucket: str, key: str) -> None:
        self._asking, self._bucket, self._key = asking, bucket, key
        self._subject = f"$KV.{bucket}.{key}"

    def read(self) -> tuple[Pointers | None, int]:
        """Return what counts, and the key's revision. Raises StoreDamaged; Away."""
        try:
            value, revision = self._asking.ask(self._read)
        except NotFoundError:
            raise StoreDamaged(
                f"The bucket {self._bucket}, in which the app is described, is missing in NATS. "
                f"Bring back the servers that hold it, or restore the app's last backup. Nothing "
                f"was changed."
            ) from None
        if not value:
            return None, revision
        try:
            return sealed_file.decoded(value, Pointers), revision
        except ValueError as error:
            raise StoreDamaged(
                f"The key {self._key} of the bucket {self._bucket}, which names the snapshots of a "
                f"shard, is damaged: {error}. Look for who has written to it with `nats kv get "
                f"{self._bucket} {self._key}`, and restore the app's last backup. Nothing was changed."
            ) from error

    async def _read(self, client: Client) -> tuple[bytes, int]:
        try:
            found = await client.jetstream().get_msg(f"KV_{self._bucket}", subject=self._subject)
        except NotFoundError as error:
            if error.err_code == NO_STREAM:
                raise
            return b"", 0  # It was never written.
        return found.data or b"", found.seq or 0

    def move(self, new: Pointer) -> Pointers:
        """Move the key to a snapshot, unless it is as far already; return where it stands then.

        Raises StoreFull; StoreDamaged; Away: it may have moved.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            stands, revision = self.read()
            if stands is not None and stands.newest.sequence >= new.sequence:
                return stands
            if time.monotonic() > until:
                raise Away(
                    f"NATS has not taken the key {self._key} of the bucket {self._bucket} within "
                    f"{PATIENCE_S:g} s. Look at it with `nats stream info KV_{self._bucket}`."
                )
            if not self._write(Pointers(new, stands.newest if stands else None), revision):
                time.sleep(PAUSE_S)

    def _write(self, pointers: Pointers, revision: int) -> bool:
        """Write the key if it still has this revision; return whether that was the answer."""
        value = sealed_file.encoded(pointers)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}

        async def write(client: Client) -> bool:
            try:
                await client.jetstream().publish(
                    self._subject, value, timeout=ASK_S, headers=headers
                )
            except APIError as error:
                if error.err_code != WRONG_LAST:
                    raise
                return False
            return True

        return self._asking.ask(write)

    def remove(self) -> None:
        """Remove the key. Raises Away."""
        with suppress(NotFoundError):
            self._asking.ask(
                lambda client: client.jetstream().purge_stream(
                    f"KV_{self._bucket}", subject=self._subject
                )
            )
