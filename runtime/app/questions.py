"""The conversation of a supervisor with its workers: rounds of questions, and the word to stop.

    round n: "quiet" to every worker -> what each has done, and whether anything is left to do
    now and then "weigh" instead     -> also how busy it is
    all quiet, and nothing ran between two rounds -> the app is over

A round begins when the one before is answered by all, and only if something may have happened
since: an app that is idle asks nothing. Whether the answers mean the end is decided in `watch.py`.

Speaks over the workers' listeners, like any client.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from skerry.runtime.app.children import Child
from skerry.runtime.app.watch import Rounds
from skerry.runtime.core.demand import Load, Standing
from skerry.runtime.core.placement import Placement
from skerry.runtime.gateway import knock, places, protocol
from skerry.runtime.gateway.channel import Broken, Channel

T = TypeVar("T")

ROUND_EVERY_S = 0.1
"""How often a round begins at most."""

FAR_EVERY_S = 1.0
"""Likewise, where some workers are on other hosts and have to be asked whether anything has happened."""

ANSWER_S = 1.0
"""How long to wait for an answer before the question is asked again."""

ANSWER_BYTES_MAX = 1 << 20
"""The largest answer that is read; a worker's are far smaller."""

COUNTS = ("turns", "items", "commits", "dead", "skipped")
"""Fields of an answer that count what a worker has done since its process started."""


class Progress(Struct):
    """How far the app has come."""

    turns: int = 0
    items: int = 0
    commits: int = 0
    dead: int = 0
    """Dead letters that were added."""
    skipped: int = 0
    """Rows of sources that were passed over."""
    part: float | None = None
    """The part of the sources that is read, 0 to 1; None: their size is unknown."""
    seconds: float = 0.0


