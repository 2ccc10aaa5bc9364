"""The simulated network: whatever travels arrives later, and may be lost, repeated or overtaken.

Carries packets between shards, and as `later` anything else that takes time. Knows steps and
faults; of what it carries only the kind of a packet, to count it.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from skerry.runtime.core.wire import Kind
from skerry.testing import Faults


class Weather(Protocol):
    """What the network depends on."""

    rng: random.Random
    faults: Faults
    step_no: int
    points: Counter[str]
    """How often what went wrong, by name."""


class Network:
    """Everything that is on its way."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._under_way: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._cut_until: dict[tuple[int, int], int] = {}
        self.lost = self.repeated = 0
        """Packets between shards."""

    def send(self, src: int, peer: int, raw: bytes, arrive: Callable[[], None]) -> list[int]:
        """Carry a packet between shards. Returns the steps in which copies of it arrive."""
        weather, kind = self._weather, Kind(raw[3]).name
        cut = self._cut_until.get((src, peer), 0) > weather.step_no
        if cut or weather.rng.random() < weather.faults.lose:
            self.lost += 1
            weather.points[f"lost: {kind}"] += 1
            return []
        copies = 1
        if weather.rng.random() < weather.faults.repeat:
            self.repeated += 1
            weather.points[f"repeated: {kind}"] += 1
            copies = 2
        return [self.later(arrive) for _ in range(copies)]

    def later(self, deliver: Callable[[], None], steps_max: int = 0) -> int:
        """Do this when it has travelled. Returns the step in which that is."""
        weather = self._weather
        steps = weather.rng.randint(1, steps_max or weather.faults.delay_steps_max)
        return self.at(weather.step_no + steps, deliver)

    def at(self, step: int, deliver: Callable[[], None]) -> int:
        """Do this in a certain step."""
        self._order += 1
        heapq.heappush(self._under_way, (step, self._order, deliver))
        return step

    def deliver(self) -> None:
        """Let arrive what is due in this step."""
        while self._under_way and self._under_way[0][0] <= self._weather.step_no:
            heapq.heappop(self._under_way)[2]()

    def cut(self, src: int, peer: int, until: int) -> None:
        """Let the pipe from one shard to another carry nothing until this step."""
        self._cut_until[src, peer] = until

    def cut_off(self, id: int, others: Iterable[int], until: int) -> None:
        """Let no pipe to a shard or from it carry anything until this step."""
        for other in others:
            self.cut(id, other, until)
            self.cut(other, id, until)

    def mend(self) -> None:
        """Let all pipes carry again."""
        self._cut_until.clear()

    def lose_all(self) -> None:
        """Lose everything that is on its way."""
        self._under_way.clear()
