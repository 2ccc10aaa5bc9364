"""What clients of other releases ask of the app, and what becomes of it.

Their `Account` has other signatures, a handler that the app does not have, and lacks what the
app has since; they know an entity that is gone. Nothing of it may harm the requests around it.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import msgspec

from skerry import Entity, query
from skerry.message import Message
from tests.simulation.apps import Account as Ours

KEY = "foreign"


def _as_others_have_them() -> tuple[Any, Any]:
    class Account(Entity):
        @query
        def deposit(self, amount: int) -> int: ...  # type: ignore[empty-body]

        def worth(self) -> int: ...  # type: ignore[empty-body]

        def close(self) -> None: ...

        def _paid(self, balance: int, to: str) -> None: ...

    class Piggy(Entity):
        def feed(self, amount: int) -> None: ...

    return Account, Piggy


Theirs, Gone = _as_others_have_them()

BELIEVED = {"Account": ["close", "_paid"], "Piggy": ["feed"]}
"""Handlers that their clients take for granted, whatever a door offers."""


class Foreign(NamedTuple):
    """A request as another release makes it."""

    handler: Any
    args: Any
    kind: str
    """What must become of it."""
    deposits: int = 0

    def message(self) -> Message[Any]:
        """The request, its arguments as they travel."""
        return Message(self.handler, KEY, msgspec.msgpack.encode(self.args))


def _handler(kind: Any, name: str) -> Any:
    return kind.__skerry__.handlers[name]


_DEPOSIT = _handler(Ours, "deposit")

REQUESTS = [
    Foreign(_DEPOSIT, [1], "done", 1),
    Foreign(_DEPOSIT, {"amount": 1}, "done", 1),
    # Missing, additional and renamed parameters.
    Foreign(_DEPOSIT, [], "invalid"),
    Foreign(_DEPOSIT, {}, "invalid"),
    Foreign(_DEPOSIT, [1, 2], "invalid"),
    Foreign(_DEPOSIT, {"amount": 1, "currency": "EUR"}, "invalid"),
    Foreign(_DEPOSIT, {"sum": 1}, "invalid"),
    # Other types.
    Foreign(_DEPOSIT, ["much"], "invalid"),
    Foreign(_DEPOSIT, {"amount": "much"}, "invalid"),
    Foreign(_DEPOSIT, [1.5], "invalid"),
    Foreign(_DEPOSIT, [None], "invalid"),
    # A query that is none any more, and the other way round.
    Foreign(_handler(Theirs, "deposit"), [1], "done", 1),
    Foreign(_handler(Theirs, "worth"), [], "done"),
    # Handlers that do not exist, or are for the entity alone; an entity that does not.
    Foreign(_handler(Theirs, "close"), [], "invalid"),
    Foreign(_handler(Theirs, "_paid"), [1, "b"], "invalid"),
    Foreign(_handler(Gone, "feed"), [1], "invalid"),
]


def drawn(rng: random.Random) -> Foreign:
    """Draw a request: half of them fit, so that others follow what does not."""
    fit, unfit = REQUESTS[:2], REQUESTS[2:]
    return rng.choice(fit if rng.random() < 0.5 else unfit)
