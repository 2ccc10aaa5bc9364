"""The committed changes of a type: each commit's, once, in order, whatever crashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from skerry import App, BadApp, Change, Entity, Generate, forget
from skerry.testing import Faults, Harness, Simulation

ITEMS, PARTITIONS = 60, 3


class Account(Entity):
    balance: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def close(self) -> None:
        forget()


class Mirror(Entity):
    """What an account is known to have."""

    balance: int | None = 0
    changes: int = 0

    def take(self, balance: int | None) -> None:
        assert balance is None or self.balance is None or balance > self.balance, "I2: in order"
        self.balance = balance
        self.changes += 1


class Kept:
    def write(self, partition: str, sequence: int, items: Sequence[object], /) -> None:
        raise AssertionError("a simulation does not call an app's own sinks")


def account(partition: str, position: int) -> str:
    return f"a{position % 4}"


def balance(change: Change[Account]) -> int | None:
    return None if change.state is None else change.state.balance


def mirrored(items: int = ITEMS) -> tuple[App, Kept]:
    kept = Kept()
    app = App("mirrored", entities=[Account, Mirror])
    source = app.source(Generate(lambda p, n: (account(p, n), 1), PARTITIONS, items))
    source.key_by(lambda item: item[0]).map(lambda item: item[1]).to(Account.deposit)
    changes = app.changes(Account)
    changes.map(balance).to(Mirror.take)
    changes.filter(lambda change: change.key == "a1").sink(kept)
    return app, kept


def check(sim: Harness | Simulation, kept: Kept) -> None:
    for n in range(4):
        balance = ITEMS * PARTITIONS // 4
        assert sim[Account.at(f"a{n}")].balance == balance
        mirror = sim[Mirror.at(f"a{n}")]
        assert mirror.balance == balance, f"I1: the last change of a{n}"
        assert 0 < mirror.changes <= balance
    states = sim.emitted(kept)
    assert {state["key"] for state in states} == {"a1"}
    balances = [state["state"]["balance"] for state in states]
    assert balances == sorted(set(balances)) and balances[-1] == ITEMS * PARTITIONS // 4
    assert len(balances) == sim[Mirror.at("a1")].changes, "I1: each change at each end"
    assert not sim.dead


def test_every_commit_of_an_entity_gives_one_change() -> None:
    app, kept = mirrored()
    harness = Harness(app)
    harness.run()
    check(harness, kept)


@pytest.mark.parametrize("seed", range(12))
def test_changes_come_once_and_in_order_whatever_crashes(seed: int) -> None:
    app, kept = mirrored()
    simulation = Simulation(app, seed=seed, faults=Faults(crash=0.004, lose=0.1))
    simulation.run()
    check(simulation, kept)


def test_what_is_forgotten_is_a_change_without_a_state() -> None:
    app, kept = mirrored(items=0)
    harness = Harness(app)
    harness.ask(Account.at("a1").deposit, 5)
    harness.ask(Account.at("a1").close)
    harness.run()
    told = [{"key": "a1", "state": {"balance": 5}}, {"key": "a1", "state": None}]
    assert harness.emitted(kept) == told
    assert harness[Mirror.at("a1")].balance is None


def test_a_refused_turn_and_a_query_change_nothing() -> None:
    app, kept = mirrored(items=0)
    harness = Harness(app)
    assert harness[Account.at("a1")].balance == 0
    harness.run()
    assert harness.emitted(kept) == []


def test_a_turn_that_a_change_leads_to_is_a_change_of_its_own() -> None:
    app, kept = App("grown", entities=[Account]), Kept()
    changes = app.changes(Account)
    changes.map(balance).filter(lambda balance: balance != 5).map(lambda _: 1).to(Account.deposit)
    changes.map(balance).sink(kept)
    harness = Harness(app)
    harness.ask(Account.at("a1").deposit, 1)
    harness.run()
    assert harness.emitted(kept) == [1, 2, 3, 4, 5]


def test_a_change_that_a_stage_refuses_is_a_dead_letter_and_the_turn_counts() -> None:
    def wrong(change: Change[Account]) -> Any:
        raise ValueError("no such change")

    app, kept = App("wrong", entities=[Account]), Kept()
    app.changes(Account).map(wrong).sink(kept)
    harness = Harness(app)
    assert harness.ask(Account.at("a1").deposit, 5) == 5
    harness.run()
    (letter,) = harness.dead
    assert letter.entity == "Account/a1"
    assert "behind the changes of Account: ValueError: no such change" in letter.error
    assert harness[Account.at("a1")].balance == 5


def test_changes_of_a_type_that_the_app_does_not_have_are_refused() -> None:
    app = App("other", entities=[Mirror])
    with pytest.raises(BadApp, match="is not among its entities"):
        app.changes(Account)
