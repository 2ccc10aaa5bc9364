"""Rows of CSV files: each once, whatever stands in them, wherever reading stopped."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from skerry import App, Entity, SkerryError
from skerry.sources import Csv
from skerry.stream.ends import BadRow
from skerry.testing import Harness

PARTS = st.lists(st.sampled_from(["a", "é", ",", '"', "\r\n", "\n", "'"]), max_size=4)
CELLS = PARTS.map("".join)
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=10)


def text_of(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def read(source: Csv[Any], size: int = 1024, after: Any = None) -> list[tuple[Any, Any]]:
    """All (position, item) pairs behind a position."""
    (partition,) = source.partitions()
    batches = source.batches(partition, after, size)
    return [pair for positions, items in batches for pair in zip(positions, items)]


def items(source: Csv[Any], size: int = 1024) -> list[Any]:
    return [item for _, item in read(source, size)]


@given(rows=ROWS, size=st.integers(1, 6), stop=st.integers(0, 10))
@settings(max_examples=150, deadline=None)
def test_every_row_is_read_once_and_unchanged_wherever_reading_stops(
    rows: list[tuple[str, str]], size: int, stop: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_bytes(text_of([("x", "y"), *rows]))
    wanted = [{"x": x, "y": y} for x, y in rows]
    found = read(Csv(file), size)
    assert [item for _, item in found] == wanted
    if stop < len(found):
        rest = read(Csv(file), size, after=found[stop][0])
        assert [item for _, item in rest] == wanted[stop + 1 :]


def test_a_quoted_line_end_stays_and_a_bad_row_is_told_by_the_line_in_which_it_begins(
    tmp_path: Path,
) -> None:
    """Case 57."""
    file = tmp_path / "a.csv"
    file.write_bytes(b'a,b\n1,"x\ny"\n2,z\n3,bad,extra\n')
    good, also, bad = items(Csv(file, bad="dead"))
    assert [good, also] == [{"a": "1", "b": "x\ny"}, {"a": "2", "b": "z"}]
    assert isinstance(bad, BadRow) and bad.raw == b"3,bad,extra"
    assert "line 5: it is no row: it has 3 values, and there are 2 columns" in bad.error


@pytest.mark.parametrize("offset", range(12))
def test_a_quoted_line_end_keeps_both_its_bytes_at_every_edge(offset: int, tmp_path: Path) -> None:
    """Case 57."""
    file = tmp_path / "a.csv"
    file.write_bytes(b"a\r\n" + b"\r\n".join([b"x"] * offset) + b'\r\n"l\r\nr"\r\nlast\r\n')
    for size in (1, 2, 3):
        assert items(Csv(file), size)[-2:] == [{"a": "l\r\nr"}, {"a": "last"}]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    """Case 58."""
    file = tmp_path / "a.csv"
    file.write_bytes(b'\xef\xbb\xbf"id",name\r\n1,x\r\n')
    assert items(Csv(file)) == [{"id": "1", "name": "x"}]


class Priced(Struct):
    a: str
    b: float


def test_a_decimal_comma_is_none_unless_it_is_said(tmp_path: Path) -> None:
    """Case 59."""
    file = tmp_path / "a.csv"
    file.write_text("a;b\nx;1,20\ny;1.234,56\n")
    found = items(Csv(file, type=Priced, delimiter=";", bad="dead"))
    assert [type(item) for item in found] == [BadRow, BadRow]
    good, bad = items(Csv(file, type=Priced, delimiter=";", decimal=",", bad="dead"))
    assert good == Priced("x", 1.2)
    assert "line 3" in bad.error and "'1.234,56'" in bad.error


@dataclass
class Trade:
    shop: str
    cents: int
    sure: bool = True
    note: str | None = None
    rate: float | None = None
    count: int | None = 7


def test_values_become_what_the_fields_are_in_any_order_of_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("shop,cents,sure,rate\ns,5,false,\nt,6,true,0.5\n")
    (tmp_path / "b.csv").write_text("rate,other,cents,shop\n1,x,7,u\n")
    one, two = Csv(tmp_path / "a.csv", type=Trade), Csv(tmp_path / "b.csv", type=Trade)
    assert items(one) == [Trade("s", 5, False), Trade("t", 6, True, None, 0.5)]
    assert items(two) == [Trade("u", 7, True, None, 1.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"shop,price\ns,1\n", "no column 'cents'"),
        (b"shop,cents,shop\ns,1,s\n", "a column twice"),
        (b'"shop,cents\n', "names no columns"),
    ],
)
def test_a_file_with_other_columns_is_named(text: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(text)
    with pytest.raises(SkerryError, match=rf"a\.csv.*{said}"):
        read(Csv(file, type=Trade))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"s,many\n", "Expected `int`, got `str` - at `$.cents`"),
        (b"s\n", "it has 1 values"),
        (b's,"5"x\n', "expected after"),
        (b"\xe9,5\n", "it is not UTF-8: its byte 1 is 0xe9"),
    ],
)
def test_a_row_that_is_none_is_told_and_all_others_are_read(
    line: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"shop,cents\na,1\n\n" + line + b"b,2\n")
    found = items(Csv(file, type=Trade, bad="dead"))
    assert [found[0], found[2]] == [Trade("a", 1), Trade("b", 2)]
    assert "line 4: " in found[1].error and said in found[1].error
    with pytest.raises(SkerryError, match="line 4"):
        read(Csv(file, type=Trade))


def test_a_value_whose_quote_never_ends_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b'a\nx\n"y\nz\n')
    good, bad = items(Csv(file, bad="dead"))
    assert good == {"a": "x"}
    assert "line 3" in bad.error and bad.raw == b'"y\nz'


def test_a_packed_file_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress(b'a\n"x\ny"\n'))
    assert items(Csv(file)) == [{"a": "x\ny"}]


@pytest.mark.parametrize("text", [b"", b"a,b\n", b"a,b"])
def test_a_file_without_rows_has_no_items(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(text)
    assert items(Csv(file)) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"delimiter": ",,"}, ValueError),
        ({"decimal": ";"}, ValueError),
        ({"type": int}, TypeError),
        ({"type": list[int]}, TypeError),
    ],
)
def test_options_that_can_not_be_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Csv("a.csv", **options)


def test_rows_come_to_a_reduce_as_what_they_are(tmp_path: Path) -> None:
    class Shop(Entity):
        cents: int = 0

        def sell(self, trade: Trade) -> None:
            self.cents += trade.cents

    (tmp_path / "a.csv").write_text("shop,cents\ns,5\ns,7\n")
    app = App("shops", entities=[Shop])
    trades = app.source(Csv(tmp_path / "a.csv", type=Trade)).key_by(lambda trade: trade.shop)
    trades.to(Shop.sell)
    harness = Harness(app)
    harness.run()
    assert harness[Shop.at("s")].cents == 12
