"""Requests: the entity, handler and arguments that a caller names, checked and as bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from skerry.arguments import Args
from skerry.entity import Entity
from skerry.handler import Handler
from skerry.limits import check_key

_encode = msgspec.msgpack.Encoder().encode


def named_id(entity: str, key: str, handler: str, idempotency_key: str) -> bytes:
    """Return 16 bytes that identify a request, the same for every client with this key."""
    text = f"{entity}\0{key}\0{handler}\0{idempotency_key}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def refuse_private(handler: Handler) -> None:
    """Refuse a handler that only its own entity may name. Raises TypeError."""
    if handler.private:
        raise TypeError(
            f"{handler.entity}.{handler.name} is private: only the entity itself names it"
        )


def packed(handler: Handler, args: Args) -> bytes:
    """Return arguments as bytes. Raises TypeError: msgpack can't carry a value."""
    if isinstance(args, bytes):
        return args
    try:
        return _encode(args)
    except (OverflowError, UnicodeEncodeError) as error:
        raise TypeError(f"{handler.entity}.{handler.name}: {error}") from error


def named_entity(entity: Any) -> tuple[type[Entity], str]:
    """Return the class and key of `Account.at("alice")`.

    Raises:
        TypeError: it is no entity named by its key.
        ValueError: it has a key that can't be one.
    """
    owner = getattr(type(entity), "__skerry_owner__", None)
    if owner is None:
        raise TypeError(
            f"get takes an entity by its key, such as Account.at('alice'), not {entity!r:.80}"
        )
    check_key(entity.key)
    return owner, entity.key
