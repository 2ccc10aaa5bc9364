"""JSON of records that name files: a file's name need not be UTF-8, as msgspec's JSON has to be.

Pure: records in, bytes out.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T", bound=Struct)


def encode(record: Struct, *, indent: int | None = None) -> bytes:
    """Encode a record in one line, or in lines that a person can read."""
    plain = msgspec.to_builtins(record, str_keys=True)
    separators = (",", ":") if indent is None else None
    return json.dumps(plain, indent=indent, separators=separators).encode()


def decode(text: bytes, type: type[T]) -> T:
    """Decode what `encode` made. Raises ValueError: it is no such record."""
    try:
        return msgspec.convert(json.loads(text), type, str_keys=True)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
