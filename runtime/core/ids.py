"""Ids that are never used again: (shard, epoch, commit, index).

A batch that is thrown away begins again with the same ids, since nobody has seen them.
Pure.
"""

from __future__ import annotations

import struct

_ID = struct.Struct(">IQQI")


class Ids:
    """The ids of the open batch."""

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self._epoch = self._commit = self._index = 0

    def begin(self, epoch: int, commit: int) -> None:
        """Begin the batch that may become this commit, or begin it again."""
        self._epoch, self._commit, self._index = epoch, commit, 0

    def new(self) -> bytes:
        """24 bytes that are never used again."""
        self._index += 1
        return _ID.pack(self._shard, self._epoch, self._commit, self._index)
