"""A worker takes its shard over: a new epoch is in the log before anything leaves.

Reads no clock but the port's, and does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skerry.runtime.core.events import Durable, Ticked
from skerry.runtime.core.shard import Shard
from skerry.runtime.worker.ports import Clock, Commits


def _leased() -> bool:
    return True


def open_shard(
    shard: Shard,
    commits: Commits,
    clock: Clock,
    wait: Callable[[], object],
    leased: Callable[[], bool] = _leased,
) -> None:
    """Take a shard over. Its new epoch is durable before anything leaves.

    `wait` returns when the disk may have come further, or the lease may hold again.
    """
    for _ in opening(shard, commits, clock, leased):
        wait()


def opening(
    shard: Shard, commits: Commits, clock: Clock, leased: Callable[[], bool] = _leased
) -> Iterator[None]:
    """Take a shard over, step by step: yield as long as its new epoch is not durable.

    In a cluster, the host's lease must hold after the log was read: so nobody has taken the shard over
    up to there, and whoever does so later lets this append fail. A host that has been replaced and
    does not know it would else take the shard back.
    """
    while not leased():
        yield
    shard.accept(ticked(clock))
    commit = shard.open()
    commits.append(commit)
    while commits.durable() < commit.no:
        yield
    shard.accept(Durable(commits.durable()))


def ticked(clock: Clock) -> Ticked:
    """Tell a shard the time."""
    return Ticked(clock.now_ns(), clock.steady_ns())
