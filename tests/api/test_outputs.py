"""Outputs as a program declares and uses them; the files of the JsonLines sink."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skerry import (
    App,
    BadApp,
    Entity,
    Failed,
    JsonLines,
    Output,
    SkerryError,
    emit,
    portable,
    sinks,
)
from skerry.limits import MESSAGE_BYTES_MAX
from skerry.sources import Generate
from skerry.testing import Harness, Simulation, turn


class Order(msgspec.Struct):
    name: str
    cents: int


plain: Output[int] = Output("plain")
orders = Output[Order]("orders")
undeclared: Output[int] = Output("undeclared")


class Shop(Entity):
    sold: int = 0

    def sell(self, cents: int) -> None:
        self.sold += cents
        emit(plain, cents)
        emit(orders, Order(self.key, cents))
        if cents < 0:
            raise ValueError("no gifts")

    def wrong(self) -> None:
        emit(undeclared, 1)

    def worse(self) -> None:
        emit(plain, object())  # type: ignore[arg-type]

    def huge(self) -> None:
        emit(orders, Order("x" * MESSAGE_BYTES_MAX, 1))


class Kept:
    def write(self, partition: str, sequence: int, items: Any) -> None: ...


def shop() -> App:
    return App("shop", entities=[Shop], outputs=[plain, orders])


def test_what_a_turn_emits_is_seen_without_an_app() -> None:
    with turn(Shop(), key="corner") as t:
        assert t._turn.entity is not None
        t._turn.entity.sell(5)  # type: ignore[attr-defined]
    assert t.emitted(plain) == [5]
    assert t.emitted(orders) == [Order("corner", 5)]


def test_a_turn_that_does_not_count_emits_nothing() -> None:
    h = Harness(shop())
    h.send(Shop.at("a").sell, -1)
    h.send(Shop.at("a").sell, 7)
    assert h.emitted(plain) == [7]
    assert len(h.dead) == 1


def test_stages_get_the_type_that_the_output_was_made_with() -> None:
    app = shop()
    app.stream(orders).filter(lambda order: order.cents > 1).map(
        lambda order: order.name * order.cents
    ).sink(Kept())
    h = Harness(app)
    for cents in (1, 2, 3):
        h.send(Shop.at("x").sell, cents)
    assert h.emitted(orders) == ["xx", "xxx"]


def test_a_stage_that_raises_makes_a_dead_letter_of_its_item_alone() -> None:
    app = shop()
    app.stream(plain).map(lambda cents: 10 // cents).sink(Kept())
    h = Harness(app)
    for cents in (5, 0, 2):
        h.send(Shop.at("x").sell, cents)
    assert h.emitted(plain) == [2, 5]
    assert ["ZeroDivisionError" in letter.error for letter in h.dead] == [True]
    assert h[Shop.at("x")].sold == 7


def test_what_a_stage_makes_too_large_for_a_message_is_a_dead_letter() -> None:
    app = shop()
    app.stream(plain).map(lambda cents: "x" * cents).sink(Kept())
    h = Harness(app)
    for cents in (2, MESSAGE_BYTES_MAX, 3):
        h.send(Shop.at("x").sell, cents)
    assert h.emitted(plain) == ["xx", "xxx"]
    assert ["more than the 8,388,608" in letter.error for letter in h.dead] == [True]


def test_what_is_not_declared_or_can_t_be_sent_is_refused_in_the_verb() -> None:
    h = Harness(shop())
    h.send(Shop.at("a").wrong)
    h.send(Shop.at("a").worse)
    h.send(Shop.at("a").huge)
    assert "is not declared: write App(…, outputs=[…])" in h.dead[0].error
    assert "can't be emitted" in h.dead[1].error
    assert "more than the 8,388,608 of a message" in h.dead[2].error


def test_wrong_outputs_and_sinks_are_refused_where_they_are_made() -> None:
    with pytest.raises(BadApp, match="are called 'plain'"):
        App("a", outputs=[plain, Output("plain")])
    with pytest.raises(BadApp, match="outputs are made by Output"):
        App("a", outputs=["plain"])  # type: ignore[list-item]
    with pytest.raises(BadApp, match="partitions is 1 to 1024"):
        Output("many", partitions=0)
    app = shop()
    with pytest.raises(BadApp, match="is not among its outputs"):
        app.stream(undeclared)
    with pytest.raises(BadApp, match=r"`sink` takes a sink with `write"):
        app.stream(plain).sink(print)  # type: ignore[arg-type]
    with pytest.raises(BadApp, match="an output's stream ends in sinks"):
        app.stream(plain).key_by(str)
    with pytest.raises(BadApp, match=r"`sink` takes a sink with `write"):
        app.source(Generate(lambda p, n: n)).sink(print)  # type: ignore[arg-type]
    taken: Output[int] = Output("Generate-0 sink 0")
    with pytest.raises(BadApp, match="are called 'Generate-0 sink 0'"):
        App("a", outputs=[taken]).source(Generate(lambda p, n: n)).sink(Kept())
    with pytest.raises(BadApp, match=r"no way out. Write app.stream\(plain\).sink"):
        app.check()


def test_one_sink_object_for_two_streams_is_refused() -> None:
    app, kept = shop(), Kept()
    app.stream(plain).sink(kept)
    app.stream(orders).sink(kept)
    with pytest.raises(BadApp, match="is the sink of two streams"):
        app.check()


def test_sinks_get_the_type_of_the_output_and_plain_values_of_what_stages_made() -> None:
    class Seen:
        def __init__(self) -> None:
            self.items: list[Any] = []

        def write(self, partition: str, sequence: int, items: Any) -> None:
            self.items += items

    app, filtered, mapped = shop(), Seen(), Seen()
    app.stream(orders).filter(lambda order: order.cents > 1).sink(filtered)
    app.stream(orders).map(lambda order: order).sink(mapped)
    sim = Simulation(app, shards=1)
    for seen in (filtered, mapped):
        sim.sink(seen, seen)
    sim.send(Shop.at("x").sell, 5)
    sim.run()
    assert filtered.items[0] == Order("x", 5)
    assert mapped.items[0] == {"name": "x", "cents": 5}


def test_a_source_s_items_come_to_its_sinks_by_partition_or_by_key() -> None:
    app, straight, keyed = App("direct"), Kept(), Kept()
    numbers = app.source(Generate(lambda p, n: int(p) * 100 + n, partitions=3, count=40))
    numbers.filter(lambda n: n % 2).sink(straight)
    numbers.key_by(lambda n: f"k{n % 5}").map(lambda n: n + 1000).sink(keyed)
    h = Harness(app)
    h.run()
    odd = h.emitted(straight)
    assert sorted(odd) == [p * 100 + n for p in range(3) for n in range(40) if n % 2]
    for p in range(3):
        assert [n for n in odd if n // 100 == p] == sorted(n for n in odd if n // 100 == p)
    assert sorted(h.emitted(keyed)) == [1000 + p * 100 + n for p in range(3) for n in range(40)]
    assert not h.dead
    with pytest.raises(ValueError, match="is no sink of app direct"):
        h.emitted(Kept())


def test_an_item_of_a_source_that_can_t_go_out_is_a_dead_letter_alone() -> None:
    app, kept = App("direct"), Kept()
    app.source(Generate(lambda p, n: object() if n == 3 else n, partitions=1, count=6)).sink(kept)
    h = Harness(app)
    h.run()
    assert h.emitted(kept) == [0, 1, 2, 4, 5]
    assert ["can't be emitted" in letter.error for letter in h.dead] == [True]


def lines(folder: Path, partition: str = "0") -> list[Any]:
    return [json.loads(line) for line in (folder / f"{partition}.jsonl").read_text().splitlines()]


def test_json_lines_are_there_once_whatever_is_handed_over_again(tmp_path: Path) -> None:
    sink = sinks.JsonLines(tmp_path / "out")
    sink.write("0", 1, [1, 2, 3])
    sink.write("0", 2, [2, 3, 4])
    again = sinks.JsonLines(tmp_path / "out")
    again.write("0", 1, [1, 2])
    again.write("0", 4, [4, 5])
    again.write("1", 1, [1])
    assert lines(tmp_path / "out") == [1, 2, 3, 4, 5]
    assert lines(tmp_path / "out", "1") == [1]


def test_a_torn_last_line_is_cut_off_and_written_whole(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").write_bytes(b'"one"\n"tw')
    sinks.JsonLines(tmp_path).write("0", 2, ["two", "three"])
    assert lines(tmp_path) == ["one", "two", "three"]


def test_a_folder_with_lines_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    first = sinks.JsonLines(tmp_path)
    first.write("0", 1, [1, 2, 3])
    for sequence, items in ((1, [10, 20]), (3, [30, 40])):
        with pytest.raises(SkerryError, match=r"row \d is not item \d: the folder"):
            sinks.JsonLines(tmp_path).write("0", sequence, items)
    other = sinks.JsonLines(tmp_path)
    other.write("0", 4, [4])
    with pytest.raises(SkerryError, match="row 4 is not item 4"):
        first.write("0", 4, [40])
    assert lines(tmp_path) == [1, 2, 3, 4]


def test_a_line_of_an_earlier_release_may_have_other_fields(tmp_path: Path) -> None:
    sinks.JsonLines(tmp_path).write("0", 1, [{"cents": 5, "old": 1}])
    again = sinks.JsonLines(tmp_path)
    again.write("0", 1, [{"cents": 5, "new": 2}, {"cents": 6, "new": 3}])
    assert [line["cents"] for line in lines(tmp_path)] == [5, 6]
    with pytest.raises(SkerryError, match="row 1 is not item 1"):
        sinks.JsonLines(tmp_path).write("0", 1, [{"cents": 7, "new": 2}])


def test_lines_that_are_gone_are_named(tmp_path: Path) -> None:
    sink = sinks.JsonLines(tmp_path)
    with pytest.raises(SkerryError, match="has 0 rows, and item 7 is to follow"):
        sink.write("0", 7, [7])


class Reading(msgspec.Struct):
    at: str
    values: list[float]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (math.inf, "JSON has no inf: emit"),
        (Reading("a", [1.0, math.nan]), r"JSON has no nan \(at `\['values'\]\[1\]`\)"),
        ({"deep": [{"x": (None, -math.inf)}]}, "JSON has no -inf"),
        ({(1, 2): 3}, "Only dicts with str-like"),
    ],
)
def test_what_a_sink_can_never_write_is_refused_where_it_is_emitted(
    tmp_path: Path, item: Any, said: str
) -> None:
    probes = Output[Any]("probes")

    class Probe(Entity):
        def read(self, good: float) -> None:
            emit(probes, item)

        def fine(self, good: Any) -> None:
            emit(probes, good)

    app = App("probing", entities=[Probe], outputs=[probes])
    app.stream(probes).sink(sinks.JsonLines(tmp_path))
    h = Harness(app)
    with pytest.raises(Failed, match=f"probes.*is nothing for its sink JsonLines: {said}"):
        h.ask(Probe.at("a").read, 1.0)
    good = [None, "null", [None, 1.5], {"null": None}, {1: 2}]
    for value in good:
        h.send(Probe.at("a").fine, value)
    assert h.emitted(probes) == good
    assert len(h.dead) == 1, "what failed above"


def test_what_a_stage_makes_that_its_sink_can_t_write_is_a_dead_letter(tmp_path: Path) -> None:
    app = shop()
    app.stream(plain).map(lambda cents: 1 / cents if cents else math.inf).sink(
        sinks.JsonLines(tmp_path)
    )
    app.stream(plain).sink(Kept())
    h = Harness(app)
    for cents in (1, 0, 2):
        h.send(Shop.at("x").sell, cents)
    assert ["JSON has no inf" in letter.error for letter in h.dead] == [True]
    assert h[Shop.at("x")].sold == 3, "the turn itself counts: another sink may take it"


def test_what_a_source_gives_that_its_sink_can_t_write_is_a_dead_letter(tmp_path: Path) -> None:
    app = App("straight")
    numbers = Generate(lambda partition, n: math.nan if n == 1 else n, partitions=1, count=3)
    sink = sinks.JsonLines(tmp_path)
    app.source(numbers).sink(sink)
    h = Harness(app)
    h.run()
    assert h.emitted(sink) == [0, 2]
    assert ["JSON has no nan" in letter.error for letter in h.dead] == [True]


def test_json_lines_travel_by_value_as_from_a_notebook() -> None:
    app = App("notebook", entities=[Shop], outputs=[plain])
    app.source(JsonLines("a.jsonl", type=int)).key_by(str).to(Shop.sell)
    app.stream(plain).sink(sinks.JsonLines("out"))
    assert portable.loads(portable.dumps(app)).name == "notebook"
