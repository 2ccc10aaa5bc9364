"""Decides how many shards an app has, which slots each serves, and the core of each worker.

Pure: the supervisor and the simulator decide by the same code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

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

    A version moves the slots that the one before has named, and names those that come next: so
    many at once, since messages to them wait while they move. A version that only removes members
    comes last, when all their slots have gone, and nobody copies slots to them any more.
    """
    moved, slots = _moved(old, members)
    coming = _coming(slots, members, slots_max, moved)
    if slots == old.slots and coming == old.coming and set(old.members) == set(members):
        return None
    moves = coming or old.coming or slots != old.slots
    known = sorted({*old.members, *members}) if moves else sorted(members)
    next_id = max(old.next_id, max(known) + 1)
    return Placement(old.version + 1, known, slots, next_id, coming)


def _moved(old: Placement, members: Sequence[int]) -> tuple[dict[int, int], list[int]]:
    """Return which slots the version has named that go to these members now, and the owners then."""
    moved = {slot: owner for slot, owner in old.coming.items() if owner in members}
    return moved, [moved.get(slot, owner) for slot, owner in enumerate(old.slots)]


def distance(slots: Sequence[int], members: Sequence[int]) -> int:
    """Return how many slots have to move for an even placement on these members."""
    return len(_coming(slots, members, len(slots), ()))


def _coming(
    slots: Sequence[int], members: Sequence[int], slots_max: int, moved: Collection[int]
) -> dict[int, int]:
    """Name slots that move next on the way to an even placement on these members. Those that move now
    are not copied on at once."""
    counts = dict.fromkeys(sorted(members), 0)
    for owner in slots:
        if owner in counts:
            counts[owner] += 1
    share, more = divmod(len(slots), len(counts))
    # Those that have most keep what does not divide evenly: fewer slots move.
    full = sorted(counts, key=lambda shard: -counts[shard])
    room = {shard: share + (place < more) - counts[shard] for place, shard in enumerate(full)}
    found: dict[int, int] = {}
    for slot, owner in enumerate(slots):
        taker = max(room, key=lambda shard: room[shard])
        if len(found) == slots_max or room[taker] <= 0:
            break
        if slot in moved or (owner in counts and room[owner] >= 0):
            continue
        if owner in counts:
            room[owner] += 1
        found[slot] = taker
        room[taker] -= 1
    return found


def reassigned(old: Placement, owners: Mapping[int, int]) -> Placement | None:
    """The next version on the way to these owners of these slots; None: they are their owners, and no
    slot is named to move. No shard may both give and take."""
    moved, slots = _moved(old, old.members)
    coming = {
        slot: owner for slot, owner in owners.items() if owner != slots[slot] and slot not in moved
    }
    if not coming and not old.coming:
        return None
    assert {old.slots[slot] for slot in moved}.isdisjoint(moved.values()), "a shard gives and takes"
    return replace(old, version=old.version + 1, slots=slots, coming=coming)


def core_of(worker: int, workers: int, cores: Sequence[int]) -> int | None:
    """Return the core that a worker keeps to; None: it runs where the system puts it.

    Only workers that are as many as the cores keep to one each. Fewer leave the choice to the system,
    which knows what else runs here: other apps, or other hosts of this one.
    """
    return cores[worker] if workers == len(cores) else None
