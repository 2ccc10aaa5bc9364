"""Simulated clients: the production session over lines that break.

A line to a door is up while its shard runs. When it breaks, what was on its way to the caller
is gone, and what was on its way to the door is gone or arrives late: behind the caller's next
try. The caller's process may end, and its successor repeats what it gave a name.

Knows the cluster's network and clock; nothing of shards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from skerry.errors import UnknownEntity, UnknownHandler
from skerry.message import Message
from skerry.runtime.client.session import Session
from skerry.runtime.client.walk import Walk
from skerry.runtime.core.events import Outcome
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.gateway import protocol

SECONDS_PER_STEP = 0.005
"""A caller's second is 200 steps: its patience is then some restarts of a shard long."""

TICK_STEPS = 10

Name = tuple[int, int, int]
"""A caller's line: (caller, shard, how often it broke)."""


class Ground(Protocol):
    """What callers stand on."""

    @property
    def clock_ns(self) -> int:
        """Return the time of a clock that is never set."""
        ...

    @property
    def step_no(self) -> int:
        """The number of the step."""
        ...

    @property
    def rng(self) -> random.Random:
        """The simulation's random numbers."""
        ...

    def reachable(self, name: Name) -> bool:
        """Whether this line to a door can be up."""
        ...

    def to_door(self, name: Name, raw: bytes) -> None:
        """Carry bytes to a door."""
        ...

    def answered(self, id: int, outcome: Outcome) -> None:
        """A request has its outcome."""
        ...

    def looked(self, id: int, state: bytes | None) -> None:
        """A look at a state has its answer."""
        ...

    def scanned(self, id: int, keys: list[str]) -> None:
        """A scan has come to its end."""
        ...


class _Wish(Struct):
    """A request as the program makes it, until its session has taken it."""

    id: int
    message: Message[Any]
    args: bytes
    reply: bool
    named: bytes


class _Scan(Struct):
    """A look at all states of a type, page by page."""

    type: str
    limit: int
    walk: Walk
    said: int = -1
    """The shard that was asked for the next page; -1: none on a line that still holds."""
    keys: list[str] = []


