"""The protocol between callers and workers: its messages, and what they mean to a worker.

Each message is a msgpack array whose first element names it: `["get", 7, "Account", "alice"]`.
Lengths, signs and sizes that would hurt a shard are refused here, by the types of the fields and so
at the speed of the decoder.

Imports the core's vocabulary only. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from skerry.limits import MESSAGE_BYTES_MAX
from skerry.runtime.core.events import (
    SLOTS,
    Confirmed,
    Reply,
    Requested,
    RequestRun,
)
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.stored import split
from skerry.runtime.core.wire import array_length

KEY_BYTES_MAX = 480
"""Bytes of a key in UTF-8: what the store's longest row key leaves room for."""

NAME_CHARS_MAX = 200
"""Characters of a type's or handler's name."""

PACKET_BYTES_MAX = MESSAGE_BYTES_MAX + (1 << 20)
"""Bytes of one message to a worker: the largest request fits. A caller that sends more is
disconnected."""

PACKET_BYTES = 1 << 18
"""Bytes of arguments at which a caller begins another message: a worker does other work between
two."""

ASKS_MAX = 2048
"""Requests in one message: a batch's worth."""

PAGE_ROWS = 1000
"""Entities in one answer to a scan."""

SLOTS_BYTES = SLOTS // 8
ALL_SLOTS = b"\xff" * SLOTS_BYTES

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Key = Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
SessionId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Slots = Annotated[bytes, Meta(min_length=SLOTS_BYTES, max_length=SLOTS_BYTES)]
"""A set of slots, a bit for each; see `slots_in` and `as_bits`."""


class CheckedRun(RequestRun, array_like=True):
    """A `RequestRun` within bounds: fields in the same order, each with its limits."""

    type: Name
    handler: Name
    reply: bool
    first_ns: Number
    numbers: Annotated[list[Annotated[int, Meta(ge=1, le=2**63 - 1)]], Meta(min_length=1)]
    previous: list[Number]
    keys: list[Key]
    args: Raw


# ── from callers ──────────────────────────────────────────────────────────────
# `n` numbers what is not a request, as its caller likes: 1, 2, 3...
# Slots move between shards. A question about slots is answered for those of them that the shard
# serves by then, in their order, and the answer says which slots it has read to their end: `read`.
# It is nil when the shard serves none of them, or not the one that `after` lies in: ask its owner.


class Hello(Struct, array_like=True, tag_field="says", tag="hello"):
    """Ask a worker who it is. Answered by `Welcome`."""


class Asks(Struct, array_like=True, tag_field="says", tag="asks"):
    """Make requests of a session; requests to one slot in the order of their numbers."""

    session: SessionId
    named: bool
    runs: Annotated[list[CheckedRun], Meta(max_length=ASKS_MAX)]


class Confirm(Struct, array_like=True, tag_field="says", tag="confirm"):
    """Confirm the outcomes of a session: of every request up to `upto`, but in the slots of `below`
    only up to a number of their own."""

    session: SessionId
    upto: Number
    below: dict[Annotated[int, Meta(ge=0, lt=SLOTS)], Number]


class Get(Struct, array_like=True, tag_field="says", tag="get"):
    """Ask for the committed state of an entity: `[state or nil, its schema or nil]`; nil when the
    shard does not serve its slot."""

    n: int
    type: Name
    key: Key


class Scan(Struct, array_like=True, tag_field="says", tag="scan"):
    """Ask for entities of a type in slots, behind the key `after` in its slot:
    `[[[key, state], ...], {schema id: schema}, read]`."""

    n: int
    type: Name
    prefix: Annotated[str, Meta(max_length=KEY_BYTES_MAX)]
    after: Annotated[str, Meta(max_length=KEY_BYTES_MAX)]
    limit: Annotated[int, Meta(ge=1)]
    slots: Slots = ALL_SLOTS


class Count(Struct, array_like=True, tag_field="says", tag="count"):
    """Ask how many entities of a type there are in slots: `[count, read]`."""

    n: int
    type: Name
    slots: Slots = ALL_SLOTS


