"""An app for trouble: refusals, errors, a handler that never returns, large states."""

import ctypes
import math
import threading

from skerry import App, Entity, Rejected, query, send, set_timer


class Counter(Entity):
    count: int = 0
    names: list[str] = []

    def add(self, amount: int = 1) -> int:
        if amount < 0:
            raise Rejected("no negative amounts", amount=amount)
        self.count += amount
        return self.count

    def halve(self) -> int:
        self.count = (self.count + 1) / 2  # type: ignore[assignment]
        return 1

    def name(self, name: str) -> None:
        self.names.append(name)

    def fail(self) -> None:
        raise ValueError("always")

    def crash(self) -> None:
        ctypes.string_at(0)

    def bomb(self) -> None:
        bytes(1 << 50)

    def recurse(self) -> None:
        self.recurse()

    def unencodable(self) -> None:
        self.names = [object()]  # type: ignore[list-item]

    def too_much(self) -> bytes:
        return bytes(200 << 20)

    def echo(self) -> None:
        self.count += 1
        send(self.echo)

    def many_timers(self, count: int) -> None:
        for n in range(count):
            set_timer(f"t{n}", 0.0, self._tick)

    def wait(self, seconds: float) -> int:
        self.count += 1
        threading.Event().wait(seconds)
        return self.count

    def hang(self) -> None:
        while True:
            pass

    def later(self, seconds: float) -> None:
        set_timer("later", seconds, self._tick)

    def _tick(self) -> None:
        self.count += 1

    @query
    def value(self) -> int:
        return self.count

    @query
    def ratios(self) -> list[float]:
        return [0.5, math.nan, math.inf]


class Blob(Entity):
    data: bytes = b""

    def fill(self, size: int) -> int:
        self.data = bytes(size)
        return size


app = App("trouble", entities=[Counter, Blob])
