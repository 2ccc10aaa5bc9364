"""What the host that leads decides of homes and tenants, whatever it hears when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app import placer
from skerry.runtime.app.homes import Homes
from skerry.runtime.app.housing import Housing
from skerry.runtime.app.members import Members
from skerry.runtime.app.register import Register
from skerry.runtime.app.scaler import Scaler
from skerry.runtime.cluster.lease import Leader, Lease, vacant
from skerry.runtime.description import Description
from skerry.runtime.ports import Coordinator, Deposed


class Written:
    """A coordinator that keeps what is written, or loses answers."""

    def __init__(self) -> None:
        self.versions: list[Description] = []
        self.refuses: Exception | None = None

    def replace(self, new: Description, *, generation: int) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.versions.append(replace(new))


class Hosts:
    """Hosts, as the leader sees them, and as they are."""

    def __init__(self) -> None:
        self.hosts: dict[str, Lease] = {}
        self.alive: set[str] = set()

    def is_absent(self, host: str) -> bool:
        return host not in self.alive


class Settles:
    """A scaler that notes what it is to change to."""

    busy = held = False

    def __init__(self) -> None:
        self.goals: list[tuple[Homes, list[int]]] = []

    def settle(self, homes: Homes, goal: list[int]) -> None:
        self.goals.append((homes, goal))

    def start(self, workers: None) -> None:
        self.busy = True


class Stores:
    def free_ids(self, app: Description, count: int) -> Sequence[int]:
        return range(app.placement.next_id, app.placement.next_id + count)


def lease(host: str, nonce: str = "1", **more: Any) -> Lease:
    return Lease(host=host, nonce=f"{host}-{nonce}", pid=1, lease_s=10.0, workers=2, **more)


class World:
    """An app of four shards on hosts a and b, led by a."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        app = Description.first("shop", placer.first(4))
        app.cluster, app.homes = "skerry-shop", {0: "a", 1: "a", 2: "b", 3: "b"}
        app.tenants = {"a": "a-1", "b": "b-1"}
        self.app, self.written, self.hosts, self.scaler = app, Written(), Hosts(), Settles()
        self.register = Register(cast(Coordinator, self.written), app)
        monkeypatch.setattr("skerry.runtime.app.housing.LOOK_S", 0.0)
        self.housing = Housing(
            self.hosts,
            self.register,
            cast(Scaler, self.scaler),
            cast(Members, Stores()),
            lambda line: None,
        )
        self.see(lease("a"), lease("b"))

    def see(self, *leases: Lease) -> None:
        """Let these be present, and seen."""
        self.hosts.hosts = {each.host: each for each in leases}
        self.hosts.alive = {*self.hosts.hosts}

    def steps(self) -> None:
        """Go on until nothing is left to do."""
        while self.housing.step():
            if self.scaler.goals:
                return


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_nothing_changes_while_hosts_have_what_they_want(world: World) -> None:
    world.steps()
    assert (world.written.versions, world.scaler.goals) == ([], [])


def test_the_shards_of_an_evicted_host_go_to_the_others_as_guests(world: World) -> None:
    world.see(lease("a"))
    world.steps()
    assert world.app.homes == {0: "a", 1: "a", 2: "a", 3: "a"}
    assert world.app.guests == [2, 3]
    assert "b" not in world.app.tenants
    assert world.scaler.goals == []


def test_a_host_that_is_only_missing_in_an_old_look_keeps_its_shards(world: World) -> None:
    world.hosts.hosts = {"a": lease("a")}
    world.steps()
    assert world.written.versions == []


def test_a_host_that_is_back_gets_shards_of_its_own_again(world: World) -> None:
    world.see(lease("a"))
    world.steps()
    world.see(lease("a"), lease("b", "2"))
    world.steps()
    assert world.app.tenants["b"] == "b-2"
    ((homes, goal),) = world.scaler.goals
    assert goal == [0, 1, 4, 5]
    assert {homes.homes[shard] for shard in (4, 5)} == {"b"}


def test_the_next_process_of_a_host_is_named_and_runs_the_same_shards(world: World) -> None:
    assert world.app.shards_of("b", "b-1") == [2, 3]
    world.see(lease("a"), lease("b", "2"))
    assert world.app.shards_of("b", "b-2") == [], "it is not named yet"
    world.steps()
    assert world.app.shards_of("b", "b-2") == [2, 3]
    assert world.app.shards_of("b", "b-1") == [], "the one before is not named any more"
    assert world.scaler.goals == []


def test_a_host_that_leaves_gives_all_its_shards_away(world: World) -> None:
    world.see(lease("a"), lease("b", leaves=True))
    world.steps()
    ((_, goal),) = world.scaler.goals
    assert goal == [0, 1]


def test_a_host_that_has_not_said_what_it_wants_keeps_what_it_has(world: World) -> None:
    world.see(lease("a"), replace(lease("b"), workers=0))
    world.steps()
    assert world.scaler.goals == []


def test_a_goal_that_nobody_leads_to_is_led_to(world: World) -> None:
    world.app.goal = [0, 1, 2]
    world.steps()
    assert world.scaler.busy


# ── changes whose outcome is unknown ──


def test_nothing_else_is_changed_before_an_unknown_outcome_is_known(world: World) -> None:
    world.written.refuses = Unavailable("nobody answers")
    with pytest.raises(Unavailable):
        world.register.put(goal=[0, 1])
    assert world.app.goal == []
    with pytest.raises(Unavailable):
        world.register.put(guests=[3])
    world.written.refuses = None
    world.register.put(guests=[2])
    assert [(v.goal, v.guests) for v in world.written.versions] == [([0, 1], []), ([0, 1], [2])]
    assert (world.app.goal, world.app.guests) == ([0, 1], [2])


@pytest.mark.parametrize("refusal", [SkerryError("the disk is full"), Deposed("another leads")])
def test_a_change_that_was_refused_is_not_tried_again(world: World, refusal: SkerryError) -> None:
    world.written.refuses = refusal
    with pytest.raises(SkerryError):
        world.register.put(goal=[0, 1])
    world.written.refuses = None
    world.register.finish()
    assert world.written.versions == []


# ── who leads ──


def test_the_leader_s_place_is_vacant_when_its_process_has_no_lease_any_more() -> None:
    leader, present = Leader("b", "b-1"), {"a": lease("a"), "b": lease("b")}
    assert not vacant(leader, present)
    assert vacant(None, present)
    assert vacant(leader, {"a": lease("a")})
    assert vacant(leader, present | {"b": lease("b", "2")})
    assert vacant(leader, present | {"b": lease("b", ended=True)})