class Status(Struct, array_like=True, tag_field="says", tag="status"):
    """Ask how a shard is doing."""

    n: int


class Dead(Struct, array_like=True, tag_field="says", tag="dead"):
    """Ask for dead letters of slots, without tracebacks: 'list' those behind an id, as
    `[[[id, letter], ...], read]`, or the 'oldest', as `[[[id, letter], ...], how many there are,
    read]`; or 'show', 'retry' or 'drop' one, which answer nil or 'moved' as `Get` does."""

    n: int
    action: str
    id: bytes | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_ROWS)] = PAGE_ROWS
    slots: Slots = ALL_SLOTS


class Backup(Struct, array_like=True, tag_field="says", tag="backup"):
    """Take snapshot marker `no`, and copy the rows to a folder; `[epoch, commit, bytes]` when done."""

    n: int
    no: Number
    folder: Annotated[str, Meta(min_length=1)]


class Steer(Struct, array_like=True, tag_field="says", tag="control"):
    """Steer a worker, as its supervisor: 'quiet' asks whether all is done, 'weigh' also how
    busy it is, 'stop' ends it."""

    n: int
    word: str


class Place(Struct, array_like=True, tag_field="says", tag="place"):
    """Tell a worker, as its supervisor, of the newest placement; how far it is when it has come there."""

    n: int
    placement: Placement


class Scale(Struct, array_like=True, tag_field="says", tag="scale"):
    """Tell a supervisor to change the number of workers; `scaler.Summary` as `Status` shows it."""

    n: int
    workers: int


class Hold(Struct, array_like=True, tag_field="says", tag="hold"):
    """Have a supervisor let no slot begin to move for some seconds; `scaler.Held`."""

    n: int


class Restart(Struct, array_like=True, tag_field="says", tag="restart"):
    """Tell a supervisor to replace the workers one by one; `restarter.Summary` as `Status` shows it."""

    n: int


class Leave(Struct, array_like=True, tag_field="says", tag="leave"):
    """Tell a supervisor to give all slots of its host away, and to end."""

    n: int


_Told = Leave | Steer | Place | Scale | Hold | Restart
Call = Hello | Asks | Confirm | Get | Scan | Count | Status | Dead | Backup | _Told


# ── from workers ──────────────────────────────────────────────────────────────


class Greeting(Struct):
    """Which worker this is, and what its app offers."""

    incarnation: bytes
    shard: int
    epoch: int
    placement: Placement
    now_ns: int
    app: str
    types: dict[str, list[str]]
    """Public handlers by entity type."""
    kept: list[str] = []
    """Types that the app's stores know, also those that this release does not have."""


class Welcome(Struct, array_like=True, tag_field="says", tag="welcome"):
    """The answer to `Hello`."""

    greeting: Greeting


class Outcomes(Struct, array_like=True, tag_field="says", tag="outcomes"):
    """Outcomes of requests: kind, numbers, and the body of each (`events.Reply`)."""

    runs: list[tuple[str, list[int], list[Raw]]]


class Answer(Struct, array_like=True, tag_field="says", tag="answer"):
    """The answer to call `n`."""

    n: int
    value: Any


class Refusal(Struct, array_like=True, tag_field="says", tag="error"):
    """The refusal of call `n`; 0: not even its number could be read."""

    n: int
    error: str
    text: str


Word = Welcome | Outcomes | Answer | Refusal

encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_word = msgspec.msgpack.Decoder(Word).decode


def array(elements: list[bytes]) -> bytes:
    """Return a msgpack array of elements that are encoded already."""
    count = len(elements)
    if count < 16:
        head = bytes((0x90 | count,))
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(elements)


def as_bits(slots: Iterable[int]) -> bytes:
    """Return distinct slots as `Slots`."""
    return sum(1 << slot for slot in slots).to_bytes(SLOTS_BYTES, "little")


def slots_in(bits: bytes) -> set[int]:
    """Return the slots that `as_bits` was given."""
    return {slot for slot in range(SLOTS) if bits[slot >> 3] >> (slot & 7) & 1}


Caller = Any
"""Where answers go: whatever names a caller at its listener."""


