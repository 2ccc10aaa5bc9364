"""Whatever a handler raises, and whatever can't be encoded, harms one message and no worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from skerry import (
    App,
    Entity,
    Failed,
    Generate,
    Rejected,
    ask,
    query,
    send,
    send_later,
    set_timer,
)
from skerry.testing import NO_FAULTS, Simulation

HUGE, HALF = 2**70, "\ud800"
"""A number that msgpack can't carry, and a text that UTF-8 can't."""


class Unsaid(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Unshown:
    def __repr__(self) -> str:
        raise ValueError("no look")


class Bare(Rejected):
    def __init__(self) -> None: ...


class Nowhere(Entity):
    """Not in the app."""

    def take(self, what: int) -> None: ...


class Other(Entity):
    count: int = 0

    def take(self, what: int) -> None:
        self.count += 1

    def read(self, what: str) -> None: ...

    def refuse(self, what: int) -> None:
        raise Rejected("not this")


class Victim(Entity):
    count: Any = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def harm(self, how: str, to: str) -> int:
        self.count += 1
        send(Other.at(to).take, 1)
        HARMS[how][0](self, Other.at(to))
        return HUGE if how == "a reply beyond 64 bits" else 0

    def half(self) -> str:
        return HALF

    def huge(self) -> int:
        return HUGE

    def spoil(self) -> None:
        self.count = HUGE

    @query
    def look(self) -> int:
        return self.count

    @query
    def meddle(self) -> None:
        self.count = HUGE

    def _rings(self, what: int) -> None: ...

    def _reads(self, what: str) -> None: ...


def raises(error: BaseException | type[BaseException]) -> Callable[[Victim, Other], None]:
    def harm(self: Victim, other: Other) -> None:
        raise error

    return harm


def spoils(self: Victim, other: Other) -> None:
    self.count = HALF


HARMS: dict[str, tuple[Callable[[Victim, Other], object], str]] = {
    "half a character in an error": (raises(ValueError(HALF)), r"ValueError: \ud800"),
    "half a character in a refusal": (raises(Rejected(HALF)), r"\ud800"),
    "an error without words": (raises(Unsaid), "Unsaid, which can't say more"),
    "a reason that is no text": (lambda s, o: Rejected(5), "takes its reason as a text"),  # type: ignore[arg-type]
    "a refusal without a reason": (raises(Bare), "AttributeError"),
    "a detail that can't be told": (raises(Rejected("no", x=Unshown())), "no look"),
    "a generator's end": (raises(GeneratorExit), "GeneratorExit"),
    "an exit": (raises(SystemExit(3)), "SystemExit: 3"),
    "a state that can't be encoded": (spoils, "its field count: 'utf-8' codec"),
    "a reply beyond 64 bits": (lambda s, o: None, "Victim.harm: its reply: "),
    "a number sent": (lambda s, o: send(o.take, HUGE), "Other.take: "),
    "a number sent to who refuses it": (lambda s, o: send(o.refuse, HUGE), "Other.refuse: "),
    "a number asked": (lambda s, o: ask(o.take, HUGE), "Other.take: "),
    "a number sent later": (lambda s, o: send_later(1, o.take, HUGE), "Other.take: "),
    "a number for a timer": (lambda s, o: set_timer("t", 1, s._rings, HUGE), "Victim._rings: "),
    "a text sent": (lambda s, o: send(o.read, HALF), "Other.read: "),
    "a text sent later": (lambda s, o: send_later(1, o.read, HALF), "Other.read: "),
    "a text for a timer": (lambda s, o: set_timer("t", 1, s._reads, HALF), "Victim._reads: "),
    "a stranger sent to": (lambda s, o: send(Nowhere.at(o.key).take, 1), "entity type `Nowhere`"),
    "a stranger asked": (lambda s, o: ask(Nowhere.at(o.key).take, 1), "entity type `Nowhere`"),
    "a stranger sent to later": (
        lambda s, o: send_later(1, Nowhere.at(o.key).take, 1),
        "among App(entities=",
    ),
}
"""What a handler does, and what is told of it."""


def simulation(shards: int) -> Simulation:
    """The app without faults: who does harm is in it."""
    app = App("harm", entities=[Victim, Other], retries=1)
    return Simulation(app, shards=shards, faults=NO_FAULTS)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("how", HARMS)
def test_what_a_turn_does_harms_that_turn_only(how: str, shards: int) -> None:
    sim = simulation(shards)
    before = sim.ask(Victim.at("a").add)
    asked = [sim.ask(Victim.at("a").harm, how, to) for to in ("x", "y", "z")]
    sim.send(Victim.at("a").harm, how, "x")
    after = sim.ask(Victim.at("a").add)
    sim.run(20)
    for reply in asked:
        with pytest.raises((Failed, Rejected)) as told:
            reply.result()
        assert HARMS[how][1] in str(told.value)
    if how != "a reply beyond 64 bits":  # To who only sends there is no reply.
        assert any(HARMS[how][1] in letter.error for letter in sim.dead)
        assert (before.result(), after.result()) == (1, 2)
        assert sum(sim[Other.at(to)].count for to in "xyz") == 0, "of the turns no trace is left"


@pytest.mark.parametrize("handler", [Victim.at("a").huge, Victim.at("a").half])
def test_a_reply_that_can_t_be_encoded_fails_alone(handler: Callable[[], object]) -> None:
    sim = simulation(1)
    replies = [sim.ask(handler), sim.ask(Victim.at("a").add), sim.ask(handler)]
    sim.run(20)
    for reply in replies[::2]:
        with pytest.raises(Failed, match="Error: "):
            reply.result()
    assert replies[1].result() == 1


def test_a_query_meets_no_state_that_can_t_be_encoded_and_makes_none() -> None:
    sim = simulation(1)
    spoilt = sim.ask(Victim.at("a").spoil)
    looked, meddled = sim.ask(Victim.at("a").look), sim.ask(Victim.at("a").meddle)
    sim.run(20)
    assert looked.result() == 0
    for reply, said in {spoilt: "its field count: ", meddled: "is a @query and changed"}.items():
        with pytest.raises(Failed, match=said):
            reply.result()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("to", [Other.take, Other.refuse])
def test_an_item_that_can_t_be_sent_is_a_dead_letter_and_the_others_go_on(
    to: Callable[[Other, int], None], shards: int
) -> None:
    def stage(item: Any) -> Any:
        if item == "stop":
            raise GeneratorExit
        return item

    items = [1, HUGE, 2, "stop", Unshown(), 3]
    app = App("harm", entities=[Other], retries=0)
    source = app.source(Generate(lambda p, n: items[n], partitions=1, count=len(items)))
    source.map(stage).key_by(lambda item: str(item)[:3]).to(to)
    sim = Simulation(app, shards=shards, faults=NO_FAULTS)
    sim.run(20)
    of_source = [letter for letter in sim.dead if letter.entity == "source Generate-0/0"]
    assert [letter.error.split(":")[1].strip() for letter in of_source] == [
        "TypeError",
        "GeneratorExit",
        "ValueError",
    ]
    assert all("Error" in x.traceback or "Exit" in x.traceback for x in of_source)
    if to is Other.take:
        assert [sim[Other.at(key)].count for key in "123"] == [1, 1, 1]
