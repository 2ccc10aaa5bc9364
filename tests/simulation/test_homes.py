"""What is decided of hosts: where each shard lives, and how many there are."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.app import homes
from skerry.runtime.app.homes import Homes

HOSTS = "abcde"
WANTS = st.dictionaries(st.sampled_from(HOSTS), st.integers(0, 5), min_size=1)
FRESH = range(1000, 2000)


def over(old: Homes, wants: dict[str, int], fresh: itertools.count[int]) -> Homes:
    """Decide until nothing is left to decide, as if every slot moved at once."""
    if (found := homes.rehomed(old, wants)) is not None:
        old = found
    ids = [next(fresh) for _ in range(100)]
    while (change := homes.settled(old, wants, ids)) is not None:
        found, goal = change
        assert set(goal) <= found.homes.keys()
        settled = homes.without(found, found.homes.keys() - set(goal))
        assert settled != old, "each decision changes something"
        old = settled
    return old


@given(st.lists(WANTS, min_size=1, max_size=6))
def test_each_present_host_gets_what_it_wants_and_nobody_else_has_any(
    steps: list[dict[str, int]],
) -> None:
    found, fresh = Homes(), itertools.count()
    for wants in steps:
        found = over(found, wants, fresh)
        counts = {host: len(homes.shards_at(found.homes, host)) for host in wants}
        assert sum(counts.values()) == len(found.homes)
        if any(wants.values()):
            assert all(counts[host] >= wanted for host, wanted in wants.items())
            assert not any(counts[host] for host, wanted in wants.items() if not wanted)
            assert sum(counts.values()) - sum(wants.values()) == len(found.guests)


@given(WANTS, WANTS)
def test_no_shard_leaves_a_present_host_but_for_another_host_that_is_evicted(
    before: dict[str, int], after: dict[str, int]
) -> None:
    old = over(Homes(), before, itertools.count())
    found = homes.rehomed(old, after)
    if found is None:
        assert set(old.homes.values()) <= after.keys()
        return
    moved = {shard for shard, home in old.homes.items() if found.homes[shard] != home}
    assert moved == {shard for shard, home in old.homes.items() if home not in after}
    assert set(found.guests) >= moved
    assert set(found.homes.values()) <= after.keys()


def test_the_shards_of_an_evicted_host_are_spread_evenly() -> None:
    old = over(Homes(), {"a": 4, "b": 4, "c": 4}, itertools.count())
    found = homes.rehomed(old, {"b": 4, "c": 4})
    assert found is not None
    assert [len(homes.shards_at(found.homes, host)) for host in "bc"] == [6, 6]


def test_guests_stay_until_their_host_comes_back() -> None:
    fresh = itertools.count()
    old = over(Homes(), {"a": 2, "b": 2}, fresh)
    alone = over(old, {"b": 2}, fresh)
    assert len(homes.shards_at(alone.homes, "b")) == 4 and len(alone.guests) == 2
    back = over(alone, {"a": 2, "b": 2}, fresh)
    assert [len(homes.shards_at(back.homes, host)) for host in "ab"] == [2, 2]
    assert not back.guests


def test_a_guest_is_at_home_where_its_host_wants_more() -> None:
    fresh = itertools.count()
    alone = over(over(Homes(), {"a": 2, "b": 2}, fresh), {"b": 2}, fresh)
    assert over(alone, {"b": 4}, fresh) == Homes(alone.homes, [])


def test_the_last_host_keeps_its_shards_though_it_leaves() -> None:
    old = over(Homes(), {"a": 2}, itertools.count())
    assert homes.settled(old, {"a": 0}, FRESH) is None
