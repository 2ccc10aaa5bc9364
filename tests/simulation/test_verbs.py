"""Every verb through the real core, on two simulated shards: what arrives, when, how often."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import msgspec
import pytest

from skerry import (
    App,
    Entity,
    Failed,
    Rejected,
    ask,
    cancel_timer,
    forget,
    message,
    now,
    query,
    rng,
    send,
    send_later,
    set_timer,
)
from skerry.runtime.core import schedule
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Limits
from skerry.runtime.simulator.cluster import Cluster
from skerry.testing import NO_FAULTS, Faults

tries: dict[str, int] = {}
"""How often a handler ran, whatever became of its turn: outside of all state, on purpose."""


class Shop(Entity):
    heard: list[str] = []
    times: list[datetime] = []
    numbers: list[float] = []

    def buy(self, of: str, how: str, seconds: float = 60.0) -> None:
        (
            ask(Stock.at(of).take, how)
            .then(self._sold, of)
            .rejected(self._refused, of)
            .failed(self._broken, of)
            .timeout(seconds, self._late, of)
        )

    def buy_nothing(self, of: str) -> None:
        ask(Stock.at(of).nothing).then(self._nothing, of)

    def buy_and_meddle(self, of: str) -> None:
        ask(Stock.at(of).nothing).then(self.meddle)

    def buy_blind(self, of: str, how: str) -> None:
        ask(Stock.at(of).take, how)

    def _sold(self, left: int, of: str) -> None:
        self.heard.append(f"sold {of}, {left} left")

    def _nothing(self, of: str) -> None:
        self.heard.append(f"nothing of {of}")

    def _refused(self, error: Rejected, of: str) -> None:
        self.heard.append(f"refused {of}: {error.reason} {error.details}")

    def _broken(self, error: Failed, of: str) -> None:
        self.heard.append(f"broken {of}: {error.error}")

    def _late(self, of: str) -> None:
        self.heard.append(f"late {of}")

    def clock(self) -> None:
        self.times.append(now())
        self.numbers.append(rng().random())

    def remember(self, what: str) -> None:
        self.heard.append(what)

    def plan(self, what: str) -> None:
        send_later(timedelta(milliseconds=50), self.remember, f"{what} later")
        send(self.remember, f"{what} now")
        set_timer("t", 0.02, self._rings, "first")
        set_timer("t", 0.04, self._rings, "second")
        set_timer("u", 0.02, self._rings, "cancelled")
        assert cancel_timer("u")
        assert not cancel_timer("u")
        assert not cancel_timer("never set")

    def _rings(self, what: str) -> None:
        self.heard.append(f"rings {what}")
        self.times.append(now())

    def flaky(self, name: str, times: int) -> int:
        tries[name] = tries.get(name, 0) + 1
        self.heard.append(name)
        send(self.remember, f"sent by {name}")
        if tries[name] <= times:
            raise OSError("not yet")
        return tries[name]

    def refusing(self, name: str) -> None:
        tries[name] = tries.get(name, 0) + 1
        raise Rejected("as always")

    def ask_refusing(self, name: str) -> None:
        ask(Shop.at("s").refusing, name).rejected(self._refused, name)

    def vanish_and_ask(self) -> None:
        ask(Stock.at("a").take, "ok").then(self._sold, "a")
        send(Shop.at("other").remember, "left behind")
        set_timer("t", 0.01, self._rings, "never")
        forget()

    @query
    def look(self) -> list[str]:
        return self.heard

    @query
    def meddle(self) -> None:
        self.heard.append("changed by a query")

    @query
    def talk(self) -> None:
        send(self.remember, "sent by a query")


class Stock(Entity):
    left: int = 10

    def take(self, how: str) -> int:
        self.left -= 1
        if how == "refuse":
            raise Rejected("sold out", left=self.left)
        if how == "break":
            raise ZeroDivisionError("of stock")
        return self.left

    def nothing(self) -> None:
        return


@pytest.fixture
def cluster() -> Cluster:
    """Two shards and no faults."""
    tries.clear()
    return Cluster(App("verbs", entities=[Shop, Stock]), seed=5, shards=2, faults=NO_FAULTS)


def dead(cluster: Cluster) -> list[str]:
    """What the dead letters say, over all shards."""
    rows = [row for machine in cluster.machines for _, row in machine.disk.scan(Table.DEAD)]
    return sorted(msgspec.msgpack.decode(row)[7] for row in rows)


def reply(cluster: Cluster, number: int) -> Any:
    """The kind and the body of a request's outcome."""
    outcome = cluster.outcomes[number]
    return outcome.kind, msgspec.msgpack.decode(outcome.body)


