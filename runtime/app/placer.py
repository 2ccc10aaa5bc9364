"""Decides how many shards an app has, which slots each serves, and the core of each worker.

Pure: the supervisor and the simulator decide by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence

from skerry.runtime.core.events import Placement
from skerry.runtime.core.ownership import balanced


def first(shards: int) -> Placement:
    """Return the placement of a new app."""
    return balanced(list(range(shards)), version=1, next_id=shards)


def after(old: Placement, members: Sequence[int]) -> Placement:
    """Return the placement on new shards, whose ids no shard had before."""
    fresh = list(members)
    assert min(fresh) >= old.next_id, f"ids {fresh} are not new: the next is {old.next_id}"
    return balanced(fresh, version=old.version + 1, next_id=max(fresh) + 1)


def shards_wanted(old: Placement, workers: int | None, *, lost: bool) -> int | None:
    """Return how many new shards the slots are dealt out to; None: the old ones stay.

    Args:
        workers: how many were asked for.
        lost: whether the shards lost commits, each a different number of them. Such shards no longer
            agree on the numbers of their frames; new shards begin their streams anew.
    """
    shards = workers or len(old.members)
    return shards if lost or shards != len(old.members) else None


def core_of(worker: int, workers: int, cores: Sequence[int]) -> int | None:
    """Return the core that a worker keeps to; None: there are too few for each to have its own."""
    return cores[worker] if workers <= len(cores) else None
