"""Messages in order, whatever they are: taken, split, or carried as frames."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skerry.handler import Handler
from skerry.runtime.core import wire
from skerry.runtime.core.buffer import HEADS, Buffer, Messages, Runs
from skerry.runtime.core.wire import Call
from tests.core.shapes import HANDLERS, NAMES, args_of

Sent = tuple[int, str, str, Any, Any]
"""(call, handler's name or nothing, key, arguments, extra)."""


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just(Call.SEND), st.sampled_from(NAMES), st.sampled_from("abc")),
        st.tuples(st.just(Call.ASK), st.sampled_from(NAMES), st.sampled_from("abc")),
        st.tuples(st.just(Call.OUTCOME), st.just(""), st.sampled_from("abc")),
    ),
    max_size=40,
)


def extra_of(call: int, number: int) -> Any:
    """What a message of this call carries besides."""
    if call == Call.SEND:
        return None
    return ("Thing", "z", b"%d" % number) if call == Call.ASK else (b"%d" % number, "done", b"")


def put(into: Runs, messages: list[tuple[int, str, str]]) -> list[Sent]:
    """Put them there, some of them many at once; what they are."""
    sent: list[Sent] = []
    for number, (call, name, key) in enumerate(messages):
        args, extra = args_of(name) if name else (), extra_of(call, number)
        handler = HANDLERS.get(name)
        if call == Call.SEND and handler is not None and number % 2:
            into.extend(handler, [key], handler.column([args]))
        else:
            head = HEADS[call][handler or "Thing"]
            into.add(head, key, handler.entry(args) if handler else None, extra)
        sent.append((call, name, key, args, extra))
    return sent


def listed(runs: list[Messages]) -> list[Sent]:
    """Messages one by one."""
    found: list[Sent] = []
    for run in runs:
        count = len(run.keys)
        call, handler = run.head.call, run.head.handler
        each = [()] * count if handler is None else list(handler.each(run.column, count))
        name = "" if handler is None else handler.name
        extras = run.extras or [None] * count
        assert len(each) == len(extras) == count
        found += [(call, name, *one) for one in zip(run.keys, each, extras)]
    return found


@given(MESSAGES)
def test_messages_are_taken_in_the_order_in_which_they_were_put(
    messages: list[tuple[int, str, str]],
) -> None:
    runs = Runs()
    sent = put(runs, messages)
    assert listed(runs.take()) == sent
    assert runs.take() == [], "what was taken is there no more"


@given(MESSAGES, st.integers(1, 5))
def test_a_split_run_is_the_same_messages(messages: list[tuple[int, str, str]], at: int) -> None:
    runs = Runs()
    sent = put(runs, messages)
    parts = [part for run in runs.take() for part in run.split(at)]
    assert listed([part for part in parts if part.keys]) == sent


@given(MESSAGES)
def test_frames_carry_the_same_messages_in_order(messages: list[tuple[int, str, str]]) -> None:
    filled: dict[int, Buffer] = {}
    buffer = Buffer(3, filled)
    sent = put(buffer, messages)
    assert list(filled) == ([3] if sent else [])
    by_id: dict[int, Handler] = {handler.id: handler for handler in HANDLERS.values()}
    found: list[Any] = []
    for body, count in buffer.frames():
        before = len(found)
        for run in wire.decode_runs(body):
            handler = by_id.get(run.handler)
            column = None if handler is None else wire.column_of(run, handler)
            args: list[Any] = [()] * len(run.keys)
            if handler is not None and column is not None:
                args = list(handler.each(column, len(run.keys)))
            extras = [None if e is None else tuple(e) for e in run.extras or [None] * len(args)]
            name = "" if handler is None else handler.name
            found += [(run.call, name, *one) for one in zip(run.keys, args, extras)]
        assert len(found) - before == count
    assert found == sent