def outcomes(replies: Iterable[Reply]) -> Iterator[tuple[Caller, list[Any]]]:
    """Yield each caller with its replies as one `Outcomes` message, whose bodies stay encoded."""
    by_caller: dict[Caller, list[Any]] = {}
    for reply in replies:
        by_caller.setdefault(reply.caller, []).append((reply.kind, reply.numbers, reply.bodies))
    for caller, runs in by_caller.items():
        yield caller, ["outcomes", runs]


# ── what a call means to a worker ─────────────────────────────────────────────


class Control(Struct, frozen=True):
    """A call that is no request to an entity: the worker answers it itself."""

    caller: Caller
    n: int
    kind: str
    """hello, get, scan, count, status, dead, backup, control, place, scale, hold or restart."""
    args: tuple[Any, ...] = ()


def events(caller: Caller, call: Call, size: int) -> Iterator[Requested | Confirmed | Control]:
    """Return a message of `size` bytes as events. Raises ValueError, and then none of it is handled."""
    match call:
        case Asks(session, named, runs):
            for run in runs:
                _check(run)
            if named and [len(run.numbers) for run in runs] != [1]:
                raise ValueError("what has an idempotency key comes alone")
            return iter((Requested(caller, session, list(runs), named, size),))
        case Confirm(session, upto, below):
            return iter((Confirmed(session, upto, below),))
        case Hello():
            return iter((Control(caller, 0, "hello"),))
        case Get(n, type_name, key):
            _check_key(key)
            control = Control(caller, n, "get", (type_name, key))
        case Scan(n, type_name, prefix, after, limit, slots):
            control = Control(caller, n, "scan", (type_name, prefix, after, limit, slots))
        case Count(n, type_name, slots):
            control = Control(caller, n, "count", (type_name, slots))
        case Status(n):
            control = Control(caller, n, "status")
        case Dead(n, action, id, limit, slots):
            control = Control(caller, n, "dead", (action, id, limit, slots))
        case Backup(n, no, folder):
            control = Control(caller, n, "backup", (no, folder))
        case Steer(n, word):
            control = Control(caller, n, "control", (word,))
        case Place(n, placement):
            control = Control(caller, n, "place", (placement,))
        case Scale(n, workers):
            control = Control(caller, n, "scale", (workers,))
        case Hold(n):
            control = Control(caller, n, "hold", ())
        case Restart(n):
            control = Control(caller, n, "restart")
        case Leave(n):
            control = Control(caller, n, "leave")
    return iter((control,))


def _check(run: RequestRun) -> None:
    """Check what types can't say of a run of requests. Raises ValueError."""
    numbers, keys, count = run.numbers, run.keys, len(run.numbers)
    if not count == len(run.previous) == len(keys) == array_length(run.args):
        raise ValueError(
            f"{count} requests need as many keys and arguments, and what each of them follows"
        )
    if not all(map(operator.lt, numbers, numbers[1:])):
        raise ValueError(f"the numbers of requests ascend, but these are {numbers[:10]}")
    if not all(map(operator.lt, run.previous, numbers)):
        raise ValueError("a request can't follow one that was made after it")
    # A character takes at most 4 bytes, so most keys need no encoding to be judged.
    if max(map(len, keys)) > KEY_BYTES_MAX // 4:
        for key in keys:
            _check_key(key)
    if memoryview(run.args).nbytes > MESSAGE_BYTES_MAX:
        largest = max(memoryview(args).nbytes for args in split(run.args))
        if largest > MESSAGE_BYTES_MAX:
            raise ValueError(f"the arguments have {largest} bytes, more than {MESSAGE_BYTES_MAX}")


def _check_key(key: str) -> None:
    if len(key) > KEY_BYTES_MAX // 4 and len(key.encode()) > KEY_BYTES_MAX:
        raise ValueError(f"a key has at most {KEY_BYTES_MAX} bytes in UTF-8")


def turns_away(raw: bytes) -> bool:
    """Tell whether a message turns its caller away: the worker has no room, and proves nothing."""
    try:
        word = decode_word(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return isinstance(word, Refusal) and (word.n, word.error) == (0, "Busy")
