"""What callers and doors say to each other, and what it means; nothing that acts on it.

One message part each, a msgpack array whose first element names it: `["get", 7, "Account",
"alice"]`. Everything that a stranger could get wrong and that would hurt behind the door is
refused here, by type: lengths, signs and sizes, at the speed of the decoder.

Imports the core's vocabulary only. Idea: docs/clients.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from skerry.message import MESSAGE_BYTES_MAX
from skerry.runtime.shard.events import Confirmed, Outcome, Placement, Reply, Request, Requested

KEY_BYTES_MAX = 480
"""Bytes of a key in UTF-8: what the store's longest row key leaves room for."""

NAME_CHARS_MAX = 200
"""Characters of a type's or handler's name."""

PACKET_BYTES_MAX = 64 << 20
"""Bytes of one message to a door; the socket itself drops a caller that sends more."""

ASKS_MAX = 2048
"""Requests in one message: a few batches' worth, so that a door can go on between two."""

PAGE_ROWS = 1000
"""Entities in one answer to a scan."""

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Key = Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
Session = Annotated[bytes, Meta(min_length=16, max_length=16)]


class CheckedRequest(Request, array_like=True, frozen=True):
    """A `Request` as a door accepts it: the same fields in the same order, with their bounds."""

    session: Session
    number: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    previous: Number
    confirmed: Number
    first_ns: Number
    type: Name
    key: Key
    handler: Name
    args: Annotated[bytes, Meta(min_length=1, max_length=MESSAGE_BYTES_MAX)]
    reply: bool = True
    named: Annotated[bytes, Meta(max_length=16)] = b""


# ── a caller says ─────────────────────────────────────────────────────────────
# `n` numbers what is not a request: 1, 2, 3... as its caller likes.


class Hello(Struct, array_like=True, tag_field="says", tag="hello"):
    """Who are you? Answered by `Welcome`."""


class Ask(Struct, array_like=True, tag_field="says", tag="ask"):
    """One request."""

    request: CheckedRequest


class Asks(Struct, array_like=True, tag_field="says", tag="asks"):
    """Many requests; those of one session to one slot in the order of their numbers."""

    requests: list[CheckedRequest]


class Confirm(Struct, array_like=True, tag_field="says", tag="confirm"):
    """The session holds the outcome of every request up to `upto`."""

    session: Session
    upto: Number


class Get(Struct, array_like=True, tag_field="says", tag="get"):
    """The committed state of an entity: `[state or nil, its schema or nil]`."""

    n: int
    type: Name
    key: Key


class Scan(Struct, array_like=True, tag_field="says", tag="scan"):
    """Entities of a type behind `after`: `[[[key, state], ...], {schema id: schema}]`."""

    n: int
    type: Name
    prefix: Annotated[str, Meta(max_length=KEY_BYTES_MAX)]
    after: Annotated[str, Meta(max_length=KEY_BYTES_MAX)]
    limit: Annotated[int, Meta(ge=1)]


class Count(Struct, array_like=True, tag_field="says", tag="count"):
    """How many entities of a type this shard holds."""

    n: int
    type: Name


class Status(Struct, array_like=True, tag_field="says", tag="status"):
    """How the shard is doing."""

    n: int


class Dead(Struct, array_like=True, tag_field="says", tag="dead"):
    """Dead letters: 'list', 'show', 'retry', 'drop'."""

    n: int
    action: str
    id: bytes | None = None


class Backup(Struct, array_like=True, tag_field="says", tag="backup"):
    """Take cut `no`, and copy it to a folder: `[epoch, commit, bytes]` when that is done."""

    n: int
    no: Number
    folder: Annotated[str, Meta(min_length=1)]


class Steer(Struct, array_like=True, tag_field="says", tag="control"):
    """The supervisor's word: 'quiet', 'drain', 'stop'."""

    n: int
    word: str


Call = Hello | Ask | Asks | Confirm | Get | Scan | Count | Status | Dead | Backup | Steer


# ── a door says ───────────────────────────────────────────────────────────────


class Greeting(Struct):
    """Who a door is, and what its app offers."""

    incarnation: bytes
    shard: int
    epoch: int
    placement: Placement
    now_ns: int
    app: str
    types: dict[str, list[str]]
    """Public handlers by entity type."""


class Welcome(Struct, array_like=True, tag_field="says", tag="welcome"):
    """The answer to `Hello`."""

    greeting: Greeting


class Outcomes(Struct, array_like=True, tag_field="says", tag="outcomes"):
    """What became of requests."""

    pairs: list[tuple[int, Outcome]]


class Answer(Struct, array_like=True, tag_field="says", tag="answer"):
    """The value that call `n` asked for."""

    n: int
    value: Any


class Refusal(Struct, array_like=True, tag_field="says", tag="error"):
    """Call `n` could not be answered; 0 when the door could not read so much as its number."""

    n: int
    error: str
    text: str


Word = Welcome | Outcomes | Answer | Refusal

encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_word = msgspec.msgpack.Decoder(Word).decode


Caller = Any
"""Where answers go: whatever names a caller at its door."""


def outcomes(replies: Iterable[Reply]) -> Iterator[tuple[Caller, Outcomes]]:
    """Replies as one message per caller."""
    by_caller: dict[Caller, list[tuple[int, Outcome]]] = {}
    for reply in replies:
        by_caller.setdefault(reply.caller, []).append((reply.number, reply.outcome))
    for caller, pairs in by_caller.items():
        yield caller, Outcomes(pairs)


# ── what a call means to a worker ─────────────────────────────────────────────


class Control(Struct, frozen=True):
    """What a caller wants that is not a request to an entity: the worker answers it itself."""

    caller: Caller
    n: int
    kind: str
    """hello, get, scan, count, status, dead, backup or control."""
    args: tuple[Any, ...] = ()


def events(caller: Caller, call: Call) -> Iterator[Requested | Confirmed | Control]:
    """One message as events; all of it, or a ValueError and none."""
    match call:
        case Asks(requests):
            for request in requests:
                _check(request)
            return iter([Requested(caller, request) for request in requests])
        case Ask(request):
            _check(request)
            return iter((Requested(caller, request),))
        case Confirm(session, upto):
            return iter((Confirmed(session, upto),))
        case Hello():
            return iter((Control(caller, 0, "hello"),))
        case Get(n, type_name, key):
            _check_key(key)
            control = Control(caller, n, "get", (type_name, key))
        case Scan(n, type_name, prefix, after, limit):
            control = Control(caller, n, "scan", (type_name, prefix, after, limit))
        case Count(n, type_name):
            control = Control(caller, n, "count", (type_name,))
        case Status(n):
            control = Control(caller, n, "status")
        case Dead(n, action, id):
            control = Control(caller, n, "dead", (action, id))
        case Backup(n, no, folder):
            control = Control(caller, n, "backup", (no, folder))
        case Steer(n, word):
            control = Control(caller, n, "control", (word,))
    return iter((control,))


def _check(request: Request) -> None:
    """What types can't say of a request."""
    _check_key(request.key)
    if request.previous >= request.number:
        raise ValueError(f"request {request.number} can't follow request {request.previous}")
    if len(request.named) not in (0, 16):
        raise ValueError(f"the hash of an idempotency key has 16 bytes, not {len(request.named)}")


def _check_key(key: str) -> None:
    # A character takes at most 4 bytes, so most keys need no encoding to be judged.
    if len(key) > KEY_BYTES_MAX // 4 and len(key.encode()) > KEY_BYTES_MAX:
        raise ValueError(f"a key has at most {KEY_BYTES_MAX} bytes in UTF-8")
