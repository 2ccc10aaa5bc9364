"""What ZeroMQ carries between two shards, also when somebody holds an end that is dead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
