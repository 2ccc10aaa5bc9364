"""Conversations between links: numbers show a loss, and credit bounds what is on its way."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.link.table import Peer, Table
from skerry.runtime.link.talks import TELL_BYTES, WINDOW_BYTES, Credit, Numbers
from skerry.runtime.link.wire import COUNT


@given(st.integers(1, 50), st.data())
def test_a_message_that_is_lost_doubled_or_late_is_seen(count: int, data: st.DataObject) -> None:
    sender, receiver = Numbers(), Numbers()
    sent = [sender.next() for _ in range(count)]
    way = data.draw(st.sampled_from(["whole", "lost", "doubled", "swapped"]))
    at = data.draw(st.integers(0, count - 1))
    arrived = list(sent)
    if way == "lost":
        del arrived[at]
    elif way == "doubled":
        arrived.insert(at, sent[at])
    elif way == "swapped" and at + 1 < count:
        arrived[at], arrived[at + 1] = arrived[at + 1], arrived[at]
    fits = [receiver.fits(raw) for raw in arrived]
    assert all(fits) == (arrived == sent[: len(arrived)])
    assert not receiver.fits(b"") and not receiver.fits(COUNT.pack(0))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, WINDOW_BYTES)), max_size=60))
def test_no_more_than_a_window_is_on_its_way_and_nothing_stands_still(
    steps: list[tuple[bool, int]],
) -> None:
    sender, reader = Credit(), Credit()
    held: deque[int] = deque()
    for sends, size in steps:
        if sends and sender.left:
            part = min(size, sender.left)
            sender.sent(part)
            assert reader.heard(part)
            held.append(part)
        elif held and (told := reader.read(held.popleft())):
            sender.taken(told)
        assert sum(held) <= WINDOW_BYTES
    while held:
        if told := reader.read(held.popleft()):
            sender.taken(told)
    assert sender.left > WINDOW_BYTES - TELL_BYTES, "all was read, and the sender may go on"


def test_more_than_there_was_room_for_is_seen() -> None:
    reader = Credit()
    assert reader.heard(WINDOW_BYTES)
    assert not reader.heard(1)


def test_a_sender_is_told_what_was_read_and_no_more() -> None:
    sender, reader = Credit(), Credit()
    sender.sent(WINDOW_BYTES)
    assert reader.heard(WINDOW_BYTES)
    sender.taken(reader.read(TELL_BYTES))
    assert sender.left == TELL_BYTES


def test_a_table_tells_what_is_elsewhere() -> None:
    a, b = Peer("a", "1", "127.0.0.1:1", "k"), Peer("b", "1", "127.0.0.1:2", "l")
    table = Table([a, b], {0: "a", 1: "b", 2: "unknown"}, "b")
    assert table.remote("a") == {1: b}
    assert table.remote("") == {0: a, 1: b}, "a client is elsewhere"
    assert table.lead("a") == b
    assert table.lead("b") is None
    assert Table([a, b], {}, "").lead("a") is None
