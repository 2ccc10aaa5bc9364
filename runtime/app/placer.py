"""Decides how many shards an app has, which slots each serves, and the core of each worker.

Pure: the supervisor and the simulator decide by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence

from skerry.runtime.core.ownership import balanced
from skerry.runtime.core.placement import Placement


def first(shards: int) -> Placement:
    """Return the placement of a new app."""
    return balanced(list(range(shards)), version=1, next_id=shards)


def after(old: Placement, members: Sequence[int]) -> Placement:
    """Return the placement on new shards, whose ids no shard had before."""
    fresh = list(members)
    assert min(fresh) >= old.next_id, f"ids {fresh} are not new: the next is {old.next_id}"
    return balanced(fresh, version=old.version + 1, next_id=max(fresh) + 1)


def towards(old: Placement, members: Sequence[int], slots_max: int) -> Placement | None:
    """The next version on the way to an even placement on these members; None: it is there.

    So many slots move at once: while they do, messages to them wait. A version that only removes
    members comes last, when all their slots have gone.
    """
    counts = dict.fromkeys(sorted(members), 0)
    for owner in old.slots:
        if owner in counts:
            counts[owner] += 1
    share, more = divmod(len(old.slots), len(counts))
    # Those that have most keep what does not divide evenly: fewer slots move.
    full = sorted(counts, key=lambda shard: -counts[shard])
    room = {shard: share + (place < more) - counts[shard] for place, shard in enumerate(full)}
    slots = list(old.slots)
    moved = 0
    for slot, owner in enumerate(slots):
        taker = max(room, key=lambda shard: room[shard])
        if moved == slots_max or room[taker] <= 0:
            break
        if owner in counts and room[owner] >= 0:
            continue
        if owner in counts:
            room[owner] += 1
        slots[slot], moved = taker, moved + 1
        room[taker] -= 1
    if not moved and set(old.members) == set(members):
        return None
    known = sorted({*old.members, *members}) if moved else sorted(members)
    next_id = max(old.next_id, max(known) + 1)
    return Placement(old.version + 1, known, slots, next_id)


def core_of(worker: int, workers: int, cores: Sequence[int]) -> int | None:
    """Return the core that a worker keeps to; None: there are too few for each to have its own."""
    return cores[worker] if workers <= len(cores) else None
