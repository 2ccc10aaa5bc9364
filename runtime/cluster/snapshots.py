"""Snapshots of a shard's store in NATS, and the pointer that says which of them count.

    save:  folder -> parts -> manifest -> read back -> pointer moves -> what does not count is purged
    load:  pointer -> manifest -> parts -> a new folder

A snapshot is a copy of a store up to a message of the shard's log. It has a name of its own, so an
upload never touches what another one has made. The pointer moves by compare-and-set and only to a
later message: an owner that was replaced, and goes on with an older snapshot, does not bring that
one back. It names the newest two, and the log keeps what follows the older one.

An upload is purged by somebody else only if the pointer is past it, so it can't win any more.

Does network and file I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from skerry.errors import SkerryError, StoreDamaged, StoreFull
from skerry.runtime.cluster import names
from skerry.runtime.cluster.asking import PATIENCE_S, PAUSE_S, Asking
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.parts import (
    PART_BYTES,
    File,
    cut,
    digest_of,
    put_together,
)
from skerry.runtime.cluster.snapshot_pointer import Pointer, PointerKey, Pointers
from skerry.runtime.cluster.snapshot_stream import (
    DIGEST,
    check,
    digests,
    payload_of,
    settings,
    uploads,
)
from skerry.runtime.cluster.stream import ASK_S, HEADERS_BYTES
from skerry.runtime.store.disk import sync_path

REST = 1.0
"""How long an upload rests after a part, as a multiple of the time that the part took. So the
commits that are appended meanwhile have the servers to themselves half of the time, however slow
these are."""

REST_MAX_S = 1.0

LOADED_AT_ONCE = 4
"""How many parts are asked for together. What they take is all that a load keeps in memory."""

PART_BYTES_MIN = 4096
"""What a part must be able to hold."""

_NAME = re.compile(r"(\d+)-\d+-[0-9a-f]{8}")
"""A snapshot's name: its sequence and commit, and a random number."""


class Outdated(SkerryError):
    """A snapshot was purged while it was loaded: newer ones are there. Nothing is damaged."""