def test_each_ask_has_the_one_outcome_that_fits(cluster: Cluster) -> None:
    for how in ("ok", "refuse", "break"):
        cluster.ask(message(Shop.at("s").buy, how, how))
    cluster.ask(message(Shop.at("s").buy_nothing, "air"))
    cluster.settle()
    assert sorted(cluster.state("Shop", "s").heard) == [
        "broken break: ZeroDivisionError: of stock",
        "nothing of air",
        "refused refuse: sold out {'left': 9}",
        "sold ok, 9 left",
    ]
    assert cluster.state("Stock", "refuse") is None
    assert dead(cluster) == ["ZeroDivisionError: of stock"], "a failure is kept, also when told"


def test_a_refusal_or_failure_without_its_handler_is_a_dead_letter(cluster: Cluster) -> None:
    for how in ("ok", "refuse", "break"):
        cluster.ask(message(Shop.at("s").buy_blind, how, how))
    cluster.settle()
    assert len(dead(cluster)) == 3
    assert any("sold out" in letter for letter in dead(cluster))
    assert all(letter.answered for letter in cluster.dead()), "its asker knows: no second time"


def test_a_time_out_comes_instead_of_the_reply_never_beside_it(cluster: Cluster) -> None:
    cluster.ask(message(Shop.at("s").buy, "a", "ok", 0.0))
    cluster.settle()
    assert cluster.state("Shop", "s").heard in (["late a"], ["sold a, 9 left"])
    assert cluster.state("Stock", "a").left == 9, "a time-out does not take the message back"


@pytest.mark.parametrize("seed", range(40))
def test_of_reply_and_time_out_exactly_one_arrives_whatever_happens(seed: int) -> None:
    cluster = Cluster(
        App("verbs", entities=[Shop, Stock]), seed=seed, shards=3, faults=Faults(crash=0.01)
    )
    rng = random.Random(seed)
    for n in range(30):
        cluster.ask(message(Shop.at(f"s{n % 4}").buy, f"a{n}", "ok", rng.choice([0.0, 0.02, 0.1])))
        cluster.run(3)
    cluster.settle()
    heard = [line for n in range(4) for line in cluster.state("Shop", f"s{n}").heard]
    asked = sorted(line.replace("late ", "").replace("sold ", "").split(",")[0] for line in heard)
    assert asked == sorted(f"a{n}" for n in range(30))
    assert all(cluster.state("Stock", f"a{n}").left == 9 for n in range(30))


def test_timers_later_sends_and_cancels_do_what_they_say(cluster: Cluster) -> None:
    cluster.ask(message(Shop.at("s").plan, "x"))
    cluster.settle()
    assert cluster.state("Shop", "s").heard == ["x now", "rings second", "x later"]


def test_the_clock_of_a_turn_is_utc_and_its_random_numbers_differ_from_turn_to_turn(
    cluster: Cluster,
) -> None:
    for _ in range(5):
        cluster.ask(message(Shop.at("s").clock))
    cluster.settle()
    shop = cluster.state("Shop", "s")
    assert all(time.tzinfo == UTC for time in shop.times)
    assert shop.times == sorted(shop.times)
    assert len(set(shop.numbers)) == 5


def test_what_raises_is_tried_again_before_what_comes_behind_it(cluster: Cluster) -> None:
    first = cluster.ask(message(Shop.at("s").flaky, "twice", 2))
    cluster.ask(message(Shop.at("s").remember, "behind"))
    cluster.settle()
    assert reply(cluster, first)[0] == "done"
    heard = cluster.state("Shop", "s").heard
    assert heard[0] == "twice"
    assert sorted(heard[1:]) == ["behind", "sent by twice"]
    assert dead(cluster) == []


def test_what_raises_on_every_try_is_dead_after_its_retries_and_only_that(
    cluster: Cluster,
) -> None:
    broken = cluster.ask(message(Shop.at("s").flaky, "always", 1000))
    cluster.ask(message(Shop.at("s").remember, "behind"))
    cluster.settle()
    assert reply(cluster, broken)[1][0] == "OSError: not yet"
    assert cluster.state("Shop", "s").heard == ["behind"]
    assert dead(cluster) == ["OSError: not yet"]
    # One optimistic run of its batch, then the first careful try and three retries.
    assert tries["always"] == 1 + 1 + 3


