"""Links between hosts, each a real process: what is carried, what is lost, and who is let in."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from skerry.errors import SkerryError
from skerry.runtime.link import canary, wire
from skerry.runtime.link.link import Link
from skerry.runtime.link.table import Peer, Table
from skerry.runtime.link.zap import Gate
from skerry.runtime.transport.curve import Pair
from skerry.runtime.transport.pipe import Pipe, context
from tests.link.linked import CLIENTS, Echo, Linked, Way, call, echoed, route, stranger, table

HOMES = {0: "a", 1: "b"}


@pytest.fixture(scope="module")
def started() -> Iterator[list[Linked]]:
    found = [Linked("a"), Linked("b")]
    yield found
    for link in found:
        link.close()


@pytest.fixture
def links(started: list[Linked]) -> list[Linked]:
    """Two links that run, told where everything is. Their folders may have been used before."""
    for link in started:
        if link.process.poll() is not None:
            link.kill()
            link.start()
    route(started, HOMES)
    return started


def carried(sender: Pipe, to: int, receiver: Pipe, packet: bytes) -> list[bytes]:
    """What has arrived by the time that this packet has. It is sent again and again, as streams do."""
    found: list[bytes] = []
    while packet not in found:
        sender.send(to, packet)
        receiver.socket.poll(50)
        found += receiver.receive()
    return found


def test_packets_are_carried_between_hosts_in_their_order(links: list[Linked]) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"first")
    carried(b, 0, a, b"first")
    for n in range(500):
        assert a.send(1, b"%d" % n)
    found: list[bytes] = []
    while b"499" not in found:
        b.socket.poll(1000)
        found += b.receive()
    assert [raw for raw in found if raw != b"first"] == [b"%d" % n for n in range(500)]
    large = random.randbytes(20 << 20)
    assert large in carried(a, 1, b, large)
    a.close()
    b.close()


def test_a_shard_that_changes_its_home_is_reached_there(links: list[Linked]) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"before")
    b.close()
    route(links, {0: "a", 1: "a", 2: "b"})
    here, other = Pipe(links[0].folder, 1), Pipe(links[1].folder, 2)
    carried(a, 1, here, b"at home")
    carried(other, 1, here, b"from afar")
    for pipe in (a, here, other):
        pipe.close()


def test_a_link_that_is_killed_is_succeeded_by_another_one(links: list[Linked]) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"before")
    links[1].kill()
    links[1].start()
    route(links, HOMES)
    carried(a, 1, b, b"after")
    carried(b, 0, a, b"after")
    a.close()
    b.close()


def test_a_link_that_was_frozen_goes_on(links: list[Linked]) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"before")
    links[1].process.send_signal(signal.SIGSTOP)
    said = links[0].process.stdout
    assert said is not None
    while b'"b"' not in said.readline():
        pass  # It says that b does not answer.
    links[1].process.send_signal(signal.SIGCONT)
    while b'"b"' in said.readline():
        pass
    carried(a, 1, b, b"after")
    a.close()
    b.close()


def test_a_packet_for_a_shard_that_does_not_live_there_goes_no_further(
    links: list[Linked],
) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"before")
    inside = stranger(links[1], CLIENTS)
    inside.send_multipart([wire.FRAME, wire.SHARD.pack(0), b"stray"])
    inside.send_multipart([wire.FRAME, wire.SHARD.pack(1), b"behind it"])
    while b"behind it" not in b.receive():
        b.socket.poll(50)
    assert a.receive() == []
    for each in (a, b):
        each.close()
    inside.close(0)


# ── doors ──


def test_what_is_said_at_a_door_is_said_at_the_real_one_and_back(links: list[Linked]) -> None:
    echo = Echo(links[1].folder / "door-1")
    said = random.randbytes(24 << 20)
    assert echoed(links[0].folder / "door-1", b"hello") == b"hello"
    assert echoed(links[0].folder / "door-1", said) == said
    echo.close()


def test_the_supervisor_that_leads_is_reached_from_another_host(links: list[Linked]) -> None:
    echo = Echo(links[1].folder / "control")
    route(links, HOMES, "b")
    assert echoed(links[0].folder / "leader", b"status") == b"status"
    assert not (links[1].folder / "leader").exists()
    echo.close()


def test_many_conversations_at_once_do_not_mix(links: list[Linked]) -> None:
    echo = Echo(links[1].folder / "door-1")
    assert echoed(links[0].folder / "door-1", b"hello") == b"hello"
    callers = [call(links[0].folder / "door-1") for _ in range(100)]
    for n, caller in enumerate(callers):
        caller.settimeout(60)
        caller.sendall(b"%06d" % n)
    for n, caller in enumerate(callers):
        assert caller.recv(6, socket.MSG_WAITALL) == b"%06d" % n
        caller.close()
    echo.close()


def test_a_caller_that_does_not_read_holds_up_nobody_else_and_no_memory(
    links: list[Linked],
) -> None:
    echo = Echo(links[1].folder / "door-1")
    assert echoed(links[0].folder / "door-1", b"hello") == b"hello"
    before = resident(links[0])
    with call(links[0].folder / "door-1") as deaf:
        deaf.setblocking(False)
        silent = 0
        while silent < 20:  # Until nobody takes anything any more.
            try:
                deaf.send(b"x" * (1 << 16))
                silent = 0
            except BlockingIOError:
                silent += 1
                select.select([], [deaf], [], 0.05)
        assert resident(links[0]) - before < 32 << 20
        assert echoed(links[0].folder / "door-1", b"beside") == b"beside"
    echo.close()


def resident(link: Linked) -> int:
    return int(psutil.Process(link.process.pid).memory_info().rss)


def test_a_conversation_ends_at_both_sides_with_the_link_that_carried_it(
    links: list[Linked],
) -> None:
    echo = Echo(links[1].folder / "door-1")
    assert echoed(links[0].folder / "door-1", b"hello") == b"hello"
    with call(links[0].folder / "door-1") as caller:
        caller.settimeout(60)
        caller.sendall(b"x")
        assert caller.recv(1) == b"x"
        links[1].kill()
        assert caller.recv(1) == b"", "the caller hears of it"
    links[1].start()
    route(links, HOMES)
    assert echoed(links[0].folder / "door-1", b"again") == b"again"
    echo.close()


def test_a_door_that_is_not_there_ends_the_conversation(links: list[Linked]) -> None:
    echo = Echo(links[1].folder / "door-1")
    assert echoed(links[0].folder / "door-1", b"hello") == b"hello"
    echo.close()
    (links[1].folder / "door-1").unlink()
    with call(links[0].folder / "door-1") as caller:
        caller.settimeout(60)
        assert caller.recv(1) == b""


def test_places_that_somebody_has_removed_are_taken_again(links: list[Linked]) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"before")
    for name in ("pipe-1", "door-1"):
        (links[0].folder / name).unlink()
    while not all((links[0].folder / name).exists() for name in ("pipe-1", "door-1")):
        os.sched_yield()
    carried(a, 1, b, b"after")
    a.close()
    b.close()


# ── who is let in ──


@pytest.mark.parametrize("keys", [None, Pair.new()], ids=["no encryption", "unknown keys"])
def test_a_stranger_is_not_let_in(links: list[Linked], keys: Pair | None) -> None:
    b = Pipe(links[1].folder, 1)
    outside = stranger(links[1], keys)
    for _ in range(20):
        with contextlib.suppress(zmq.Again):  # It was refused, and has nobody to send to.
            outside.send_multipart([wire.FRAME, wire.SHARD.pack(1), b"from outside"], zmq.NOBLOCK)
        assert not outside.poll(20)
        assert b.receive() == []
    outside.close(0)
    b.close()


def test_a_client_is_let_in(links: list[Linked]) -> None:
    inside = stranger(links[1], CLIENTS)
    inside.send_multipart([wire.BEAT])
    assert inside.poll(10_000)
    assert inside.recv_multipart() == [wire.BEAT]
    inside.close(0)


def test_a_host_whose_keys_become_known_later_is_let_in_then(links: list[Linked]) -> None:
    late = Linked("c")
    try:
        late.route(table([*links, late], {**HOMES, 2: "c"}))
        c, b = Pipe(late.folder, 2), Pipe(links[1].folder, 1)
        for _ in range(20):
            c.send(1, b"too early")
            assert not b.socket.poll(20)
        while late.reach().refusing != ["a", "b"]:
            pass
        route([*links, late], {**HOMES, 2: "c"})
        carried(c, 1, b, b"now")
        c.close()
        b.close()
    finally:
        late.close()


def test_a_host_that_is_dropped_gets_in_no_more_over_the_connections_that_it_has(
    links: list[Linked],
) -> None:
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    echo = Echo(links[0].folder / "door-0")
    carried(b, 0, a, b"while it is one of them")
    with call(links[1].folder / "door-0") as caller:
        caller.settimeout(60)
        caller.sendall(b"x")
        assert caller.recv(1) == b"x"
        links[0].route(Table([links[0].peer], {0: "a", 1: "a"}))
        assert caller.recv(1) == b"", "its conversations end"
    for _ in range(20):
        b.send(0, b"when it is none any more")
        assert not a.socket.poll(50)
    with call(links[1].folder / "door-0") as caller:
        caller.settimeout(60)
        caller.sendall(b"x")
        assert caller.recv(1) == b""
    route(links, HOMES)
    carried(b, 0, a, b"once it is one of them again")
    echo.close()
    for each in (a, b):
        each.close()


def test_a_conversation_whose_last_message_was_lost_ends(links: list[Linked]) -> None:
    way = Way(links[0].ready.address)
    there = Peer("a", links[0].nonce, way.address, links[0].ready.key)
    links[1].route(Table([there, links[1].peer], HOMES))
    echo = Echo(links[0].folder / "door-0")
    assert echoed(links[1].folder / "door-0", b"hello") == b"hello"
    with call(links[1].folder / "door-0") as caller:
        caller.settimeout(60)
        caller.sendall(b"x")
        assert caller.recv(1) == b"x"
        way.lose()
        caller.sendall(bytes(5000))
        way.break_off(lost=5000)
        assert caller.recv(1) == b"", "its answer was lost, and nothing follows"
    assert echoed(links[1].folder / "door-0", b"again") == b"again"
    echo.close()
    way.close()


def test_bytes_that_are_no_zeromq_harm_nobody(links: list[Linked]) -> None:
    ip, port = links[1].ready.address.split(":")
    for n in range(200):
        with socket.create_connection((ip, int(port))) as outside:
            outside.sendall(random.Random(n).randbytes(2000))
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"after")
    a.close()
    b.close()


def test_messages_of_a_client_that_make_no_sense_harm_nobody(links: list[Linked]) -> None:
    inside = stranger(links[1], CLIENTS)
    drawn = random.Random(7)
    for _ in range(2000):
        kind = drawn.choice([wire.FRAME, wire.BEAT, wire.TALK, wire.RESET, b"", b"?"])
        inside.send_multipart(
            [kind, *(drawn.randbytes(drawn.randrange(12)) for _ in range(drawn.randrange(6)))]
        )
    a, b = Pipe(links[0].folder, 0), Pipe(links[1].folder, 1)
    carried(a, 1, b, b"after")
    for each in (a, b):
        each.close()
    inside.close(0)


def test_a_link_that_would_let_strangers_in_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link("a", tmp_path, Pair.new(), bind="127.0.0.1:0", admitted=set())
    try:
        link.check()
        monkeypatch.setattr(Gate, "serve", let_everybody_in)
        with pytest.raises(SkerryError, match="lets strangers in"):
            link.check()
    finally:
        link.close()


def let_everybody_in(gate: Gate) -> None:
    while gate.socket.poll(0):
        version, request, *_ = gate.socket.recv_multipart()
        gate.socket.send_multipart([version, request, b"200", b"OK", b"", b""])


def test_a_link_that_nobody_asks_who_may_come_in_does_not_serve(tmp_path: Path) -> None:
    gate = Gate(context())
    router = context().socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    try:
        with pytest.raises(SkerryError, match=r"lets strangers in|was not asked"):
            canary.check(router, f"127.0.0.1:{port}", gate, Pair.new().public)
    finally:
        router.close(0)
        gate.close()


def test_a_link_ends_with_its_supervisor(links: list[Linked]) -> None:
    assert links[0].process.stdin is not None
    links[0].process.stdin.close()
    assert links[0].process.wait(30) == 0
