"""Sinks of real processes: each item once, in order, through kills; sinks that fail."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import psutil

from tests.processes.started import running
from tests.processes.witness import COUNT, STRAIGHT


def items(folder: Path) -> list[tuple[str, int]]:
    """Every line of every partition."""
    return [
        (key, count)
        for path in sorted(folder.glob("*.jsonl"))
        for key, count in map(json.loads, path.read_text().splitlines())
    ]


def test_each_item_is_in_the_files_once_and_in_order_however_often_workers_die(
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    kills = 0
    with running(data, target="tests.processes.witness", SKERRY_WITNESS=str(out)) as process:
        while process.poll() is None:
            written = len(items(out / "files")) if (out / "files").is_dir() else 0
            if written > 500 * kills and kills < 20:
                for worker in psutil.Process(process.pid).children():
                    # One that came to the end of its work meanwhile is no kill.
                    with contextlib.suppress(psutil.NoSuchProcess):
                        worker.kill()
                        kills += 1
    assert process.returncode == 0, data.with_name("data.said").read_text()
    assert kills >= 2
    found = items(out / "files")
    assert len(found) == COUNT
    assert max(Counter(found).values()) == 1
    for key in {key for key, _ in found}:
        counts = [count for of, count in found if of == key]
        assert counts == list(range(1, len(counts) + 1)), key
    straight = items(out / "straight")
    assert len(straight) == 3 * STRAIGHT
    for partition in "012":
        numbers = [number for of, number in straight if of == partition]
        assert numbers == list(range(STRAIGHT)), partition


def test_a_sink_that_fails_is_tried_again_said_once_and_holds_nobody_up(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    with running(data, target="tests.processes.witness", SKERRY_WITNESS=str(out)) as process:
        assert process.wait(timeout=100) == 0
    said = data.with_name("data.said").read_text()
    assert 1 <= said.count("is tried again until it does not: ConnectionError: not yet") <= 2
    assert sorted(items(out / "reluctant")) == sorted((f"k{n}", 1) for n in range(50))
    assert len(items(out / "files")) == COUNT
