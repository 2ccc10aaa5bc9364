"""A snapshot in parts: files are cut, and put together by digests.

    folder -> parts -> manifest, cut likewise        manifest -> parts -> folder

A damaged part is found before anything is done with it. The manifest, which has all digests, proves
that the parts are those of one moment.

Parts are not compressed: zlib at its fastest takes longer for a store than the servers save, and
takes it from the cores that turns run on.

Does file I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash
from msgspec import Struct

PART_BYTES = 512 * 1024
"""The largest part. Smaller ones take longer: the servers sync once for each. Larger ones hold up
the commits that are appended meanwhile."""


class File(Struct, frozen=True, array_like=True):
    """A file of a snapshot. The manifest is the list of them; their parts are numbered through."""

    name: str
    size: int
    digest: bytes
    parts: list[bytes]
    """The digest of each."""


def digest_of(payload: bytes) -> bytes:
    """Return the digest of a part or a manifest."""
    return xxhash.xxh3_128_digest(payload)


def cut(folder: Path, part_bytes: int, files: list[File]) -> Iterator[bytes]:
    """Yield a folder's files part by part. Adds each file to `files` at its end."""
    for path in sorted(folder.iterdir()):
        size, whole, parts = 0, xxhash.xxh3_128(), list[bytes]()
        with path.open("rb") as file:
            while part := file.read(part_bytes):
                size += len(part)
                whole.update(part)
                parts.append(digest_of(part))
                yield part
        files.append(File(path.name, size, whole.digest(), parts))


def put_together(
    folder: Path, files: list[File], read: Callable[[range], list[bytes]], few: int
) -> None:
    """Write files into a folder, synced, of what `read` returns of a few numbered parts each time.

    Raises ValueError: what was read is not what was cut; it says which part.
    """
    first = 0
    for file in files:
        if Path(file.name).name != file.name:
            raise ValueError(f"{file.name!r} is no name of a file")
        whole, end = xxhash.xxh3_128(), first + len(file.parts)
        fd = os.open(folder / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as to:
            for at in range(first, end, few):
                numbers = range(at, min(at + few, end))
                for number, part in zip(numbers, read(numbers), strict=True):
                    if digest_of(part) != file.parts[number - first]:
                        raise ValueError(f"part {number}: its bytes do not match its digest")
                    whole.update(part)
                    to.write(part)
            to.flush()
            os.fsync(fd)
        if whole.digest() != file.digest:
            raise ValueError(f"the bytes of {file.name} do not match its digest")
        first = end
