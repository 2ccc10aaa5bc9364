"""What `ports.Log` promises, for every adapter."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ports.logs import ADAPTERS, NEVER, Failing, Owner
from tests.store.power import PowerFailed

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "sync", "roll", "trim", "kill", "power"]),
        st.integers(1, 4),
        st.one_of(st.just(NEVER), st.integers(0, 8)),
    ),
    min_size=5,
    max_size=60,
)
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)


@pytest.fixture(params=ADAPTERS)
def ground(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Failing]:
    yield ADAPTERS[request.param](tmp_path, monkeypatch, random.Random(1))


@each_adapter
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, sync=st.booleans(), seed=st.integers(0, 1 << 30))
def test_what_was_synced_is_there_after_any_kills_and_power_cuts(
    tmp_path_factory: pytest.TempPathFactory,
    adapter: str,
    steps: list[tuple[str, int, int]],
    sync: bool,
    seed: int,
) -> None:
    """`steps`: what is done, how many commits, and how many calls the disk does before it fails."""
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        ground = ADAPTERS[adapter](tmp_path_factory.mktemp("log"), patch, rng)
        owner = Owner(ground, sync=sync)

        def cut() -> None:
            ground.cut_power()
            owner.open()

        for step, count, calls in steps:
            steps_of: dict[str, Callable[[], None]] = {
                "append": lambda count=count: owner.append(count, rng),
                "sync": owner.sync_all,
                "roll": owner.roll,
                "trim": owner.trim,
                "kill": owner.open,
                "power": cut,
            }
            ground.fail_after(calls)
            try:
                steps_of[step]()
            except PowerFailed:
                cut()
            ground.fail_after(NEVER)
        cut()
        owner.log.close()


@pytest.mark.parametrize("noted", [False, True])
def test_between_a_roll_s_preparation_and_the_roll_either_token_opens_the_log(
    ground: Failing, noted: bool
) -> None:
    owner = Owner(ground, sync=True)
    owner.append(3, random.Random(1))
    token = owner.log.prepare_roll()
    if noted:
        owner.token = token
    owner.open()
    owner.append(2, random.Random(2))
    owner.open()
    assert owner.log.last.no == 5


def test_a_trim_drops_what_is_before_the_boundary_and_nothing_behind_it(ground: Failing) -> None:
    owner = Owner(ground, sync=True)
    owner.append(3, random.Random(1))
    owner.roll()
    before = owner.log.size_bytes
    owner.append(2, random.Random(2))
    assert owner.log.boundary.no == 3
    owner.trim()
    assert owner.log.size_bytes < before
    owner.open()
    assert list(owner.given) == [4, 5]


def test_a_snapshot_is_copied_as_it_was_though_the_log_goes_on_rolls_and_trims(
    ground: Failing, tmp_path: Path
) -> None:
    owner, rng = Owner(ground, sync=True), random.Random(1)
    owner.append(3, rng)
    owner.roll()
    owner.append(2, rng)
    token, covered = owner.token, owner.covered
    snapshot = owner.log.hold()
    owner.append(2, rng)
    owner.roll()
    owner.append(2, rng)
    owner.trim()
    copy = tmp_path / "copy"
    copy.mkdir()
    assert snapshot.no == 5
    assert snapshot.copy(copy) > 0
    snapshot.close()
    log = ground.open_copy(copy, token, (covered.no, covered.checksum))
    assert [decoded.no for decoded in log.replay()] == [1, 2, 3, 4, 5]
