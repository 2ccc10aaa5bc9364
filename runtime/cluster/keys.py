"""What an app's processes know of each other by, in the app's bucket.

Whoever can read the bucket is one of them. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime import as_json

KEY = "keys"
"""The key."""


class Keys(Struct, frozen=True):
    """Its value. The first host makes it."""

    secret: str
    """What callers and listeners prove themselves by: `gateway/knock.py`."""
    public: str
    """Of the pair of keys by which clients reach the hosts' links, as Z85."""
    private: str


def decoded(value: bytes, bucket: str) -> Keys:
    """Return the keys in the value. Raises StoreDamaged: no release of skerry has written it."""
    try:
        return as_json.decode(value, Keys)
    except ValueError as error:
        raise StoreDamaged(
            f"The key {KEY} of the bucket {bucket} in NATS does not read: {error}. Stop the app on all "
            f"hosts, delete that key, and start it again."
        ) from error
