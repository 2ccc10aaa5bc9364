"""An app for trouble: refusals, errors, a handler that never returns, large states."""

from skerry import App, Entity, Rejected, query, set_timer


class Counter(Entity):
    count: int = 0
    names: list[str] = []

    def add(self, amount: int = 1) -> int:
        if amount < 0:
            raise Rejected("no negative amounts", amount=amount)
        self.count += amount
        return self.count

    def name(self, name: str) -> None:
        self.names.append(name)

    def fail(self) -> None:
        raise ValueError("always")

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


class Blob(Entity):
    data: bytes = b""

    def fill(self, size: int) -> int:
        self.data = bytes(size)
        return size


app = App("trouble", entities=[Counter, Blob])
