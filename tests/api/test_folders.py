"""Sinks that write a folder: every row once, whatever was torn or is handed over again."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry import App, Entity, Output, SkerryError, emit, sinks
from skerry.testing import Harness

TEXTS = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=8)
PARTS = st.lists(st.sampled_from(["a", "é", ",", '"', "\r\n", "\n", "\r"]), max_size=4)
CELLS = st.one_of(st.none(), st.integers(), st.booleans(), PARTS.map("".join))
ROWS = st.fixed_dictionaries({}, optional={"a": CELLS, "b": CELLS})
COLUMNS = ["a", "b"]


class Folder(Protocol):
    def write(self, partition: str, sequence: int, items: Any, /) -> None: ...


def lines_of(raw: bytes) -> list[Any]:
    return raw.decode().split("\n")[:-1]


def json_of(raw: bytes) -> list[Any]:
    return [json.loads(line) for line in lines_of(raw)]


def csv_of(raw: bytes) -> list[Any]:
    head, *rows = csv.reader(io.StringIO(raw.decode(), newline=""))
    assert head == COLUMNS
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    values = (row.get(name) for name in COLUMNS)
    return ["" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in values]


KINDS: dict[str, tuple[Callable[[Path], Folder], Any, Any, Any]] = {
    "text": (sinks.Text, TEXTS, lines_of, lambda item: item),
    "json": (sinks.JsonLines, st.dictionaries(TEXTS, st.integers()), json_of, lambda item: item),
    "csv": (lambda folder: sinks.Csv(folder, COLUMNS), ROWS, csv_of, cells),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_row_is_there_once_whatever_was_torn_and_is_handed_over_again(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make, items_of, read, shown = KINDS[kind]
    folder = tmp_path_factory.mktemp("folder")
    items = data.draw(st.lists(items_of, min_size=1, max_size=12))
    sink, at, synced = make(folder), 0, 0
    while at < len(items):
        count = data.draw(st.integers(1, len(items) - at))
        sink.write("0", at + 1, items[at : at + count])
        (file,) = folder.iterdir()
        size = file.stat().st_size
        if data.draw(st.booleans()):  # The machine died in the write, or behind it.
            with open(file, "r+b") as torn:
                torn.truncate(data.draw(st.integers(min(synced, size), size)))
            sink = make(folder)
            at = data.draw(st.integers(0, at))  # What follows was handed over before.
        else:
            at, synced = at + count, max(synced, size)
    (file,) = folder.iterdir()
    sink.write("0", 1, items)
    assert read(file.read_bytes()) == [shown(item) for item in items]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_other_rows_is_refused_and_left_as_it_is(kind: str, tmp_path: Path) -> None:
    make, *_ = KINDS[kind]
    one, other = {"text": ("x", "y")}.get(kind, ({"a": 1}, {"a": 2}))
    make(tmp_path).write("0", 1, [one])
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    with pytest.raises(SkerryError, match="the folder is another sink's"):
        make(tmp_path).write("0", 1, [other])
    with pytest.raises(SkerryError, match="rows are gone"):
        make(tmp_path).write("0", 5, [one])
    assert file.read_bytes() == before


def test_a_csv_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    sinks.Csv(tmp_path, ["a", "b"]).write("0", 1, [{"a": 1}])
    with pytest.raises(SkerryError, match="does not begin with"):
        sinks.Csv(tmp_path, ["b", "a"]).write("0", 2, [{"a": 1}])


class Trade(msgspec.Struct):
    a: int
    b: str


@pytest.mark.parametrize(
    ("sink", "item", "said"),
    [
        (sinks.Text("x"), "a\nb", "line end"),
        (sinks.Text("x"), 3, "a line is a str"),
        (sinks.Text("x"), "\ud800", "surrogates"),
        (sinks.Csv("x", COLUMNS), {"c": 1}, "which is none of the columns a, b"),
        (sinks.Csv("x", COLUMNS), {"a": [1]}, "its field 'a' is a list"),
        (sinks.Csv("x", COLUMNS), 3, "a row is a dict of columns"),
    ],
)
def test_an_item_that_is_no_row_is_refused_where_it_is_emitted(
    sink: Any, item: Any, said: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        sink.check(item)


def test_a_csv_takes_structs_as_they_are_emitted(tmp_path: Path) -> None:
    trades: Output[Trade] = Output[Trade]("trades")

    class Shop(Entity):
        def sell(self, cents: int) -> None:
            emit(trades, Trade(cents, self.key))

    app = App("shops", entities=[Shop], outputs=[trades])
    sink = sinks.Csv(tmp_path, COLUMNS)
    app.stream(trades).sink(sink)
    harness = Harness(app)
    harness.ask(Shop.at("s").sell, 5)
    harness.run()
    assert harness.emitted(trades) == [{"a": 5, "b": "s"}]


@pytest.mark.parametrize(
    ("columns", "options", "error"),
    [
        ([], {}, ValueError),
        (["a", "a"], {}, ValueError),
        ([3], {}, TypeError),
        (["a"], {"delimiter": ",,"}, ValueError),
        (["a"], {"delimiter": '"'}, ValueError),
    ],
)
def test_columns_that_can_not_be_are_refused(
    columns: Any, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        sinks.Csv("x", columns, **options)


def test_print_writes_texts_as_they_are_and_all_else_as_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sinks.Print().write("0", 1, ["a b", {"n": 1}, None])
    assert capsys.readouterr().out == 'a b\n{"n":1}\nnull\n'