class Snapshots:
    """The snapshots of one shard. One thread uses it.

    Args:
        replicas: how many servers hold each part.
        patience_s: how long the servers may be away before what is asked is given up.
    """

    def __init__(
        self,
        engine: Engine,
        app: str,
        incarnation: str,
        shard: int,
        replicas: int,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._shard = shard
        self._asking = Asking(engine, f"Snapshots of shard {shard}", patience_s)
        self.stream = names.snapshots_of(app)
        self._settings = settings(self.stream, replicas=replicas)
        self._life = names.life_of(incarnation)
        self._prefix = names.parts_of(app, incarnation, shard)
        self._pointer = PointerKey(
            self._asking, names.of_app(app), names.pointer_of(incarnation, shard)
        )

    def prepare(self) -> None:
        """Make the stream for snapshots of all shards, or check that it is as it was made.

        Raises StoreDamaged: it was edited; Away.
        """
        try:
            self._check()
        except NotFoundError:
            made = self._asking.ask(lambda client: client.jetstream().add_stream(self._settings))
            check(made.config, self._settings)

    def _check(self) -> None:
        """Raises NotFoundError: there is no stream; StoreDamaged; Away."""
        found = self._asking.ask(lambda client: client.jetstream().stream_info(self.stream))
        check(found.config, self._settings)

    # ── the pointer ──

    def newest(self) -> Pointer | None:
        """Return the newest snapshot; None: there is none. Raises StoreDamaged; Away."""
        found = self._pointer.read()[0]
        return found.newest if found else None

    def before(self) -> Pointer | None:
        """Return the snapshot before the newest; None: there is none. Raises StoreDamaged; Away."""
        found = self._pointer.read()[0]
        return found.before if found else None

    def safe_sequence(self) -> int:
        """Return up to which message the log may be purged, that one included; 0: not at all.

        It is what the snapshot before the newest has. So the log still follows that one, if the
        newest is damaged. Raises StoreDamaged; Away.
        """
        before = self.before()
        return before.sequence if before else 0

    def remove(self) -> None:
        """Remove all snapshots of a shard that has left, and the pointer. Raises Away."""
        self._pointer.remove()
        with suppress(NotFoundError):  # No shard has ever saved one.
            self._purge_under(self._prefix)

    # ── up ──

    def remove_earlier(self) -> None:
        """Remove what all shards of earlier lives of the app have left, as far as the servers answer.

        Only once the bucket describes this life of it: before, another one may be on its way there.
        """
        with suppress(SkerryError, NotFoundError):  # They take room, and do no other harm.
            lives = self._asking.ask(lambda client: uploads(client, self.stream, self.stream))
            for life in lives - {self._life}:
                self._purge_under(f"{self.stream}.{life}")

    def save(self, folder: Path, *, commit: int, sequence: int) -> None:
        """Upload a store's copy. Then the newest snapshot is this one, or one as new that was there.

        Before the pointer moves, the servers are asked for the subject and the digest of each part,
        as they have stored them. The payloads are not sent back: each is stored in one record with
        its digest, behind the server's own checksum.

        Args:
            commit: the newest commit in it.
            sequence: the message of the log up to which all commits are in it.

        Raises StoreFull; StoreDamaged: the servers have lost what they had acknowledged; Away.
        Then what counted before counts, and the next save purges what was uploaded.
        """
        self.prepare()
        stands, _ = self._pointer.read()
        if stands is not None:
            self._clean(stands)
            if stands.newest.sequence >= sequence:
                return
        name = f"{sequence}-{commit}-{os.urandom(4).hex()}"
        try:
            files: list[File] = []
            sent = [self._send(name, n, p) for n, p in enumerate(cut(folder, self._room(), files))]
            manifest = msgspec.msgpack.encode(files)
            room = self._room()
            tail = [manifest[at : at + room] for at in range(0, len(manifest), room)]
            sent += [self._send(name, n, p) for n, p in enumerate(tail, len(sent))]
        except StoreFull:
            with suppress(Away):
                self._purge(name)
            raise
        new = Pointer(
            name=name,
            sequence=sequence,
            commit=commit,
            size=sum(file.size for file in files),
            parts=len(sent) - len(tail),
            manifest_parts=len(tail),
            digest=digest_of(manifest).hex(),
        )
        self._read_back(new, sent)
        self._clean(self._pointer.move(new))

    def _room(self) -> int:
        """Return how large a part may be."""

        async def ask(client: Client) -> int:
            return client.max_payload

        most = self._asking.ask(ask)
        if most - HEADERS_BYTES < PART_BYTES_MIN:
            raise SkerryError(
                f"The servers of NATS take messages of {most:,} bytes, too few for parts of a "
                f"snapshot. Set max_payload to {HEADERS_BYTES + PART_BYTES_MIN:,} or more; the "
                f"default, 1MB, is best."
            )
        return min(PART_BYTES, most - HEADERS_BYTES)

    def _send(self, name: str, number: int, payload: bytes) -> str:
        """Send a part, and rest; return its digest. A second copy of it takes the place of the first."""
        digest = digest_of(payload).hex()
        headers = {DIGEST: digest, "Nats-Expected-Stream": self.stream}
        subject = f"{self._prefix}.{name}.{number}"
        begun = time.monotonic()
        self._asking.ask(
            lambda client: client.jetstream().publish(
                subject, payload, timeout=ASK_S, headers=headers
            )
        )
        time.sleep(min(REST * (time.monotonic() - begun), REST_MAX_S))
        return digest

    def _read_back(self, new: Pointer, sent: list[str]) -> None:
        """Compare the parts that the servers hold with those that were sent."""
        until = time.monotonic() + PATIENCE_S
        limit_s = ASK_S + len(sent) / 20  # From a slow disk.
        subject = f"{self._prefix}.{new.name}"
        while True:
            found: dict[str, str] = {}
            with suppress(NotFoundError):
                found = self._asking.ask(lambda c: digests(c, self.stream, subject), limit_s)
            wrong = [n for n, digest in enumerate(sent) if found.get(str(n)) != digest]
            if not wrong:
                return
            stands, _ = self._pointer.read()
            if stands is not None and stands.newest.sequence >= new.sequence:
                return  # A newer owner has purged them, and its snapshot counts.
            if time.monotonic() > until:
                break
            time.sleep(PAUSE_S)  # Perhaps a server was asked that had not heard of the last ones.
        raise StoreDamaged(
            f"{self._called(new.name)}: part {wrong[0]} was acknowledged by the servers of NATS and is "
            f"{'another one now' if str(wrong[0]) in found else 'not there'}. The snapshot does not "
            f"count, and those before it do. Look at the servers with `nats stream info "
            f"{self.stream}` and at their logs."
        )

    def _clean(self, stands: Pointers) -> None:
        """Purge the snapshots and uploads of this shard that can't count any more.

        What is later than the pointer may be the upload of a newer owner: it stays.
        """
        kept = {one.name for one in (stands.newest, stands.before) if one is not None}
        with suppress(Away, NotFoundError):  # The next save does it.
            there = self._asking.ask(lambda client: uploads(client, self.stream, self._prefix))
            for name in there - kept:
                known = _NAME.fullmatch(name)
                if known and int(known[1]) <= stands.newest.sequence:
                    self._purge(name)

    def _purge(self, name: str) -> None:
        self._purge_under(f"{self._prefix}.{name}")

    def _purge_under(self, prefix: str) -> None:
        subject = f"{prefix}.>"
        self._asking.ask(
            lambda client: client.jetstream().purge_stream(self.stream, subject=subject)
        )

    # ── down ──

    def load(self, pointer: Pointer, folder: Path) -> None:
        """Download a snapshot into a new folder, private and synced.

        Nothing is used before its digest was compared. What can't be had whole leaves no folder.

        Raises StoreDamaged: a part is missing or damaged, so try the snapshot before this one;
        Outdated: ask for the newest again; Away; OSError: the folder can't be written.
        """
        try:
            self._check()
        except NotFoundError as error:
            raise self._damaged(pointer, "the stream is missing") from error
        folder.mkdir(mode=0o700)
        try:
            files = self._manifest(pointer)
            try:
                put_together(
                    folder, files, lambda few: self._payloads(pointer, few), LOADED_AT_ONCE
                )
            except ValueError as error:
                raise self._damaged(pointer, str(error)) from error
            sync_path(folder)
            sync_path(folder.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _manifest(self, of: Pointer) -> list[File]:
        """Read what the snapshot is made of."""
        first, end = of.parts, of.parts + of.manifest_parts
        raw = b""
        for at in range(first, end, LOADED_AT_ONCE):
            raw += b"".join(self._payloads(of, range(at, min(at + LOADED_AT_ONCE, end))))
        try:
            if digest_of(raw).hex() != of.digest:
                raise ValueError("its bytes do not match its digest")
            return msgspec.msgpack.decode(raw, type=list[File])
        except ValueError as error:
            raise self._damaged(of, f"the manifest, from part {first} on: {error}") from error

    def _payloads(self, of: Pointer, numbers: range) -> list[bytes]:
        """Return what was sent as these parts."""
        subjects = [f"{self._prefix}.{of.name}.{number}" for number in numbers]

        async def ask(client: Client) -> list[bytes | None]:
            return await asyncio.gather(
                *(payload_of(client, self.stream, each) for each in subjects)
            )

        payloads = []
        for number, payload in zip(numbers, self._asking.ask(ask), strict=True):
            if payload is None:
                raise self._damaged(of, f"part {number} is missing")
            payloads.append(payload)
        return payloads

    def _called(self, name: str) -> str:
        return f"Snapshot {name} of shard {self._shard}"

    def _damaged(self, of: Pointer, what: str) -> SkerryError:
        stands, _ = self._pointer.read()
        if stands is not None and of not in (stands.newest, stands.before):
            return Outdated(
                f"{self._called(of.name)} was purged while it was loaded, since newer ones count. "
                f"Load the newest."
            )
        return StoreDamaged(
            f"{self._called(of.name)} is damaged in the stream {self.stream}: {what}. Nothing of it "
            f"is used. Take the snapshot before it; if that one is damaged, too, look at the servers "
            f"of NATS, or restore the app's last backup."
        )
