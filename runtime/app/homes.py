"""Decides on which host of a cluster each shard lives, and how many shards there are.

    a host was evicted      -> its shards get other homes, as guests: `rehomed`
    a host came, or wants   -> the shards that there should be: `settled`
    other workers

A shard is never taken from a host that is present: its slots move away instead, while it serves. So
nobody waits longer than for a slot, and no rule depends on when a host hears of it.

Guests are shards of hosts that were evicted. They stay where they are until a host lacks shards, as
the evicted one does when it comes back: a host that is away for a minute costs no slot a move.

Pure: the supervisor and the simulator decide by the same code. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct


class Homes(Struct, frozen=True):
    """Where shards live."""

    homes: dict[int, str] = {}
    """The host of each shard that is a member, or will be one."""
    guests: list[int] = []
    """Shards whose host was evicted, in ascending order."""


def shards_at(homes: Mapping[int, str], host: str) -> list[int]:
    """Return the shards that live on a host, in ascending order."""
    return sorted(shard for shard, home in homes.items() if home == host)


def rehomed(old: Homes, wants: Mapping[str, int]) -> Homes | None:
    """Give other homes to the shards of hosts that are not present; None: there is none.

    Args:
        wants: how many shards each present host wants; 0: it leaves. Not empty.
    """
    orphans = sorted(shard for shard, home in old.homes.items() if home not in wants)
    if not orphans:
        return None
    homes = dict(old.homes)
    counts = {host: len(shards_at(homes, host)) for host in wants}
    takers = [host for host in wants if wants[host]] or list(wants)
    for shard in orphans:
        # Whoever has least for what it wants; one that leaves takes a shard only if all do.
        taker = min(takers, key=lambda host: ((counts[host] + 1) / (wants[host] or 1), host))
        homes[shard] = taker
        counts[taker] += 1
    return Homes(homes, sorted({*old.guests, *orphans}))


def settled(
    old: Homes, wants: Mapping[str, int], fresh: Sequence[int]
) -> tuple[Homes, list[int]] | None:
    """Give each present host as many shards as it wants; None: they have them.

    Returns the homes, with those of shards that are to go, and the shards that there should be.

    Args:
        wants: as for `rehomed`, which has nothing to do.
        fresh: ids that no shard ever had, enough of them.
    """
    if not any(wants.values()):
        return None  # Somebody has to keep the slots.
    homes, guests, keep, lacking = dict(old.homes), list(old.guests), set[int](), 0
    new = iter(fresh)
    for host, wanted in wants.items():
        here = shards_at(old.homes, host)
        # Guests come last, and are at home where a host lacks shards.
        here.sort(key=lambda shard: shard in old.guests)
        own = [shard for place, shard in enumerate(here) if place < wanted]
        guests = [shard for shard in guests if shard not in own]
        made = [next(new) for _ in range(wanted - len(own))]
        homes |= dict.fromkeys(made, host)
        keep.update(own, made)
        lacking += len(made)
    keep.update([shard for shard in guests if wants[homes[shard]]][lacking:])
    found = Homes(homes, guests)
    return None if found == old and keep == homes.keys() else (found, sorted(keep))


def without(old: Homes, gone: Collection[int]) -> Homes:
    """Forget shards that have left."""
    return Homes(
        {shard: home for shard, home in old.homes.items() if shard not in gone},
        [shard for shard in old.guests if shard not in gone],
    )
