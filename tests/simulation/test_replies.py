"""Replies to entities: in order with what is sent, whatever runs as one loop."""

from __future__ import annotations

import pytest

from skerry import App, Entity, Failed, Rejected, ask, send
from skerry.testing import Simulation

FRIENDS = [f"t{number}" for number in range(5)]
ROUNDS = 8


class Listener(Entity):
    heard: list[str] = []

    def begin(self, number: int) -> None:
        for friend in FRIENDS:
            ask(Teller.at(friend).tell, number, self.key).then(self._replied, friend)

    def refuse(self, number: int) -> None:
        for friend in FRIENDS:
            told = ask(Teller.at(friend).tell, -number, self.key)
            told.rejected(self._refused, friend, number).failed(self._broken)

    def hear(self, friend: str, number: int) -> None:
        self.heard.append(f"{friend} says {number}")

    def _replied(self, number: int, friend: str) -> None:
        self.heard.append(f"{friend} replies {number}")

    def _refused(self, error: Rejected, friend: str, number: int) -> None:
        self.heard.append(f"{friend} refuses {number}")

    def _broken(self, error: Failed) -> None:
        self.heard.append(f"broken: {error}")


class Teller(Entity):
    asked: int = 0

    def tell(self, number: int, to: str) -> int:
        if number < 0:
            raise Rejected("below zero")
        self.asked += 1
        if number % 3:  # Some turns leave nothing but their reply.
            send(Listener.at(to).hear, self.key, number)
        return number


app = App("replies", entities=[Listener, Teller])


def expected(friend: str, *, refused: set[int]) -> list[str]:
    """What is heard of a friend, in this order."""
    found = []
    for number in range(ROUNDS):
        if number in refused:
            found.append(f"{friend} refuses {number}")
            continue
        found += [f"{friend} says {number}"] * (number % 3 > 0) + [f"{friend} replies {number}"]
    return found


@pytest.mark.parametrize("refused", [set(), {2, 5}])
@pytest.mark.parametrize("seed", range(4))
def test_a_reply_comes_behind_what_its_turn_sent_and_before_what_the_next_one_sends(
    seed: int, refused: set[int]
) -> None:
    sim = Simulation(app, seed=seed, shards=2)
    listeners = [f"l{number}" for number in range(6)]
    for number in range(ROUNDS):
        for listener in listeners:
            at = Listener.at(listener)
            sim.send(at.refuse if number in refused else at.begin, number)
    sim.run()
    for listener in listeners:
        heard = sim[Listener.at(listener)].heard
        for friend in FRIENDS:
            ours = [line for line in heard if line.startswith(f"{friend} ")]
            assert ours == expected(friend, refused=refused)
        assert len(heard) == sum(len(expected(f, refused=refused)) for f in FRIENDS)
