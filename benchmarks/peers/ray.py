"""Ray actors: a call a message, and the users' own batches of 1,000 into two actors.

After its guide: "Actors", "Pattern: Using ray.wait to limit the number of pending tasks" and
"Anti-pattern: Over-parallelizing with too fine-grained tasks" (batch them by hand). An actor
is a process, so keys share two of them; ten thousand actors would be ten thousand processes.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given

CALLS_MAX, BATCHES_MAX = 1000, 20
"""What is in flight at most: the page on pending tasks says to have a bound."""


@ray.remote
class Owner:
    """Half of the keys."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {}
        self.owners: Sequence[Any] = ()
        self.sent: list[Any] = []

    def know(self, owners: Sequence[Any]) -> None:
        """Who has which half."""
        self.owners = owners

    def add(self, name: str, amount: int) -> int:
        """The state of one key."""
        value = self.states[name] = self.states.get(name, 0) + amount
        return value

    def add_all(self, names: list[str]) -> None:
        """The same for many."""
        states = self.states
        for name in names:
            states[name] = states.get(name, 0) + 1

    def transfer(self, name: str) -> None:
        """Take one, send it to another key."""
        self.add(name, -1)
        to = load.other(name)
        self.sent.append(self.owners[load.half(to)].add.remote(to, 1))

    def transfer_all(self, names: list[str]) -> None:
        """The same for many, a call to each owner."""
        states = self.states
        for name in names:
            states[name] = states.get(name, 0) - 1
        others = load.halves(map(load.other, names))
        self.sent += [owner.add_all.remote(part) for owner, part in zip(self.owners, others)]

    def calls(self) -> list[Any]:
        """What it has sent, to be waited for."""
        sent, self.sent = self.sent, []
        return sent

    def all(self) -> dict[str, int]:
        """What it holds."""
        return self.states


@ray.remote
class Feeder:
    """A program of its own that makes a part of the load, in batches divided by owner."""

    def feed(self, owners: Sequence[Any], method: str, partitions: list[str], count: int) -> None:
        """Call that method of the owners."""
        pending: list[Any] = []
        for partition in partitions:
            for number, names in load.halved(partition, count):
                pending.append(getattr(owners[number], method).remote(names))
                pending = bounded(pending, BATCHES_MAX)
        ray.get(pending)


def bounded(pending: list[Any], most: int) -> list[Any]:
    """Those that are still in flight; waits while they are too many."""
    if len(pending) > most:
        _, pending = ray.wait(pending, num_returns=len(pending) - most // 2)
    return pending


class Cluster:
    """New actors: two owners, two feeders."""

    def __init__(self) -> None:
        self.owners = [Owner.remote() for _ in range(2)]
        self.feeders = [Feeder.remote() for _ in range(2)]
        ray.get([owner.know.remote(self.owners) for owner in self.owners])
        ray.get([feeder.__ray_ready__.remote() for feeder in self.feeders])

    def owner(self, name: str) -> Any:
        """Who has this key."""
        return self.owners[load.half(name)]

    def each(self, given: Given, method: str, *more: object) -> None:
        """A call for each message, by this program."""
        pending: list[Any] = []
        for name in load.keys(given.partitions, given.count):
            pending.append(getattr(self.owner(name), method).remote(name, *more))
            pending = bounded(pending, CALLS_MAX)
        ray.get(pending)

    def batches(self, given: Given, method: str) -> None:
        """Batches by both feeders, each with half of the load."""
        halves = [given.partitions[0::2], given.partitions[1::2]]
        feeding = [
            feeder.feed.remote(self.owners, method, half, given.count)
            for feeder, half in zip(self.feeders, halves)
        ]
        ray.get(feeding)

    def arrived(self) -> None:
        """Wait for what the owners have sent to each other."""
        for sent in ray.get([owner.calls.remote() for owner in self.owners]):
            ray.get(sent)

    def states(self) -> dict[str, int]:
        """What both hold."""
        first, second = ray.get([owner.all.remote() for owner in self.owners])
        return {**first, **second}


def measured(work: Callable[[Cluster, Given], None]) -> Callable[[Given], Done]:
    """On new actors."""

    def run(given: Given) -> Done:
        cluster = Cluster()
        start = time.perf_counter()
        work(cluster, given)
        cluster.arrived()
        return Done(time.perf_counter() - start, cluster.states())

    return run


def ask(given: Given) -> Done:
    """A call and its result is a request."""
    cluster = Cluster()
    took = figure.asked(lambda name: ray.get(cluster.owner(name).add.remote(name, 1)), given)
    return Done(sum(took) / 1000, cluster.states(), took)


NONE = "nothing kept; each call at most once"
FIGURES = [
    Figure(
        *("keyed_counter", "a call a message", NONE, 2_500),
        measured(lambda cluster, given: cluster.each(given, "add", 1)),
    ),
    Figure(
        *("keyed_counter", "batches of 1,000 by hand", NONE, 1_500_000),
        measured(lambda cluster, given: cluster.batches(given, "add_all")),
    ),
    Figure(
        *("transfers", "a call a transfer", NONE, 1_000),
        measured(lambda cluster, given: cluster.each(given, "transfer")),
    ),
    Figure(
        *("transfers", "batches of 1,000 by hand", NONE, 400_000),
        measured(lambda cluster, given: cluster.batches(given, "transfer_all")),
    ),
    Figure("ask", "a call", NONE, 500, ask, 1),
]

if __name__ == "__main__":
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    # It keeps nothing, but names sockets by their whole path, which must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as place:
        with figure.quiet():
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=place,
            )
        figure.main("ray", FIGURES, first=ask)
        ray.shutdown()
