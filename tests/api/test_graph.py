"""The graph that a program declares: every node has a stable name, and wrong uses are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from skerry import App, BadApp, Entity, Generate, JsonLines, Output, TextFiles, sinks
from skerry.stream.graph import Filter, KeyBy, Map, ToEntity, ToSink


class Word(Entity):
    count: int = 0

    def seen(self) -> int:
        self.count += 1
        return self.count


class Kept:
    def write(self, partition: str, sequence: int, items: Sequence[object], /) -> None: ...


numbers = Generate(lambda partition, position: position, count=10)


def declared() -> App:
    found: Output[int] = Output("found")
    app = App("words", entities=[Word], outputs=[found])
    texts = app.source(numbers).map(str)
    texts.filter(str.isdigit).key_by(str).map(str.lower).to(Word.seen)
    texts.filter(str.isalpha, name="letters").sink(Kept())
    app.source(numbers).sink(Kept(), name="all")
    app.stream(found).filter(bool).sink(Kept())
    return app


def test_every_node_has_a_name_and_names_its_input() -> None:
    nodes = declared().graph.nodes
    assert {name: getattr(node, "input", None) for name, node in nodes.items()} == {
        "found": None,
        "Generate-0": None,
        "Generate-0 map 0": "Generate-0",
        "Generate-0 filter 0": "Generate-0 map 0",
        "Generate-0 key_by 0": "Generate-0 filter 0",
        "Generate-0 map 1": "Generate-0 key_by 0",
        "Generate-0 to 0": "Generate-0 map 1",
        "letters": "Generate-0 map 0",
        "Generate-0 sink 0": "letters",
        "Generate-1": None,
        "all": "Generate-1",
        "found filter 0": "found",
        "found sink 0": "found filter 0",
    }
    kinds = [type(node) for name, node in nodes.items() if name.startswith("Generate-0 ")]
    assert kinds == [Map, Filter, KeyBy, Map, ToEntity, ToSink]
    with pytest.raises(AttributeError):
        nodes["found"].name = "other"


def test_to_name_a_stage_renames_no_other() -> None:
    app = App("words")
    stream = app.source(numbers)
    stream.map(str, name="first")
    stream.map(str)
    assert list(app.graph.nodes) == ["Generate-0", "first", "Generate-0 map 1"]


def test_the_items_of_a_source_wait_for_a_sink_under_the_name_of_its_stage() -> None:
    outlets = declared().outlets
    assert list(outlets) == ["found", "Generate-0 sink 0", "all"]
    assert [outlet.output.name for outlet in outlets.values()] == list(outlets)


def test_a_graph_is_compiled_as_it_is_declared_by_now() -> None:
    app = App("words", entities=[Word])
    stream = app.source(numbers).map(str)
    assert app.pipelines[0].apply([1, 2]) == []
    stream.key_by(str).to(Word.seen)
    ((handler, keys, column),) = app.pipelines[0].apply([1, 2])
    assert (handler, keys, column) == (Word.__skerry__.handlers["seen"], ["1", "2"], ())


def test_one_stream_may_have_several_stages_behind_it() -> None:
    app = declared()
    leaving, to_entity = [], []
    for _, keys, column in app.pipelines[0].apply([1, 22]):
        (to_entity if keys else leaving).append((keys, column))
    assert to_entity == [(["1", "22"], ())]
    assert leaving == [([], [])], "no digit is a letter"
    ((end, _, items),) = app.pipelines[1].apply([5])
    assert (end, items) == (("all", 4, 0), [msgspec.msgpack.encode(5)])


@pytest.mark.parametrize(
    ("said", "declare"),
    [
        ("are called 'twice'", lambda app: [app.source(numbers, name="twice") for _ in "ab"]),
        ("are called 'found'", lambda app: app.source(numbers, name="found")),
        ("are called 'found'", lambda app: app.source(numbers).map(str, name="found")),
        ("a stage's name is 1 to 64", lambda app: app.source(numbers).map(str, name="")),
        ("a stage's name is 1 to 64", lambda app: app.source(numbers).map(str, name=3)),
        ("output's name", lambda app: app.source(numbers, name="x" * 60).sink(Kept())),
        ("such as skerry.sinks.JsonLines", lambda app: app.source(numbers).sink(JsonLines("a"))),
    ],
)
def test_names_that_can_not_be_given_are_refused(said: str, declare: Callable[[App], Any]) -> None:
    app = App("words", outputs=[Output("found")])
    with pytest.raises(BadApp, match=said):
        declare(app)


@pytest.mark.parametrize("stage", ["map", "filter", "flat_map", "key_by"])
def test_a_stage_takes_a_function(stage: str) -> None:
    stream = App("words").source(numbers)
    with pytest.raises(TypeError, match=f"`{stage}` takes a function of an item, not 3"):
        getattr(stream, stage)(3)


@pytest.mark.parametrize(
    ("error", "said", "make"),
    [
        (TypeError, "TextFiles takes paths, or patterns .*not 3", lambda: TextFiles(3)),  # type: ignore[arg-type]
        (TypeError, "JsonLines takes paths, .*not <class", lambda: JsonLines("a", int)),  # type: ignore[arg-type]
        (TypeError, "JsonLines takes paths, .*not None", lambda: JsonLines(None)),  # type: ignore[arg-type]
        (ValueError, "TextFiles takes one path at least", TextFiles),
        (ValueError, "TextFiles: '' is no path", lambda: TextFiles("")),
        (ValueError, "is no path", lambda: JsonLines("a\0b")),
        (TypeError, "type= is a type .*not 3", lambda: JsonLines("a", type=3)),  # type: ignore[arg-type]
        (TypeError, "type= is a type", lambda: JsonLines("a", type=[int])),  # type: ignore[arg-type]
        (TypeError, "type=: Callable|type=: .*can't be stored", lambda: JsonLines("a", type=Kept)),
        (TypeError, "the path of a folder, not 3", lambda: sinks.JsonLines(3)),  # type: ignore[arg-type]
        (ValueError, "'' is no path", lambda: sinks.JsonLines("")),
        (TypeError, "fn is a function", lambda: Generate(3)),  # type: ignore[arg-type]
        (TypeError, "are numbers", lambda: Generate(divmod, partitions="4")),  # type: ignore[arg-type]
        (ValueError, "at least 1", lambda: Generate(divmod, partitions=0)),
    ],
)
def test_a_source_or_sink_refuses_what_it_can_not_read_or_write(
    error: type[Exception], said: str, make: Callable[[], Any]
) -> None:
    with pytest.raises(error, match=said):
        make()