def test_what_was_forgotten_has_no_timers_or_outcomes_and_what_it_sent_stays_sent(
    cluster: Cluster,
) -> None:
    cluster.ask(message(Shop.at("s").vanish_and_ask))
    cluster.settle()
    assert cluster.state("Shop", "s") is None
    assert cluster.state("Shop", "other").heard == ["left behind"]
    assert cluster.state("Stock", "a").left == 9
    assert dead(cluster) == []


def test_a_query_that_changes_or_sends_fails_alone_and_leaves_no_trace(cluster: Cluster) -> None:
    cluster.ask(message(Shop.at("s").remember, "kept"))
    meddling = cluster.ask(message(Shop.at("s").meddle))
    talking = cluster.ask(message(Shop.at("s").talk))
    looking = cluster.ask(message(Shop.at("s").look))
    cluster.settle()
    assert reply(cluster, looking) == ("done", ["kept"])
    assert "is a @query and changed" in reply(cluster, meddling)[1][0]
    assert "query" in reply(cluster, talking)[1][0]
    assert cluster.state("Shop", "s").heard == ["kept"]


def test_a_query_that_is_told_a_reply_changes_nothing_either(cluster: Cluster) -> None:
    cluster.ask(message(Shop.at("s").remember, "kept"))
    cluster.ask(message(Shop.at("s").buy_and_meddle, "a"))
    cluster.settle()
    assert cluster.state("Shop", "s").heard == ["kept"]
    assert any("is a @query and changed" in error for error in dead(cluster))


@pytest.mark.parametrize("by", ["a client that asks", "a client that sends", "an entity that asks"])
def test_a_refusal_is_final_and_its_handler_is_not_tried_again(cluster: Cluster, by: str) -> None:
    """It may have drawn lots, or told somebody: only what fails is tried again."""
    refusing = message(Shop.at("s").refusing, by)
    if by == "an entity that asks":
        cluster.ask(message(Shop.at("other").ask_refusing, by))
    else:
        cluster.ask(refusing, reply=by == "a client that asks")
    cluster.settle()
    # Once in its batch, once when that is run again carefully.
    assert tries[by] == 2
    cluster.ask(refusing)
    cluster.settle()
    assert tries[by] == 3, "its type runs carefully now"


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "sent"])
def test_of_a_failure_that_a_client_was_told_the_dead_letter_can_only_be_dropped(
    cluster: Cluster, asked: bool
) -> None:
    """The client has acted on it: were it retried, both would count. Who only sent was not told."""
    broken = cluster.ask(message(Shop.at("s").flaky, "always", 5), reply=asked)
    cluster.settle()
    assert cluster.outcomes[broken].kind == ("failed" if asked else "done")
    [(shard, id)] = [
        (machine.id, bytes(key))
        for machine in cluster.machines
        for key, _ in machine.disk.scan(Table.DEAD)
    ]
    kind, body = cluster.operate(shard, "retry", id)
    assert kind == ("invalid" if asked else "done")
    if asked:
        assert "Its asker was given an outcome" in msgspec.msgpack.decode(body)[1]
        assert cluster.operate(shard, "drop", id)[0] == "done"
    cluster.run(200)
    shop = cluster.state("Shop", "s")
    assert (shop.heard[:1] if shop else []) == ([] if asked else ["always"])
    assert dead(cluster) == []


class Reader(Entity):
    """Reads in the order in which it was written to."""

    read: list[int] = []

    def take(self, number: int) -> None:
        self.read.append(number)


class Writer(Entity):
    def write(self, first: int, to: str) -> None:
        for number in range(first, first + 100):
            send(Reader.at(to).take, number)


@pytest.mark.parametrize("slow_messages", [1, 2, 30, 150, 320])
def test_what_slow_mode_has_not_come_to_is_not_overtaken_when_it_ends(slow_messages: int) -> None:
    """There a peer's frame is cut into messages of the shard's own stream, and the next frame of
    the same peer must not run before these have."""
    with mock.patch.object(schedule, "SLOW_MESSAGES", slow_messages):
        cluster = Cluster(
            App("writing", entities=[Reader, Writer]),
            seed=1,
            shards=2,
            faults=NO_FAULTS,
            limits=Limits(turns_per_batch_max=4),
            slow={1},
        )
        slots = cluster.placement.slots
        here, there = (
            next(key for key in map(str, range(99)) if slots[slot_of(kind, key)] == shard)
            for kind, shard in (("Writer", 0), ("Reader", 1))
        )
        for first in range(0, 1000, 100):
            cluster.ask(message(Writer.at(here).write, first, there))
        cluster.settle()
    assert cluster.state("Reader", there).read == list(range(1000))
