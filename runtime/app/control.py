"""The supervisor's own door: a socket on which `skerry scale` and others tell it what to do.

Like a worker's door it serves who knows the app's secret, never blocks, and bounds what callers can
make it hold. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import select
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app.questions import ANSWER_BYTES_MAX
from skerry.runtime.description import Running
from skerry.runtime.gateway import knock, places, protocol
from skerry.runtime.gateway.channel import Broken, Channel
from skerry.runtime.gateway.listener import Listener
from skerry.runtime.gateway.protocol import Control
from skerry.runtime.private import doubt_of, trusted

CALLERS_MAX = 32
"""Callers at once: commands of people, and of their scripts."""

ANSWER_S = 30.0
"""How long an answer may take."""


class Host(Protocol):
    """What a supervisor does when it is told to."""

    def scale(self, workers: int, /) -> None:
        """Begin to change to this many workers. Raises SkerryError."""
        ...

    def hold(self) -> Any:
        """Let no slot begin to move for a while; say what still moves."""
        ...

    def leave(self) -> None:
        """Begin to give all slots of this host away. Raises SkerryError."""
        ...

    def restart(self) -> None:
        """Begin to replace the workers. Raises SkerryError."""
        ...

    def status(self) -> dict[str, Any]:
        """Say what is under way."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the app comes to its end."""
        ...


class Door:
    """Answers what callers ask of a supervisor."""

    def __init__(self, folder: Path, secret: str) -> None:
        self._listener = Listener(folder / places.CONTROL, secret, callers_max=CALLERS_MAX)
        self.fd = self._listener.fd
        """Readable when `serve` has something to do."""

    def close(self) -> None:
        """Disconnect all callers."""
        self._listener.close()

    def serve(self, host: Host) -> None:
        """Answer what has been asked, as the host does it."""
        for event in self._listener.receive():
            if not isinstance(event, Control):
                continue
            try:
                self._listener.answer(event.caller, event.n, _answer(host, event))
            except SkerryError as error:
                self._listener.error(event.caller, event.n, error)


def _answer(host: Host, event: Control) -> Any:
    if host.stopping and event.kind != "status":
        raise SkerryError("The app is stopping. Ask again when it has been started.")
    match event.kind:
        case "scale":
            host.scale(*event.args)
            return host.status()
        case "hold":
            return host.hold()
        case "leave":
            host.leave()
            return host.status()
        case "restart":
            host.restart()
            return host.status()
        case "status":
            return host.status()
        case unknown:
            raise SkerryError(f"A supervisor does not know {unknown!r}.")


class Line:
    """A line to the supervisor of a running app, for one caller that waits for each answer.

    Args:
        leader: whether to speak with the supervisor that leads the app, on whatever host.
        answer_s: how long an answer may take.

    Raises Unavailable: no supervisor answers there, or somebody else has taken its place.
    """

    def __init__(
        self, data: Path, running: Running, *, leader: bool = False, answer_s: float = ANSWER_S
    ) -> None:
        self._data, self._pid, self._number = data, running.pid, 0
        self._answer_s = answer_s
        folder, owners = running.folder, trusted(data, data / "run.json")
        name = places.LEADER if leader and not running.leads else places.CONTROL
        channel = Channel.to(str(folder / name), message_bytes_max=ANSWER_BYTES_MAX)
        if channel is None:
            raise Unavailable(f"The supervisor of the app in {data} can't be reached in {folder}.")
        self._channel, challenge = channel, knock.drawn()
        if why := doubt_of(channel.user, folder, owners):
            raise Unavailable(f"The supervisor of the app in {data} is not spoken to: {why}.")
        if not knock.is_answer(
            running.secret, challenge, self._exchange(knock.knock(running.secret, challenge))
        ):
            raise Unavailable(
                f"What listens in {folder} is not the supervisor of the app in {data}."
            )

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._channel.close()

    def ask(self, kind: str, *args: Any) -> Any:
        """Ask, and wait for the answer. Raises SkerryError: it was refused; Unavailable."""
        self._number += 1
        word = protocol.decode_word(self._exchange(protocol.encode([kind, self._number, *args])))
        if isinstance(word, protocol.Answer):
            return word.value
        assert isinstance(word, protocol.Refusal), "a supervisor answers or refuses"
        raise SkerryError(word.text)

    def _exchange(self, raw: bytes) -> bytes:
        try:
            self._channel.say(raw)
            until_s = time.monotonic() + self._answer_s
            while (left_s := until_s - time.monotonic()) > 0:
                unsent = [self._channel] if self._channel.unsent else []
                select.select([self._channel], unsent, [], min(1, left_s))
                self._channel.go_on()
                for heard in self._channel.hear():
                    return heard
        except Broken as error:
            raise Unavailable(f"The app in {self._data} ended meanwhile: {error}.") from error
        raise Unavailable(
            f"The supervisor of the app in {self._data}, process {self._pid}, does not answer. Look "
            f"whether it is stopped (SIGSTOP), or its disk stands still."
        )
