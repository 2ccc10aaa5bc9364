"""An app with a handler that never returns."""

from skerry import App, Entity


class Counter(Entity):
    count: int = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def hang(self) -> None:
        while True:
            pass


app = App("trouble", entities=[Counter])
