"""The stores of an app's members in a cluster, as the supervisor makes and removes them: it has workers to
look after meanwhile, so it waits for nobody."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from nats.js.errors import APIError

from skerry.errors import Unavailable
from skerry.runtime.app import placer
from skerry.runtime.app.hosted import ClusterMembers
from skerry.runtime.app.register import Register
from skerry.runtime.app.scaler import Scaler
from skerry.runtime.cluster.engine import Away
from skerry.runtime.core.demand import Standing
from skerry.runtime.description import Description

FULL = APIError(code=500, err_code=10047, description="insufficient storage resources available")


@pytest.fixture
def engine() -> mock.Mock:
    return mock.Mock(servers=["nats://h1:4222"])


@pytest.fixture
def said() -> list[str]:
    return []


def members(
    tmp_path: Path, engine: mock.Mock, said: list[str], silent_s: float = 0.0
) -> ClusterMembers:
    coordinator = mock.Mock(silent_s=silent_s, replicas=3)
    return ClusterMembers(tmp_path, coordinator, engine, said.append, lambda: False)


def two_shards() -> Description:
    return Description.first("shop", placer.first(2))


@pytest.mark.parametrize("work", [ClusterMembers.recruit, ClusterMembers.retire])
def test_servers_that_are_away_are_asked_nothing(
    tmp_path: Path, engine: mock.Mock, said: list[str], work: mock.Mock
) -> None:
    with pytest.raises(Away, match="has not answered for 3 s"):
        work(members(tmp_path, engine, said, silent_s=3.0), two_shards(), 1)
    assert not engine.run.called


def test_servers_that_go_away_meanwhile_are_asked_once(
    tmp_path: Path, engine: mock.Mock, said: list[str]
) -> None:
    engine.run.side_effect = [True, Away("gone"), True]
    with pytest.raises(Away, match="gone"):
        members(tmp_path, engine, said).retire(two_shards(), 1)
    assert engine.run.call_count == 2


def test_servers_that_make_no_log_are_told_of_once_and_asked_again(
    tmp_path: Path, engine: mock.Mock, said: list[str]
) -> None:
    engine.run.side_effect = FULL
    stores, app = members(tmp_path, engine, said), two_shards()
    for _ in range(2):
        with pytest.raises(Away):
            stores.recruit(app, 2)
    (line,) = said
    assert "insufficient storage resources available. Make room on the servers" in line


def test_a_shard_that_can_t_be_removed_yet_is_removed_later_and_the_change_goes_on() -> None:
    """The version without it is written, and then the servers go away."""
    app, version = two_shards(), 0
    stores = mock.Mock(lacking_room=lambda *_: "", free_ids=lambda *_: [])
    stores.retire.side_effect = [Unavailable("gone"), Unavailable("gone"), None]
    questions = mock.Mock(standings=lambda v: {s: Standing(v, True, []) for s in (0, 1)})
    scaler = Scaler(Register(mock.Mock(), app), stores, questions, mock.Mock(), mock.Mock())
    scaler.scale(1)
    while scaler.busy:
        scaler.step()
        version += 1
        assert version < 10_000, "it goes on"
    assert app.placement.members == [0]
    assert stores.retire.call_count == 3
