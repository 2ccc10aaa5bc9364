"""The lines between simulated callers and doors, and what callers were told.

What was on a line when it broke is lost, or still lies in the door's socket and arrives late.
The operator and the supervisor have lines of their own, which do not break. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from skerry.message import Message
from skerry.runtime.core.events import Outcome
from skerry.runtime.gateway import protocol
from skerry.runtime.simulator.callers import Caller, Name
from skerry.runtime.simulator.keeper import Keeper
from skerry.runtime.simulator.machine import Machine
from skerry.runtime.simulator.network import Network
from skerry.testing import Faults


class Ground(Protocol):
    """What lines lie on."""

    rng: random.Random
    faults: Faults
    step_no: int
    clock_ns: int
    points: Counter[str]
    network: Network
    keeper: Keeper

    def door(self, name: Any, /) -> Machine | None:
        """Return the machine at the end of a caller's line; None: there is none any more."""
        ...


class Lines:
    """All callers, and their requests and looks by number."""

    def __init__(self, ground: Ground, shards: Sequence[int], callers: int) -> None:
        self._ground = ground
        self._asked = 0
        self._operated: Any = None
        self.outcomes: dict[int, Outcome] = {}
        """The outcome of each request."""
        self.looks: dict[int, Any] = {}
        """The state that each look found."""
        self.scans: dict[int, list[str]] = {}
        """The keys that each scan found, in the order in which they came."""
        self.asked_at: dict[int, int] = {}
        self.answered_at: dict[int, int] = {}
        """The steps in which a request was first said, and its outcome heard."""
        self.astray: Callable[[], bool] = bool
        """Whether requests are said at a wrong door as well."""
        self._shards = shards
        self.callers = [Caller(number, shards, self) for number in range(callers)]

    def rerouted(self, shards: Sequence[int]) -> None:
        """The app was started anew with these doors."""
        self._shards = shards
        for caller in self.callers:
            caller.rerouted(shards)

    def doors(self, shards: Sequence[int]) -> None:
        """The app goes on, and has these doors from now on."""
        self._shards = shards
        for caller in self.callers:
            caller.doors(shards)

    # ── what callers want ──

    def _number(self) -> int:
        self._asked += 1
        self.asked_at[self._asked] = self.step_no
        return self._asked

    def ask(
        self, message: Message[Any], *, reply: bool = True, caller: int = 0, named: bytes = b""
    ) -> int:
        """Make a client's request. Its outcome comes into `outcomes` in the end."""
        number = self._number()
        self.callers[caller].ask(number, message, reply=reply, named=named)
        return number

    def look(self, type_name: str, key: str, *, caller: int = 0) -> int:
        """Make a client's `get`. What it finds comes into `looks` in the end."""
        number = self._number()
        self.callers[caller].look(number, type_name, key)
        return number

    def scan(self, type_name: str, *, limit: int, caller: int = 0) -> int:
        """Have a client look at all states of a type, so many at a time. The keys come into `scans`
        in the end."""
        number = self._number()
        self.callers[caller].scan(number, type_name, limit)
        return number

    def operate(self, shard: int, action: str, id: bytes) -> None:
        """Say an operator's command on a dead letter, whose answer comes into `answer`."""
        self._operated = None
        self._knock(("operator", shard, 0), protocol.encode(protocol.Dead(1, action, id)))

    @property
    def answer(self) -> Any:
        """The answer to the operator's newest command; None: there is none yet."""
        return self._operated

    def retry(self, shard: int, id: bytes) -> None:
        """Have a dead letter sent anew, by an operator who does not wait for an answer."""
        raw = protocol.encode(protocol.Dead(1, "retry", id))
        self._ground.network.later(partial(self._knock, ("operator", shard, 0), raw))

    def ask_if_quiet(self, shard: int, round: int) -> None:
        """Ask a worker for the supervisor whether it is quiet."""
        raw = protocol.encode(protocol.Steer(round, "quiet"))
        self._ground.network.later(lambda: self._knock(("supervisor", shard, round), raw))

    # ── what carries their words ──

    def _knock(self, name: Any, raw: bytes) -> None:
        """Let bytes arrive at a door."""
        ground, machine = self._ground, self._ground.door(name)
        if machine is None or machine.shard is None:
            return
        if ground.step_no < machine.hangs_until:
            # Its sockets take what comes, for when it goes on.
            step = min(machine.hangs_until, ground.step_no + ground.faults.hold_steps_max)
            ground.network.at(step, lambda: self._knock(name, raw))
            return
        machine.hear(name, raw)

    def to_caller(self, name: Any, raw: bytes) -> None:
        """Carry a door's words to a caller."""
        ground = self._ground
        if name[0] == "mover":
            return  # It looks for itself.
        if name[0] == "operator":
            self._operated = msgspec.msgpack.decode(raw)[2]
            return
        if name[0] == "supervisor":
            _, shard, round = name
            answer = msgspec.msgpack.decode(raw)[2]
            ground.network.later(lambda: ground.keeper.answered(shard, round, answer))
            return
        caller = self.callers[name[0]]
        if ground.rng.random() < ground.faults.lose:
            caller.broken(name[1])
        else:
            ground.network.later(lambda: caller.heard(name, raw))

    # ── what callers stand on (`callers.Ground`) ──

    @property
    def rng(self) -> random.Random:
        """The simulation's random numbers."""
        return self._ground.rng

    @property
    def step_no(self) -> int:
        """The number of the step."""
        return self._ground.step_no

    @property
    def clock_ns(self) -> int:
        """The time."""
        return self._ground.clock_ns

    def reachable(self, name: Name) -> bool:
        """Whether this line to a door can be up."""
        machine = self._ground.door(name)
        return machine is not None and machine.shard is not None

    def to_door(self, name: Name, raw: bytes) -> None:
        """Carry bytes to a door."""
        ground = self._ground
        lost = ground.rng.random() < ground.faults.lose
        if lost:
            self.callers[name[0]].broken(name[1])
        if not lost or ground.rng.random() < 0.5:
            steps = ground.faults.hold_steps_max if lost else 0
            ground.network.later(lambda: self._knock(name, raw), steps)
        if self.astray() and isinstance(protocol.decode_call(raw), protocol.Asks):
            ground.points["said at a wrong door"] += 1
            wrong = self.callers[name[0]].line(ground.rng.choice(self._shards))
            ground.network.later(lambda: self._knock(wrong, raw))

    def answered(self, id: int, outcome: Outcome) -> None:
        """Note the outcome of a request."""
        assert id not in self.outcomes, f"I1: request {id} had two outcomes"
        self.outcomes[id] = outcome
        self.answered_at[id] = self.step_no

    def looked(self, id: int, state: bytes | None) -> None:
        """Note what a look found."""
        self.looks[id] = state
        self.answered_at[id] = self.step_no

    def scanned(self, id: int, keys: list[str]) -> None:
        """Note what a scan found."""
        self.scans[id] = keys
        self.answered_at[id] = self.step_no
