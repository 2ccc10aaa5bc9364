"""Stored bytes are split as msgspec splits them, and where it gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.msgpack import Ext, encode

from skerry.runtime.core import commit
from skerry.runtime.core.events import StateGroup, Table
from skerry.runtime.core.stored import split, split_deep

DEPTH = 200_000
"""Deeper than any interpreter lets a decoder in C go."""

SIZES = st.sampled_from([0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
LEAVES = st.one_of(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    st.builds(lambda size: "x" * size, SIZES),
    st.builds(bytes, SIZES),
    st.builds(
        lambda code, size: Ext(code, bytes(size)), st.integers(-128, 127), SIZES | st.just(8)
    ),
    st.builds(lambda size: [None] * size, SIZES),
    st.builds(lambda size: dict.fromkeys(range(size)), SIZES),
    st.floats(width=32).map(lambda number: Raw(b"\xca" + msgspec.msgpack.encode(number)[1:5])),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


def told(split: Callable[[bytes], list[Raw]], array: bytes) -> Any:
    """The elements, or what is wrong with the array."""
    try:
        return [bytes(element) for element in split(array)]
    except msgspec.DecodeError as error:
        return type(error)


@given(st.lists(VALUES), st.data())
def test_an_array_is_split_as_msgspec_splits_it(values: list[Any], data: st.DataObject) -> None:
    array, decode = encode(values), msgspec.msgpack.Decoder(list[Raw]).decode
    assert told(split_deep, array) == [encode(value) for value in values] == told(decode, array)
    torn = array[: data.draw(st.integers(0, len(array)))]
    assert told(split_deep, torn) == told(decode, torn)


@given(st.binary(max_size=40), st.integers(0, 255))
def test_bytes_that_are_no_array_are_refused_as_msgspec_refuses_them(
    rest: bytes, first: int
) -> None:
    decode = msgspec.msgpack.Decoder(list[Raw]).decode
    for array in (bytes([first]) + rest, bytes([0x91, first]) + rest, b"\x92\x01" + rest):
        assert told(split_deep, array) == told(decode, array)


def test_a_state_that_nests_deeper_than_any_interpreter_reads_is_stepped_over() -> None:
    deep = b"\x91" * DEPTH + b"\xa1x"
    with pytest.raises(RecursionError):
        msgspec.msgpack.decode(deep, type=Raw)
    assert told(split, b"\x93\x05" + deep + b"\x07") == [b"\x05", deep, b"\x07"]

    group = StateGroup.of("Counter", [("deep", deep), ("fine", b"\x91\x05"), ("gone", None)])
    rows = [(Table.DEAD, b"one", b"1"), (Table.DEAD, b"other", None)]
    read = commit.decode(commit.encode(1, 1, 1, 0, [group], rows))
    assert [list(group.each()) for group in read.states] == [
        [("deep", deep), ("fine", b"\x91\x05"), ("gone", None)]
    ]
    assert read.states[0].type == "Counter"
    assert read.rows == rows
