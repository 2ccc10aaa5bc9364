"""Messages between links: a few parts, the first of which says what they are.

    FRAME   shard | packet                      a packet for a shard's inlet; it may be lost
    BEAT                                        the other end answers it with another
    BEAT    number                              on a connection of talk: that of the last message sent
    TALK    number | kind | conversation | data   numbered, so that a loss is seen

Talk is of conversations with doors: OPEN (data: which door), DATA, TAKEN (data: how many bytes the
reader has read), END. RESET tells the end that opened the connection that something was lost.

Formats only. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import struct

FRAME, BEAT, TALK, RESET = b"F", b"B", b"T", b"R"
OPEN, DATA, TAKEN, END = b"O", b"D", b"A", b"E"

COUNT = struct.Struct("<Q")
"""Numbers, conversations and counts."""

SHARD = struct.Struct("<q")

LEADER = -1
"""In the place of a shard: the door of the supervisor that leads."""
