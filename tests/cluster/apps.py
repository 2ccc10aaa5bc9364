"""An app whose entities show whether anything was lost, doubled or put out of order."""

from skerry import App, Entity, query, send


class Counter(Entity):
    count: int = 0

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    @query
    def total(self) -> int:
        return self.count


class Sender(Entity):
    sent: int = 0

    def burst(self, count: int) -> int:
        """Send the next numbers to a receiver, in order."""
        for _ in range(count):
            send(Receiver.at(f"to-{self.key}").take, self.sent)
            self.sent += 1
        return self.sent


class Receiver(Entity):
    next: int = 0
    wrong: list[int] = []

    def take(self, number: int) -> None:
        if number != self.next:
            self.wrong.append(number)
        self.next = number + 1

    @query
    def seen(self) -> tuple[int, list[int]]:
        return self.next, self.wrong


class Filled(Entity):
    what: bytes = b""

    def fill(self, what: bytes) -> None:
        self.what = what

    @query
    def size(self) -> int:
        return len(self.what)


ENTITIES = [Counter, Sender, Receiver, Filled]
app = App("hosted", entities=ENTITIES)