class Caller:
    """One client process."""

    def __init__(self, number: int, shards: Sequence[int], ground: Ground) -> None:
        self.number, self._ground = number, ground
        self._shards = shards
        self._breaks = dict.fromkeys(self._shards, 0)
        self._up: set[int] = set()
        self._asked: dict[int, _Wish] = {}
        """What has no outcome yet, by id."""
        self.refused: set[int] = set()
        """What was refused by a full store, and asked anew: behind what was asked since."""
        self.believed: dict[str, list[str]] = {}
        """Handlers by type that its release takes for granted, whatever a door offers."""
        self._looks: dict[int, tuple[int, bytes]] = {}
        self._scans: dict[int, _Scan] = {}
        self.started()

    def started(self) -> None:
        """A new process: a new session, that knows nothing of the one before."""
        for shard in self._shards:
            self.broken(shard)
        self.session = Session(self._ground.rng.randbytes(16), self)
        self._wishes: list[_Wish] = []
        self._looks.clear()
        self._scans.clear()
        self._flush = False
        left, self._asked = self._asked, {}
        for wish in left.values():
            if wish.named:
                self._wish(wish)

    # ── what the session speaks by ──

    def say(self, shard: int, raw: bytes) -> bool:
        """Send a message; False when the line is not connected."""
        if shard in self._up:
            self._ground.to_door(self.line(shard), raw)
        return shard in self._up

    def up(self, shard: int) -> bool:
        """Tell whether the line to a shard is connected."""
        return shard in self._up

    def begin(self) -> None:
        """Have the session flushed in the next step."""
        self._flush = True

    def clock_ns(self) -> int:
        """See `session.Lines`."""
        return self._ground.clock_ns

    @property
    def _now_s(self) -> float:
        return self._ground.step_no * SECONDS_PER_STEP

    # ── what the program wants ──

    def ask(self, id: int, message: Message[Any], *, reply: bool, named: bytes) -> None:
        """A request, by the cluster's own number for it."""
        args = message.args
        blob = args if isinstance(args, bytes) else msgspec.msgpack.encode(args)
        self._wish(_Wish(id, message, blob, reply, named))

    def _wish(self, wish: _Wish) -> None:
        self._asked[wish.id] = wish
        self._wishes.append(wish)
        self._grant()

    def look(self, id: int, type_name: str, key: str) -> None:
        """The committed state of an entity."""
        self._looks[id] = (-1, msgspec.msgpack.encode(["get", id, type_name, key]))
        self._ask_looks()

    def _grant(self) -> None:
        if self.session.greeting is None:
            return
        wishes, self._wishes = self._wishes, []
        for wish in wishes:
            handler = wish.message.handler
            try:
                self.session.request(
                    handler.entity,
                    wish.message.key,
                    handler.name,
                    wish.args,
                    self._done(wish),
                    reply=wish.reply,
                    query=handler.query,
                    named=wish.named,
                )
            except (UnknownEntity, UnknownHandler) as error:
                body = msgspec.msgpack.encode([type(error).__name__, str(error)])
                self._finish(wish, Outcome("invalid", body))

    def _done(self, wish: _Wish) -> Callable[[int, Outcome], None]:
        def done(number: int, outcome: Outcome) -> None:
            full = outcome.kind == "invalid" and b"StoreFull" in outcome.body
            if full:  # Nothing ran: the program asks anew.
                self.refused.add(wish.id)
                self._wish(wish)
            else:
                self._finish(wish, outcome)

        return done

    def _finish(self, wish: _Wish, outcome: Outcome) -> None:
        self._asked.pop(wish.id, None)
        self._ground.answered(wish.id, outcome)

    def _ask_looks(self) -> None:
        """Say to its owner what was not said on a line that still holds."""
        greeting = self.session.greeting
        if greeting is None:
            return
        for id, (said, raw) in self._looks.items():
            _, _, type_name, key = msgspec.msgpack.decode(raw)
            owner = self.session.owner(type_name, key)
            if said < 0 and self.say(owner, raw):
                self._looks[id] = (owner, raw)

    def scan(self, id: int, type_name: str, limit: int) -> None:
        """The keys of a type's states, so many at a time."""
        self._scans[id] = _Scan(type_name, limit, Walk("", partial(slot_of, type_name)))
        self._ask_pages()

    def _ask_pages(self) -> None:
        if self.session.greeting is None:
            return
        owners = self.session.greeting.placement.slots
        for id, scan in self._scans.items():
            if scan.said < 0:
                shard, slots = scan.walk.next(owners)
                page = (scan.type, "", scan.walk.after, scan.limit, slots)
                if self.say(shard, msgspec.msgpack.encode(["scan", id, *page])):
                    scan.said = shard

    def _got_page(self, id: int, rows: list[tuple[str, bytes]], read: bytes) -> None:
        scan = self._scans[id]
        scan.said, scan.keys = -1, scan.keys + [key for key, _ in rows]
        scan.walk.took(read, rows[-1][0] if rows else None)
        if scan.walk.over:
            del self._scans[id]
            self._ground.scanned(id, scan.keys)
        self._ask_pages()

    @property
    def waits(self) -> bool:
        """Whether anything has no answer yet."""
        return bool(self._asked or self._looks or self._scans)

    # ── lines ──

    def broken(self, shard: int) -> None:
        """The line to this door broke."""
        self._up.discard(shard)
        self._breaks[shard] += 1
        for id, (said, raw) in self._looks.items():
            self._looks[id] = (-1 if said == shard else said, raw)
        for scan in self._scans.values():
            scan.said = -1 if scan.said == shard else scan.said

    def rerouted(self, shards: Sequence[int]) -> None:
        """The app was started anew with these doors."""
        for shard in self._shards:
            self.broken(shard)
        self._shards = shards
        self._breaks |= dict.fromkeys(shards, 0)
        self.session.reroute()

    def doors(self, shards: Sequence[int]) -> None:
        """The app goes on, and has these doors from now on."""
        for shard in set(self._shards) - set(shards):
            self.broken(shard)
        self._breaks |= dict.fromkeys(set(shards) - set(self._shards), 0)
        self._shards = shards
        for shard in sorted(self._up):
            self.say(shard, protocol.encode(protocol.Hello()))

    def line(self, shard: int) -> Name:
        """Its line to this door, as it is."""
        return self.number, shard, self._breaks[shard]

    def is_on(self, name: Name) -> bool:
        """Whether this line has not broken since."""
        return self._breaks[name[1]] == name[2]

    def heard(self, name: Name, raw: bytes) -> None:
        """Bytes from a door."""
        if not self.is_on(name):
            return
        match protocol.decode_word(raw):
            case protocol.Outcomes() | protocol.Welcome() as word:
                if isinstance(word, protocol.Welcome):
                    for type_name, handlers in self.believed.items():
                        word.greeting.types.setdefault(type_name, []).extend(handlers)
                self.session.heard(name[1], word, self._now_s)
                self._grant()
                self._ask_looks()
                self._ask_pages()
            case protocol.Answer(id, None) if id in self._looks or id in self._scans:
                # Its slots have moved: who owns them now?
                if id in self._scans:
                    self._scans[id].said = -1
                else:
                    self._looks[id] = (-1, self._looks[id][1])
                self.say(name[1], protocol.encode(protocol.Hello()))
            case protocol.Answer(id, value) if self._looks.pop(id, None) is not None:
                self._ground.looked(id, value[0])
            case protocol.Answer(id, [rows, _, read]) if id in self._scans:
                self._got_page(id, rows, read)

    def step(self) -> None:
        """Lines come up and go down; what was asked leaves; what is overdue is said again."""
        for shard in self._shards:
            reachable = self._ground.reachable(self.line(shard))
            if shard in self._up and not reachable:
                self.broken(shard)
            elif shard not in self._up and reachable:
                self._up.add(shard)
                self.session.connected(shard)
                self._ask_looks()
                self._ask_pages()
        if self._flush:
            self._flush = False
            self.session.flush(self._now_s)
        if self._ground.step_no % TICK_STEPS == 0:
            self.session.tick(self._now_s)
