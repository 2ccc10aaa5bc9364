"""Dead letters: messages that were refused or failed with nobody to tell.

A dead letter is a row of its entity's slot. It holds all that is needed to send the
message anew. One whose asker was given an outcome can be shown and dropped, not retried:
the asker has acted on that outcome (a refund), and both would count.

Idea: docs/entities.md.
"""

from __future__ import annotations

from msgspec import Struct

from skerry.runtime.shard.commit import slot_prefix
from skerry.runtime.shard.placement import slot_of


class DeadLetter(Struct, array_like=True, frozen=True):
    """A row of the DEAD table."""

    time_ns: int
    type: str
    key: str
    handler: str
    """Its name; empty when this release does not have it."""
    handler_id: int
    params: int
    args: bytes
    error: str
    traceback: str
    answered: bool


def dead_key(type_name: str, key: str, id: bytes) -> bytes:
    """The row of a dead letter."""
    return slot_prefix(slot_of(type_name, key)) + id
