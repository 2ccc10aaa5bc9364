"""Limits: how large a key and a message may be.

A message that fits is one that every shard, client and store takes. What does not fit is
refused where it is made, with a sentence that names it.
"""

from __future__ import annotations

KEY_BYTES_MAX = 480
"""The size of a key in UTF-8, so that a row's key fits in the 511 bytes that LMDB allows."""

MESSAGE_BYTES_MAX = 8 << 20
"""The size of one message's arguments or reply, encoded."""

LARGE = MESSAGE_BYTES_MAX // 8
"""Text and bytes up to this length are not measured: a few of them always fit in a message."""

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
"""The range of an int in msgpack."""


def check_key(key: object) -> None:
    """Refuse anything that can't be a key.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty, too long, or holds half a character.
    """
    if not isinstance(key, str):
        raise TypeError(f"an entity's key is a str, not {type(key).__name__}: {key!r}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"an entity's key is text that UTF-8 can carry; {key!r} is not") from None
    if not 0 < size <= KEY_BYTES_MAX:
        raise ValueError(
            f"an entity's key has 1 to {KEY_BYTES_MAX} UTF-8 bytes; this one has {size}: {key[:40]!r}"
        )


def check_keys(keys: list[str]) -> None:
    """Refuse a batch of keys if one of them can't be a key.

    Three passes in C look at all keys together; only a batch that fails is looked at key by key.

    Raises:
        TypeError, ValueError: names the first wrong key.
    """
    try:
        plain = "".join(keys).isascii()
    except TypeError:  # Not all of them are texts: the loop says which.
        plain = False
    sizes = set(map(len, keys)) if plain else set()
    if not plain or 0 in sizes or max(sizes, default=0) > KEY_BYTES_MAX:
        for key in keys:
            check_key(key)


def measured(body: bytes, what: str, instead: str = "") -> bytes:
    """Return a body that fits in a message.

    Args:
        body: encoded arguments, reply or item.
        what: how the error begins, as "Account.deposit: the arguments have".
        instead: how the error ends: what to do about it.

    Raises:
        ValueError: the body is too large.
    """
    if len(body) > MESSAGE_BYTES_MAX:
        raise ValueError(
            f"{what} {len(body):,} bytes, more than the {MESSAGE_BYTES_MAX:,} of a message{instead}"
        )
    return body


def is_text(text: str) -> bool:
    """Tell whether UTF-8 can carry a text: whether it is free of half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
