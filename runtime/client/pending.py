"""One request of a caller, from when it is made until somebody is told its outcome.

At the shard, a request is known by its number: 1, 2, 3... in its session, or made from its
idempotency key. Once it was sent, it keeps its session, number and time for ever. Requests leave as
runs: one handler and one time for all, and a column for each other part.

No socket, no clock. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container
from typing import Any

from msgspec import Raw, Struct

from skerry.runtime.core.events import Outcome, RequestRun
from skerry.runtime.gateway import protocol

NAMED = 1 << 62
"""Numbers from here on are made from an idempotency key, in a session of its own."""

WAITED = Outcome("waited")
"""The caller's patience has ended: the request was sent, and its outcome is unknown."""

UNKNOWN = Outcome("late")
"""The request was sent, its outcome is unknown, and there is nothing left to wait for."""

UNSAID = Outcome("unsaid")
"""The request was never sent: nothing has happened, and nothing will."""

Done = Callable[[Any, Outcome], None]


class Kind(Struct, frozen=True, gc=False):
    """What the requests of a run have in common."""

    type: str
    handler: str
    reply: bool


class Pending(Struct, gc=False):
    """A request without an outcome, or whose outcome nobody has listened to yet."""

    kind: Kind
    key: str
    slot: int
    args: bytes
    query: bool
    done: Done | None
    """Called with `of` and the outcome; None: nobody listens any more, or yet."""
    of: Any
    until_s: float
    """When the patience of whoever listens ends."""
    named: bytes
    """Its idempotency key's hash; empty: it has none."""
    number: int = 0
    """0: it was never sent."""
    previous: int = 0
    """The session's request before it to the same slot, while that has no outcome, or 0."""
    first_ns: int = 0
    """The server's time when it was first sent."""
    sent_s: float = 0.0
    outcome: Outcome | None = None
    """What came when nobody listened."""

    def tell(self, outcome: Outcome) -> None:
        """Hand the outcome to whoever listens."""
        done, self.done = self.done, None
        if done is None:
            self.outcome = outcome
        else:
            done(self.of, outcome)


number_of = operator.attrgetter("number")


class Numbering:
    """The numbers of one session's requests, and which request follows which."""

    def __init__(self) -> None:
        self.newest = 0
        self._latest: dict[int, int] = {}
        """The newest request to each slot that changes something."""

    def number(self, call: Pending, in_flight: Container[int], now_ns: int) -> None:
        """Number a request, which is sent now for the first time."""
        call.first_ns = now_ns
        if call.named:
            call.number = NAMED | int.from_bytes(call.named[:7], "big")
            return
        call.number = self.newest = self.newest + 1
        # The slot holds this request until the one before it has run. A query leaves no row
        # behind, so nothing may wait for one.
        previous = self._latest.get(call.slot, 0)
        if previous in in_flight:
            call.previous = previous
        if not call.query:
            self._latest[call.slot] = call.number

    def start_anew(self) -> None:
        """Begin another session: none of its requests follows one that was sent before."""
        self._latest.clear()


def runs_of(calls: list[Pending]) -> list[RequestRun]:
    """Pack requests into runs."""
    return [_run(alike) for alike in _alike(calls)]


def _alike(calls: list[Pending]) -> list[list[Pending]]:
    """Group requests by kind and time; the requests to one slot keep their order.

    A request joins the newest run of its kind, unless one to the same slot stands behind that.
    """
    first = calls[0]
    if all(call.kind is first.kind and call.first_ns == first.first_ns for call in calls):
        return [calls]
    runs: list[list[Pending]] = []
    newest: dict[tuple[Kind, int], int] = {}
    touched: dict[int, int] = {}
    for call in calls:
        what = call.kind, call.first_ns
        place = newest.get(what, -1)
        if place < touched.get(call.slot, 0):
            place = newest[what] = len(runs)
            runs.append([])
        runs[place].append(call)
        touched[call.slot] = place
    return runs


def _run(calls: list[Pending]) -> RequestRun:
    kind = calls[0].kind
    return RequestRun(
        kind.type,
        kind.handler,
        kind.reply,
        calls[0].first_ns,
        [call.number for call in calls],
        [call.previous for call in calls],
        [call.key for call in calls],
        Raw(protocol.array([call.args for call in calls])),
    )
