"""What a program's tests are given: the harness, the simulation, the fixtures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from skerry import (
    App,
    Entity,
    Failed,
    Generate,
    Rejected,
    SkerryError,
    UnknownEntity,
    ask,
    now,
    send,
    send_later,
    set_timer,
)
from skerry.testing import NO_FAULTS, Dead, Faults, Harness, Simulation, harness

pytest_plugins = ["pytester"]


class Lamp(Entity):
    on: bool = False
    rang: list[datetime] = []
    count: int = 0

    def light(self, seconds: float) -> str:
        self.on = True
        set_timer("off", seconds, self._off)
        return f"lit by {self.key}"

    def _off(self) -> None:
        self.on = False
        self.rang.append(now())
        if len(self.rang) < 3:
            set_timer("off", 10, self._off)

    def both(self, other: str) -> None:
        ask(Lamp.at(other).light, 5).then(self._lit)
        send_later(timedelta(hours=1), self.tick)

    def _lit(self, said: str) -> None:
        self.count += 100

    def tick(self) -> None:
        self.count += 1

    def refuse(self) -> None:
        raise Rejected("no", why="dark")

    def fail(self) -> None:
        raise ZeroDivisionError("dark")

    def forever(self) -> None:
        send(self.forever)


def lamps() -> App:
    """An app without a source."""
    return App("lamps", entities=[Lamp])


def test_a_harness_answers_at_once_and_time_moves_by_hand() -> None:
    h = Harness(lamps(), now=datetime(2030, 5, 1, tzinfo=UTC))
    assert h.ask(Lamp.at("a").light, 60) == "lit by a"
    h.advance(59.9)
    assert h[Lamp.at("a")].on
    h.advance(timedelta(seconds=50))
    assert not h[Lamp.at("a")].on
    start = datetime(2030, 5, 1, tzinfo=UTC)
    due = [start + timedelta(seconds=s) for s in (60, 70, 80)]
    assert h[Lamp.at("a")].rang == due, "each timer at its own time, also those set on the way"
    assert h.now == start + timedelta(seconds=109.9)


def test_a_harness_runs_what_messages_cause_and_shows_refusals_and_dead_letters() -> None:
    h = Harness(lamps())
    h.send(Lamp.at("a").both, "b")
    assert h[Lamp.at("b")].on
    assert h[Lamp.at("a")].count == 100
    h.advance(3600)
    assert h[Lamp.at("a")].count == 101
    with pytest.raises(Rejected, match="no"):
        h.ask(Lamp.at("a").refuse)
    with pytest.raises(Failed, match="ZeroDivisionError: dark"):
        h.ask(Lamp.at("a").fail)
    h.send(Lamp.at("c").refuse)
    assert [(dead.entity, dead.handler) for dead in h.dead] == [
        ("Lamp/a", "fail"),
        ("Lamp/c", "refuse"),
    ]
    assert isinstance(h.dead[0], Dead)
    assert "raise ZeroDivisionError" in h.dead[0].traceback
    assert h[Lamp.at("untouched")] == Lamp()


def test_a_harness_reads_sources_and_refuses_what_is_wrong() -> None:
    app = lamps()
    app.source(Generate(lambda p, n: n, partitions=2, count=10)).key_by(str).to(Lamp.tick)
    h = Harness(app)
    h.run()
    assert [h[Lamp.at(str(n))].count for n in range(10)] == [2] * 10
    with pytest.raises(ValueError, match="time goes forward"):
        h.advance(-1)

    class Stranger(Entity):
        def hello(self) -> None: ...

    with pytest.raises(UnknownEntity):
        h.ask(Stranger.at("a").hello)
    for reach in (h.ask, h.send):
        with pytest.raises(TypeError, match=r"Lamp\._off is private"):
            reach(Lamp.at("a")._off)


def test_an_app_that_never_rests_is_told_so() -> None:
    h = Harness(lamps())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "STEPS_MAX", 500)
        with pytest.raises(SkerryError, match="for ever"):
            h.send(Lamp.at("a").forever)


def test_a_simulation_gives_the_same_run_for_the_same_seed_and_keeps_every_promise() -> None:
    def run(seed: int) -> tuple[object, ...]:
        sim = Simulation(lamps(), seed=seed, shards=3)
        replies = [sim.ask(Lamp.at(f"l{n % 5}").both, f"l{n % 3}") for n in range(30)]
        sim.crash(1)
        sim.run()
        assert all(reply.came and reply.result() is None for reply in replies)
        counts = [sim[Lamp.at(f"l{n}")].count for n in range(5)]
        assert sum(counts) == 30 * 101
        return counts, dict(sim.met), sim.dead

    assert run(3) == run(3)
    assert run(3)[1] != run(4)[1]


def test_options_out_of_range_say_so() -> None:
    for wrong in ({"crash": 1.5}, {"lose": -0.1}, {"delay_steps_max": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Faults(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shards is 1 to"):
        Simulation(lamps(), shards=0)
    with pytest.raises(TypeError, match="a seed is an int"):
        Simulation(lamps(), seed="x")  # type: ignore[arg-type]
    assert Simulation(lamps(), faults=NO_FAULTS).met == {}


def test_the_fixtures_run_an_app_and_a_simulation_per_seed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from skerry import App, Entity

        class Count(Entity):
            n: int = 0
            def add(self) -> int:
                self.n += 1
                return self.n

        app = App("fixtures", entities=[Count])

        def test_real(skerry_app):
            assert skerry_app(app).ask(Count.at("a").add) == 1

        def test_simulated(skerry_sim):
            sim = skerry_sim(app, shards=2)
            reply = sim.ask(Count.at("a").add)
            sim.run()
            assert reply.result() == 1
            assert sim.seed != 2
        """
    )
    done = pytester.runpytest_subprocess("--skerry-seeds", "4", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=4, failed=1)
    done.stdout.fnmatch_lines(["*FAILED*test_simulated?seed-2?*"])
    one = pytester.runpytest_subprocess("--skerry-seed", "7", "-p", "no:cacheprovider")
    one.assert_outcomes(passed=2)


def test_a_seed_that_fails_is_shrunk_to_the_faults_that_it_needs_and_drawn(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        from skerry import App, Entity

        class Count(Entity):
            count: int = 0

            def add(self) -> int:
                self.count += 1
                return self.count

        app = App("shrunk", entities=[Count])

        def test_a_promise_that_no_crash_may_happen(skerry_sim):
            sim = skerry_sim(app, shards=2)
            sim.ask(Count.at("a").add)
            sim.run(600)
            assert not any("appended" in name for name in sim.met)
        """
    )
    done = pytester.runpytest_subprocess(
        "--skerry-seeds", "8", "--skerry-shrink", "-p", "no:cacheprovider"
    )
    done.stdout.fnmatch_lines(
        ["*It fails with these kinds of faults alone: crash. Drawn in *.svg."]
    )
    (picture, *_) = pytester.path.glob("skerry-seed-*.svg")
    assert "killed" in picture.read_text()
