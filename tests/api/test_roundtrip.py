"""Whether a value comes back as it was: the rule against what msgspec gives back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from collections import defaultdict
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.roundtrip import NESTING_MAX, RoundTrip


class Point(msgspec.Struct):
    x: int = 0
    y: float = 0.0


class Named(Point):
    name: str = ""


class Tree(msgspec.Struct):
    value: Any = None
    children: list[Tree] = []


class Growing(msgspec.Struct):
    n: int = 0

    def __post_init__(self) -> None:
        self.n += 1


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    depth: int


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Line:
    start: Point
    end: Point | None = None


ANNOTATIONS: list[Any] = [
    *(int, float, str, bool, bytes, Any, None, int | None, int | str, int | float, float | None),
    *(list[int], list[Any], dict[str, int], dict[str, float], dict[int, str], dict, list, set[int]),
    *(tuple[int, str], tuple[int, ...], frozenset[str], Point, Point | None, list[Point], Tree),
    *(dict[str, Point], Pair, Options, Color, Level, Line, Line | None, Growing, object),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID),
    *(decimal.Decimal, bytearray, Literal["a", 1], Annotated[int, msgspec.Meta(ge=0)]),
    *(Annotated[list[int], msgspec.Meta(max_length=2)], dict[tuple[int, int], Any]),
]

BERLIN = ZoneInfo("Europe/Berlin")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.sampled_from([Color.RED, Level.LOW, "a", 1, 0, -1]),
    st.datetimes(timezones=st.sampled_from([None, datetime.UTC, ZoneInfo("UTC"), BERLIN])),
    st.dates(),
    st.times(timezones=st.sampled_from([None, datetime.UTC])),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.builds(bytearray, st.binary(max_size=3)),
    st.builds(Point, x=st.integers(0, 9) | st.floats(0, 9), y=st.integers(0, 9) | st.floats(0, 9)),
    st.builds(Named),
    st.builds(Growing),
    st.builds(Pair, st.integers(0, 9), st.text(max_size=2)),
    st.builds(Line, st.builds(Point) | st.builds(Named)),
)
keys = st.text(max_size=3) | st.integers(0, 99) | st.tuples(st.integers(0, 9), st.integers(0, 9))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=2).map(lambda d: defaultdict(int, d)),
        st.tuples(inner, inner),
        st.builds(Tree, value=inner),
    ),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    """Same class, same value, all the way down: written without a look at the rule."""
    if type(a) is float and math.isnan(a):
        return type(b) is float and math.isnan(b)
    if isinstance(b, float) and type(a) is int:  # A float may be given as an int that it can hold.
        return a == b
    if isinstance(a, datetime.datetime | datetime.time) and type(a) is type(b):
        return a == b and a.replace(tzinfo=None) == b.replace(tzinfo=None)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(*pair) for items in zip(a.items(), b.items()) for pair in zip(*items)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, msgspec.Struct):
        return all(same(getattr(a, f), getattr(b, f)) for f in a.__struct_fields__)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


@given(annotation=st.sampled_from(ANNOTATIONS), value=values)
def test_what_holds_comes_back_the_same_and_what_does_not_is_told_why(
    annotation: Any, value: Any
) -> None:
    rule = RoundTrip(annotation)
    try:
        back = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=annotation)
        returns = same(value, back)
    except (msgspec.MsgspecError, TypeError):
        returns = False
    assert rule.holds([value]) == (rule.fault(value) == "")
    assert not rule.holds([value]) or returns, (
        f"{value!r} passes for {annotation} and returns other"
    )


@given(
    column=st.lists(st.builds(Point, x=st.integers(0, 9), y=st.floats(0, 9)), max_size=20),
    wrong=st.integers(0, 19),
)
def test_one_wrong_value_among_many_is_found(column: list[Point], wrong: int) -> None:
    assert RoundTrip(Point).holds(column)
    if wrong < len(column):
        column[wrong].x = 0.5  # type: ignore[assignment]
        assert not RoundTrip(Point).holds(column)
        assert not RoundTrip(dict[str, Point]).holds([dict(zip(map(str, range(99)), column))])


@pytest.mark.parametrize("annotation", [Any, list, Tree])
def test_values_nest_as_deep_as_every_reader_goes_and_no_deeper(annotation: Any) -> None:
    def nested(levels: int) -> Any:
        value: Any = Tree() if annotation is Tree else []
        for _ in range(levels):
            value = Tree(children=[value]) if annotation is Tree else [value]
        return value

    rule, most = RoundTrip(annotation), NESTING_MAX // (2 if annotation is Tree else 1) - 1
    assert rule.holds([nested(most)])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(nested(most)), type=annotation)
    assert not rule.holds([nested(NESTING_MAX)])
    assert "nests deeper" in rule.fault(nested(NESTING_MAX))
    assert not rule.holds([nested(900)])


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (int, 0.5, " = 0.5: a float where int is declared"),
        (float, 2**60 + 1, "would come back as the float"),
        (dict[str, int], defaultdict(int, a=1), "it would come back as a dict"),
        (list[Point], [Point(), Named()], "[1] = Named("),
        (Line, Line(Named()), ".start = Named("),
        (Any, {"a": [(1, 2)]}, "['a'][0] = (1, 2): a tuple, which would come back as a list"),
        (dict, {datetime.date(2026, 1, 1): 1}, "its key datetime.date(2026, 1, 1)"),
        (datetime.datetime, datetime.datetime(2026, 7, 1, tzinfo=BERLIN), "value.astimezone(UTC)"),
        (Options, {"width": 3}, "Options has no 'width'"),
        (Growing, Growing(), "it would come back as Growing(n=2)"),
        (Literal["a", 1], "b", "'b'"),
        (tuple[int, str], (1,), "1 items where tuple[int, str] is declared"),
    ],
)
def test_a_fault_names_the_place_the_value_and_the_cause(
    annotation: Any, value: Any, told: str
) -> None:
    assert told in RoundTrip(annotation).fault(value)
