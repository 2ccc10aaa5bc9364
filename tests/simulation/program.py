"""A random program, and a model that knows what it must have done.

Each message has a name of its own, and what its handler does is a pure function of that name:
so a model that knows nothing of shards, batches or crashes can say which messages must have
run, which asks must have had which outcome, and how many dead letters there must be.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from skerry import (
    Entity,
    Failed,
    Message,
    Rejected,
    ask,
    cancel_timer,
    message,
    send,
    send_later,
    set_timer,
)
from skerry.runtime.simulator.cluster import Cluster

NODES = 7


class Step(NamedTuple):
    """One thing that a handler does."""

    kind: str
    """send, later, timer, cancelled, raced (set here, cancelled by a message that comes back), ask
    or hasty (an ask with a short time-out)."""
    to: str
    name: str


def verdict(name: str) -> str:
    """What becomes of a message: ok, refused, broken, or flaky (broken on its first run only)."""
    return random.Random(f"verdict {name}").choices(
        ["ok", "refused", "broken", "flaky"], [80, 8, 6, 6]
    )[0]


def steps(name: str, node: str) -> Iterator[Step]:
    """What a message makes its node do. Shallow trees of up to four children."""
    rng = random.Random(f"steps {name}")
    depth = name.count(".")
    for child in range(rng.choice([0, 1, 2, 4]) if depth < 4 else 0):
        kind = rng.choice(["send", "send", "later", "timer", "cancelled", "raced", "ask", "hasty"])
        to = node if kind in ("timer", "cancelled") else f"n{rng.randrange(NODES)}"
        yield Step(kind, to, f"{name}.{child}")


_flaked: set[str] = set()
"""Messages whose handler has raised once: outside of all state, on purpose."""


class Node(Entity):
    """Does what the names of its messages say."""

    ran: list[str] = []
    heard: list[str] = []

    def act(self, name: str) -> str:
        self.ran.append(name)
        for kind, to, child in steps(name, self.key):
            if kind == "send":
                send(Node.at(to).act, child)
            elif kind == "later":
                send_later(0.01, Node.at(to).act, child)
            elif kind == "timer":
                set_timer(child, 0.01, self.act, child)
            elif kind == "cancelled":
                set_timer(child, 0.0, self.act, child)
                assert cancel_timer(child)
            elif kind == "raced":
                set_timer(child, 0.004, self._ring, child)
                send(Node.at(to).relay, self.key, child)
            else:
                asked = ask(Node.at(to).act, child).then(self._done, child)
                asked = asked.rejected(self._refused, child).failed(self._broken, child)
                if kind == "hasty":
                    asked.timeout(0.02, self._late, child)
        if verdict(name) == "refused":
            raise Rejected("by its name")
        if verdict(name) == "broken":
            raise RuntimeError("by its name")
        if verdict(name) == "flaky" and name not in _flaked:
            _flaked.add(name)
            raise RuntimeError("only this once")
        return name

    def relay(self, back: str, name: str) -> None:
        send(Node.at(back).stop, name)

    def stop(self, name: str) -> None:
        if cancel_timer(name):
            self.heard.append(f"{name} stopped")

    def _ring(self, name: str) -> None:
        self.heard.append(f"{name} rang")

    def _done(self, reply: str, name: str) -> None:
        assert reply == name
        self.heard.append(f"{name} ok")

    def _refused(self, error: Rejected, name: str) -> None:
        self.heard.append(f"{name} refused")

    def _broken(self, error: Failed, name: str) -> None:
        self.heard.append(f"{name} broken")

    def _late(self, name: str) -> None:
        self.heard.append(f"{name} late")


class Expected:
    """What a program must have done, whatever went wrong meanwhile."""

    def __init__(self) -> None:
        self.ran: Counter[tuple[str, str]] = Counter()
        self.heard: dict[str, set[str]] = {}
        self.dead = 0
        """Dead letters that must be there; a hasty ask that is refused late adds none."""

    def message(self, node: str, name: str, kind: str) -> None:
        """A message, and all that comes of it."""
        fate = "ok" if verdict(name) == "flaky" else verdict(name)
        if kind in ("ask", "hasty"):
            self.heard[name] = {fate} if kind == "ask" else {fate, "late"}
        if fate == "ok":
            self.ran[node, name] += 1
            for step in steps(name, node):
                if step.kind == "raced":
                    self.heard[step.name] = {"rang", "stopped"}
                elif step.kind != "cancelled":
                    self.message(step.to, step.name, step.kind)
        elif fate == "broken" or kind not in ("ask", "hasty"):
            self.dead += 1


def begin(rng: random.Random, roots: int) -> tuple[list[Message[str]], Expected]:
    """A client's messages, and what must come of them."""
    expected, asked = Expected(), []
    for root in range(roots):
        node, name = f"n{rng.randrange(NODES)}", f"m{rng.randrange(10**9)}-{root}"
        asked.append(message(Node.at(node).act, name))
        expected.message(node, name, "ask")
        del expected.heard[name]  # The client hears of it.
    return asked, expected


def check(cluster: Cluster, expected: Expected, dead: int) -> None:
    """Compare with what was done. Raises AssertionError."""
    ran: Counter[tuple[str, str]] = Counter()
    heard: list[str] = []
    for n in range(NODES):
        node = cluster.state("Node", f"n{n}")
        if node is not None:
            ran.update((f"n{n}", name) for name in node.ran)
            heard += node.heard
    seed = cluster.seed
    assert ran == expected.ran, f"seed {seed}: I1: {ran - expected.ran} {expected.ran - ran}"
    outcomes = dict(line.split() for line in heard)
    assert len(outcomes) == len(heard), f"seed {seed}: I1: an ask or a timer had two outcomes"
    assert outcomes.keys() == expected.heard.keys(), f"seed {seed}: an ask had no outcome"
    for name, outcome in outcomes.items():
        assert outcome in expected.heard[name], f"seed {seed}: {name} heard {outcome}"
    assert dead == expected.dead, f"seed {seed}: {dead} dead letters, not {expected.dead}"
