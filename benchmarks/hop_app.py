"""An entity asks another, and the outcome closes the loop: what a hop between entities takes.

    client -> Front.go -> Back.double -> Front._closed -> output -> datagram to the client

The reply of `go` comes before the other entity has run, so it is no measure of a hop. What
comes last is emitted, and an item leaves only when its turn is durable: the sink tells the
client by a datagram. So a round is four commits, one after the other, and the way out.
"""

import contextlib
import socket
from collections.abc import Sequence

from skerry import App, Entity, Output, ask, emit
from skerry.errors import Failed, Rejected

CLOSED: Output[tuple[str, int]] = Output("closed", partitions=16)


class Back(Entity):
    asked: int = 0

    def double(self, number: int) -> int:
        self.asked += 1
        return 2 * number


class Front(Entity):
    closed: int = 0

    def go(self, back: str, number: int, caller: str) -> None:
        reply = ask(Back.at(back).double, number)
        reply.then(self._closed, number, caller).failed(self._lost).rejected(self._lost)

    def _closed(self, doubled: int, number: int, caller: str) -> None:
        assert doubled == 2 * number
        self.closed += 1
        emit(CLOSED, (caller, number))

    def _lost(self, error: Failed | Rejected) -> None:
        raise AssertionError(f"nothing here fails, but {error}")


class Post:
    """A sink that tells callers by datagrams which of their calls are over."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def write(self, partition: str, sequence: int, items: Sequence[tuple[str, int]]) -> None:
        """A datagram to each caller: the numbers of its calls, eight bytes each."""
        if self._socket is None:  # Not before: the app is loaded by who only looks at it, too.
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        numbers: dict[str, list[bytes]] = {}
        for caller, number in items:
            numbers.setdefault(caller, []).append(number.to_bytes(8, "little"))
        for caller, told in numbers.items():
            # A caller that is gone needs no answer.
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                self._socket.sendto(b"".join(told), caller)


app = App("hops", entities=[Front, Back], outputs=[CLOSED])
app.stream(CLOSED).sink(Post())
