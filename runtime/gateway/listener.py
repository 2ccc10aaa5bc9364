"""The worker's end of the clients' lines: many callers, one list of events for the shard.

The listener has one descriptor, which the worker polls with its others. Each wake-up hears many
callers, each a little; each round's outcomes leave as one message per caller. Nothing here is a
promise: a caller asks again for what is lost, and the shard counts it once.

What callers can make a worker hold is bounded. A caller that does not read is not heard until it
has read, and when all leave too much unread, the caller with most of it is disconnected. The number
of callers is bounded by the files that the process may open, some of which are kept for other
uses. What a stranger sends is refused with a sentence and reaches nobody. Never blocks.
Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from skerry.runtime.core.events import Confirmed, Reply, Requested
from skerry.runtime.gateway import knock, protocol
from skerry.runtime.gateway.channel import Broken, Channel
from skerry.runtime.gateway.protocol import Control

HEARD_BYTES_MAX = 1 << 20
"""About how much is heard per wake-up. The rest wakes the worker again, after a batch has run."""

CALLERS_MAX = 4096
"""Callers at once, if the process may open as many files. A silent one costs about a kilobyte."""

KEPT_FILES = 192
"""Descriptors kept for the log, the store, sources, peers and handlers; half of those that are left,
if the process may open only few."""

PEER_FILES = 4
"""Descriptors kept for each other shard: a connection each way, and two by which ZeroMQ wakes its
threads."""

ACCEPTED_MAX = 128
"""Callers accepted per wake-up, so that a rush of them does not keep other work waiting."""

UNREAD_BYTES_MAX = 64 << 20
"""Bytes of incomplete messages from all callers: several of the largest. Above this, the caller with
most of them is disconnected."""

UNSENT_BYTES_MAX = 64 << 20
"""Bytes kept for all callers that do not read, the largest answer left out, since it may be one large
state. Above this, the caller with most of them is disconnected."""

BACKLOG = 512
"""Connections that wait to be accepted."""

STRANGER = (
    "This worker serves callers that know the app's secret, which stands in its data directory. Use "
    "a client of the app's own release, with that directory."
)

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT

Caller = Channel
"""A caller is its connection. When it connects again, it is another caller, and is told nothing that
was meant for the first."""


def raise_limit() -> int:
    """Let this process open as many files as it may at most; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def callers_that_fit(peers: int) -> int:
    """Return how many callers a process has room for, beside the files that it opens otherwise."""
    room = raise_limit() - len(list(Path("/proc/self/fd").iterdir()))
    return max(1, min(CALLERS_MAX, max(room - KEPT_FILES - PEER_FILES * peers, room // 2)))


class Listener:
    """The callers of one worker."""

    def __init__(self, path: Path, secret: str, *, callers_max: int = CALLERS_MAX) -> None:
        self.callers_max, self._secret = callers_max, secret
        self._strangers: set[int] = set()
        """Descriptors of callers that have not proven themselves yet."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        # A killed worker leaves its file behind; the store's lock says that it is gone.
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        path.chmod(0o600)  # A supervisor keeps the mask that its user has set.
        self._socket.listen(BACKLOG)
        self._epoll = select.epoll()
        self._epoll.register(self._socket.fileno(), _IN)
        self._accepts = True
        self.fd = self._epoll.fileno()
        """Readable when `receive` has something to do."""
        self._callers: dict[int, Channel] = {}
        self._silent: dict[int, Channel] = {}
        """Callers that have said nothing yet, in the order in which they came."""
        self.turned_away = 0
        """How many callers found no room."""
        self._unread = self._unsent = 0

    def close(self) -> None:
        """Disconnect all callers. They ask again for what they were not told."""
        for caller in list(self._callers.values()):
            self.let_go(caller)
        self._socket.close()
        self._epoll.close()

    @property
    def callers(self) -> int:
        """How many callers are connected."""
        return len(self._callers)

    # ── in ──

    def receive(self) -> list[Requested | Confirmed | Control]:
        """Return what has come, in order per caller."""
        found: list[Requested | Confirmed | Control] = []
        heard_bytes = 0
        for fd, events in self._epoll.poll(0):
            if fd == self._socket.fileno():
                self._accept()
                continue
            caller = self._callers.get(fd)
            if caller is None:
                continue  # It was disconnected a moment ago.
            if events & _OUT:
                self._go_on(caller)
            elif heard_bytes < HEARD_BYTES_MAX:
                for raw in self._met(caller, self._hear(caller)):
                    heard_bytes += len(raw)
                    found += self._events(caller, raw)
        return found

    def _accept(self) -> None:
        for _ in range(ACCEPTED_MAX):
            try:
                end, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:  # No descriptor is left: callers wait until one leaves.
                self._accepts = False
                self._epoll.unregister(self._socket.fileno())
                return
            caller = Channel(end, message_bytes_max=protocol.PACKET_BYTES_MAX)
            if self._has_room():
                self._callers[caller.fileno()] = self._silent[caller.fileno()] = caller
                self._strangers.add(caller.fileno())
                self._epoll.register(caller.fileno(), _IN)
            else:
                self._turn_away(caller)

    def _has_room(self) -> bool:
        """Tell whether one more caller may come in; one that has said nothing may leave for it."""
        if len(self._callers) >= self.callers_max and self._silent:
            self.let_go(next(iter(self._silent.values())))
        return len(self._callers) < self.callers_max

    def _turn_away(self, caller: Channel) -> None:
        self.turned_away += 1
        text = f"This worker has {len(self._callers):,} callers, and can have no more."
        if self.callers_max < CALLERS_MAX:
            text += " Its process may open too few files: start the app with a larger `ulimit -n`."
        with contextlib.suppress(Broken):
            caller.say(protocol.encode(protocol.Refusal(0, "Busy", text)))
        caller.close()

    def let_go(self, caller: Channel) -> None:
        """Disconnect a caller. It asks again for what it was not told."""
        fd = caller.fileno()
        if self._callers.pop(fd, None) is None:
            return
        self._silent.pop(fd, None)
        self._strangers.discard(fd)
        self._unread -= caller.unread
        self._unsent -= caller.unsent
        # Closing alone is not enough: a child that is about to run another program may hold it.
        self._epoll.unregister(fd)
        caller.close()
        if not self._accepts:
            self._accepts = True
            self._epoll.register(self._socket.fileno(), _IN)

    def _hear(self, caller: Channel) -> list[bytes]:
        self._unread -= caller.unread
        try:
            heard = caller.hear()
        except Broken:
            self._unread += caller.unread
            self.let_go(caller)
            return []
        self._unread += caller.unread
        if heard:
            self._silent.pop(caller.fileno(), None)
        if self._unread > UNREAD_BYTES_MAX:
            self.let_go(max(self._callers.values(), key=attrgetter("unread")))
        return heard

    def _met(self, caller: Channel, heard: list[bytes]) -> list[bytes]:
        """Return what a caller says once it has proven that it knows the app's secret."""
        if not heard or caller.fileno() not in self._strangers:
            return heard
        answer = knock.answer(self._secret, heard[0])
        if answer is None:
            self._send(caller, protocol.Refusal(0, "Unavailable", STRANGER))
            self.let_go(caller)
            return []
        self._strangers.discard(caller.fileno())
        self._say(caller, answer)
        return heard[1:]

    def _events(self, caller: Channel, raw: bytes) -> Iterable[Requested | Confirmed | Control]:
        try:
            return protocol.events(caller, protocol.decode_call(raw), len(raw))
        # A stranger's bytes may nest too deep for the decoder, or be no text.
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            text = f"This worker can't read that message: {error}. Use a client of the app's own release."
            self._send(caller, protocol.Refusal(_number_in(raw), "InvalidMessage", text))
            return ()

    # ── out ──

    @property
    def may_answer(self) -> bool:
        """Whether callers may be answered now: always, but on a host whose lease has ended."""
        return True

    def replies(self, replies: Iterable[Reply]) -> None:
        """Tell callers the outcomes of their requests, in one message each."""
        for caller, outcomes in protocol.outcomes(replies):
            self._send(caller, outcomes)

    def answer(self, caller: Channel, n: int, value: Any) -> None:
        """Answer call `n` with a value."""
        self._send(caller, protocol.Answer(n, value))

    def report(self, caller: Channel, n: int, value: Any) -> None:
        """Answer call `n` with a value that says nothing of the app's data."""
        self._send(caller, protocol.Answer(n, value))

    def error(self, caller: Channel, n: int, error: Exception) -> None:
        """Answer call `n` with an error."""
        self._send(caller, protocol.Refusal(n, type(error).__name__, str(error)))

    def welcome(self, caller: Channel, greeting: Mapping[str, Any]) -> None:
        """Tell a caller that said hello which worker this is."""
        self._send(caller, ["welcome", greeting])

    def has_read(self, caller: Channel) -> bool | None:
        """Tell whether a caller has read all that it was told; None: it is gone."""
        return not caller.unsent if self._callers.get(caller.fileno()) is caller else None

    def _send(self, caller: Channel, word: object) -> None:
        self._say(caller, protocol.encode(word))

    def _say(self, caller: Channel, raw: bytes) -> None:
        if self._callers.get(caller.fileno()) is not caller:
            return  # It is gone, and asks again.
        had = caller.unsent
        try:
            caller.say(raw)
        except Broken:
            self.let_go(caller)
            return
        self._unsent += caller.unsent - had
        if caller.unsent and not had:
            # It is not heard until it has read: else it could make the worker keep more and more.
            self._epoll.modify(caller.fileno(), _OUT)
        if self._unsent > UNSENT_BYTES_MAX:
            self._make_room()

    def _make_room(self) -> None:
        """Disconnect the caller with most unread bytes, unless one large answer makes them so many."""
        callers = self._callers.values()
        largest = max(caller.unsent - caller.behind for caller in callers)
        if self._unsent - largest > UNSENT_BYTES_MAX:
            self.let_go(max(callers, key=attrgetter("behind", "unsent")))

    def _go_on(self, caller: Channel) -> None:
        had = caller.unsent
        try:
            caller.go_on()
        except Broken:
            self.let_go(caller)
            return
        self._unsent += caller.unsent - had
        if not caller.unsent:
            self._epoll.modify(caller.fileno(), _IN)


def _number_in(raw: bytes) -> int:
    """Return the number of a call that could not be read otherwise, so its caller need not wait; 0:
    not even that can be read."""
    try:
        call = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return 0
    numbered = isinstance(call, list) and len(call) > 1 and type(call[1]) is int
    return call[1] if numbered and abs(call[1]) < 2**63 else 0
