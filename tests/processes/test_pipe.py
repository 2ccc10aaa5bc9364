"""What ZeroMQ carries between two shards, also when somebody holds an end that is dead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skerry.entity_type import STATE_BYTES_MAX
from skerry.runtime.core.handover import CHUNK_BYTES
from skerry.runtime.transport import pipe
from skerry.runtime.transport.pipe import Pipe


def test_a_peer_that_has_bound_anew_is_reached_though_somebody_holds_the_old_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "LOOK_S", 0.0)
    sender, old = Pipe(tmp_path, 0), Pipe(tmp_path, 1)
    while not old.receive():
        sender.send(1, b"before")
        os.sched_yield()
    new = Pipe(tmp_path, 1)
    while not new.receive():
        sender.send(1, b"after")
        os.sched_yield()
    for each in (sender, old, new):
        each.close()


def test_a_peer_that_binds_anew_twice_while_nothing_is_said_to_it_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "LOOK_S", 0.0)
    sender, first = Pipe(tmp_path, 0), Pipe(tmp_path, 1)
    sender.send(1, b"before")
    second = Pipe(tmp_path, 1)
    sender.send(2, b"to another one")
    third = Pipe(tmp_path, 1)
    sender.send(2, b"to another one")
    while not third.receive():
        sender.send(1, b"after")
        os.sched_yield()
    for each in (sender, first, second, third):
        each.close()


def test_the_largest_state_arrives_with_what_goes_beside_it(tmp_path: Path) -> None:
    sender, receiver = Pipe(tmp_path, 0), Pipe(tmp_path, 1)
    packet = bytes(STATE_BYTES_MAX + 2 * CHUNK_BYTES)
    assert sender.send(1, packet)
    while not (found := receiver.receive()):
        receiver.socket.poll()
    assert found == [packet]
    for each in (sender, receiver):
        each.close()