class Questions:
    """The conversation with the workers of all shards."""

    def __init__(self, secret: str, *, serve: bool, weigh_s: float | None = None) -> None:
        self.folder = Path()
        """Where the workers' sockets are."""
        self.progress = Progress()
        self._shards: list[int] = []
        self._secret, self._serve = secret, serve
        self._channels: dict[int, Channel] = {}
        self._challenges: dict[int, bytes] = {}
        """The number that a worker has yet to prove itself by, by shard."""
        self._asked_at = 0.0
        self._weigh_s, self._weighed_at = weigh_s, time.monotonic()
        """How often the workers are asked for their load, if at all."""
        self._loads: dict[int, Load] = {}
        self._round = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._judged = False
        """Whether the answers of this round were looked at."""
        self._may_end = False
        """Whether another round like this would be the end."""
        self._stirs: list[int] = []
        """What had happened at each worker before it was asked."""
        self._rounds = Rounds()
        self._standings: dict[int, Standing] = {}
        """How far each worker is with the placement, as it last said."""
        self._placing: dict[int, int] = {}
        """The version that a worker was told of and has not finished, by shard."""
        self._ended: dict[int, tuple[int, ...]] = {}
        """What earlier processes of each shard did."""
        self._counts: dict[int, tuple[int, ...]] = {}
        """What the running process of each shard has done."""

    # ── rounds ──

    def step(self, children: Sequence[Child]) -> bool:
        """Judge the round that has ended and begin the next. Tell whether the app is over."""
        if not self.due or not self._shards:
            return False
        if self._complete:
            if not self._judged and self._judge():
                return True
            if self._nothing_new(children):
                return False
            if self._far(children) and time.monotonic() - self._asked_at < FAR_EVERY_S:
                return False
        elif self._all_asked and time.monotonic() - self._asked_at < ANSWER_S:
            return False  # A worker that can't be reached yet is asked as soon as it can be.
        self._round += 1
        self._answers.clear()
        self._judged = False
        self._stirs = _stirs_of(children)
        weigh = self._weigh_s is not None and len(self._shards) > 1
        due = weigh and time.monotonic() - self._weighed_at >= (self._weigh_s or 0)
        self.tell_all(self._shards, "weigh" if due else "quiet")
        return False

    @property
    def due(self) -> bool:
        """Whether the workers may be told something again."""
        return time.monotonic() - self._asked_at >= ROUND_EVERY_S

    def patience_s(self, children: Sequence[Child], longest_s: float, poll_s: float) -> float:
        """Return how long to wait for something to happen before looking again."""
        if not self._all_asked:
            return poll_s
        if self._complete and self._nothing_new(children):
            return longest_s
        every_s = FAR_EVERY_S if self._far(children) else ROUND_EVERY_S
        due = self._asked_at + (every_s if self._complete else ANSWER_S)
        return min(longest_s, max(0.0, due - time.monotonic()))

    @property
    def _complete(self) -> bool:
        return len(self._answers) == len(self._shards)

    @property
    def _all_asked(self) -> bool:
        return len(self._channels) == len(self._shards)

    def _judge(self) -> bool:
        """Tell whether these answers say that the app is over."""
        self._judged = True
        self.count()
        answers = self._answers.values()
        parts = [answer["progress"] for answer in answers]
        read = total = 0.0
        if all(part is not None for part in parts):
            read, total = (sum(column) for column in zip(*parts))
        self.progress.part = read / total if total else None
        over = self._rounds.over(self._answers)
        finite = not self._serve and all(answer["finite"] for answer in answers)
        self._may_end = finite and all(answer["quiet"] for answer in answers)
        return over and finite

    def _nothing_new(self, children: Sequence[Child]) -> bool:
        """Tell whether nothing has happened at any worker since all were asked. When all are quiet, one
        more round still has to say whether that is the end."""
        if self._far(children):
            return False
        return self._judged and not self._may_end and _stirs_of(children) == self._stirs

    def _far(self, children: Sequence[Child]) -> bool:
        """Whether some worker is on another host, where its heartbeat can't be read."""
        return len(self._shards) > len(children)

    @property
    def weighs(self) -> bool:
        """Whether workers are asked for their load."""
        return self._weigh_s is not None

    def take_loads(self) -> dict[int, Load] | None:
        """Return the load of each worker; None: it was not asked for since the last call."""
        if len(self._loads) < len(self._shards) or not self._complete:
            return None
        loads, self._loads = self._loads, {}
        self._weighed_at = time.monotonic()
        return loads

    def count(self) -> None:
        """Bring the progress up to date: sum up what all processes of all workers have done."""
        columns = zip(*self._ended.values(), *self._counts.values())
        for name, column in zip(COUNTS, columns):
            setattr(self.progress, name, sum(column))

    # ── the placement ──

    def place(self, placement: Placement) -> None:
        """Tell every worker of the newest placement that has not been told, or has frames unacked."""
        version = placement.version
        for shard in self._shards:
            standing = self._standings.get(shard)
            if standing is not None and standing.version == version and not standing.unacked:
                continue
            if self._placing.get(shard) != version and self._say(
                shard, protocol.Place(-version, placement)
            ):
                self._placing[shard] = version

    def standings(self, version: int) -> dict[int, Standing]:
        """Return how far workers are that have finished this version."""
        return {s: found for s, found in self._standings.items() if found.version == version}

    # ── workers come and go ──

    def members(self, shards: list[int]) -> None:
        """Speak with the workers of these shards from now on."""
        if shards == self._shards:
            return
        for shard in set(self._shards) - set(shards):
            self._close(shard)
        for shard in shards:
            self._ended.setdefault(shard, (0,) * len(COUNTS))
            self._counts.setdefault(shard, (0,) * len(COUNTS))
        self._shards = shards
        self._answers.clear()
        self._loads.clear()
        self._rounds.interrupted()

    def lost(self, shard: int) -> None:
        """Hear the last words of a worker that has ended, and begin the rounds anew."""
        # Its answer to "stop" counts all its turns.
        self._hear(shard)
        self._close(shard)
        self._answers.clear()
        self._loads.clear()
        self._rounds.interrupted()
        ended, counts = self._ended[shard], self._counts[shard]
        self._ended[shard] = tuple(a + b for a, b in zip(ended, counts))
        self._counts[shard] = (0,) * len(COUNTS)

    def close(self) -> None:
        """Close the channels to all workers."""
        for shard in list(self._channels):
            self._close(shard)

    # ── words ──

    def tell_all(self, shards: Iterable[int], word: str) -> None:
        """Tell these workers a word. One that can't be reached is told in the next round."""
        self._asked_at = time.monotonic()
        for shard in shards:
            self.tell(shard, word)

    def tell(self, shard: int, word: str) -> None:
        """Tell a worker a word, if it can be reached."""
        self._say(shard, protocol.Steer(self._round, word))

    def _say(self, shard: int, call: protocol.Call) -> bool:
        """Say something to a worker; False: it can't be reached now."""
        channel = self._channels.get(shard) or self._connect(shard)
        if channel is not None:
            raw = protocol.encode(call)
            self._guarded(shard, lambda: channel.say(raw))
        return shard in self._channels

    def listen(self, bell: int, door: int, patience_s: float) -> None:
        """Wait until a worker says something, the bell rings, somebody is at our door, or time is up;
        take in what workers said."""
        poll = select.poll()
        for channel in self._channels.values():
            poll.register(channel, select.POLLIN | (select.POLLOUT if channel.unsent else 0))
        poll.register(bell, select.POLLIN)
        poll.register(door, select.POLLIN)
        poll.poll(patience_s * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(bell, 4096)
        for shard in list(self._channels):
            self._hear(shard)

    def _connect(self, shard: int) -> Channel | None:
        """Open a channel to a worker. The worker is told things at once, and believed once it has proven
        that it is the app's own."""
        place = places.listener(self.folder, shard)
        channel = Channel.to(str(place), message_bytes_max=ANSWER_BYTES_MAX)
        if channel is not None:
            self._channels[shard], self._challenges[shard] = channel, knock.drawn()
            raw = knock.knock(self._secret, self._challenges[shard])
            self._guarded(shard, lambda: channel.say(raw))
        return self._channels.get(shard)

    def _hear(self, shard: int) -> None:
        """Take in what a worker has said; go on sending what it is told."""
        channel = self._channels.get(shard)
        if channel is None:
            return
        for raw in self._guarded(shard, channel.hear) or ():
            if challenge := self._challenges.pop(shard, b""):
                if not knock.is_answer(self._secret, challenge, raw):
                    self._close(shard)
                    return
                continue
            kind, n, *rest = msgspec.msgpack.decode(raw)
            if kind == "answer" and n < 0:
                self._standings[shard] = msgspec.convert(rest[0], Standing)
                self._placing.pop(shard, None)
            elif kind == "answer" and n == self._round:
                answer = self._answers[shard] = rest[0]
                if (load := answer.pop("load", None)) is not None:
                    self._loads[shard] = msgspec.convert(load, Load)
                self._counts[shard] = tuple(answer[name] for name in COUNTS)
        self._guarded(shard, channel.go_on)

    def _guarded(self, shard: int, speak: Callable[[], T]) -> T | None:
        """Use a channel; close it and return None when it is broken."""
        try:
            return speak()
        except Broken:
            self._close(shard)
            return None

    def _close(self, shard: int) -> None:
        if channel := self._channels.pop(shard, None):
            channel.close()
        self._standings.pop(shard, None)
        self._placing.pop(shard, None)


def _stirs_of(children: Sequence[Child]) -> list[int]:
    """Return how much has happened at each worker, by its newest heartbeat."""
    return [0 if child.beat is None else child.beat.stirs for child in children]
