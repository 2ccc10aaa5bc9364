"""Every example runs as its docstring says, with the right results."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from examples import word_count

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "skerry.runtime.cli"]


def skerry(*args: str, code: int = 0) -> str:
    """Run the launcher; its standard output."""
    done = subprocess.run([*CLI, *args], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stderr
    return done.stdout


def exported(type_name: str, data: Path) -> dict[str, dict[str, object]]:
    """All states of a type by key."""
    rows = map(json.loads, skerry("export", type_name, "--data", str(data)).splitlines())
    return {row["key"]: row["state"] for row in rows}


def corpus(folder: Path) -> list[str]:
    """Some files of different sizes, an empty one and one without a last newline among them."""
    paths = []
    for number, source in enumerate(word_count.standard_library()[:40]):
        path = folder / f"{number}.txt"
        path.write_text(Path(source).read_text(encoding="utf-8"), encoding="utf-8")
        paths.append(str(path))
    (folder / "empty.txt").write_text("")
    (folder / "last.txt").write_text("one more line without an end")
    return [*paths, str(folder / "empty.txt"), str(folder / "last.txt")]


def counted(paths: list[str]) -> Counter[str]:
    """What the words should be, by other means."""
    return Counter(
        word
        for path in paths
        for line in Path(path).read_text(encoding="utf-8").split("\n")
        for word in word_count.split(line)
    )


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_word_counts_equal_a_counter_over_the_same_files(tmp_path: Path, workers: int) -> None:
    """And a second run of the finished count continues from its positions: nothing changes."""
    paths, data = corpus(tmp_path), tmp_path / "data"
    run = ["run", "examples.word_count", "--data", str(data), "--workers", str(workers)]
    for _ in range(2):
        skerry(*run, "--", *paths)
        found = {key: state["count"] for key, state in exported("Word", data).items()}
        assert found == dict(counted(paths))
    assert "clean" in skerry("check", str(data))


def test_the_counts_are_the_same_after_changing_the_number_of_workers(tmp_path: Path) -> None:
    paths, data = corpus(tmp_path), tmp_path / "data"
    for workers in ("2", "3", "1"):
        skerry(
            "run", "examples.word_count", "--data", str(data), "--workers", workers, "--", *paths
        )
    found = {key: state["count"] for key, state in exported("Word", data).items()}
    assert found == dict(counted(paths))
    assert "clean" in skerry("check", str(data))


def test_every_sequence_is_whole_and_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    skerry("run", "examples.sequence", "--data", str(data), "--", "6", "2000")
    receivers = exported("Receiver", data)
    assert len(receivers) == 5
    for state in receivers.values():
        assert state["last"] == {f"sender-{n}": [1997, 1998, 1999, 2000] for n in range(6)}
    assert skerry("dead", "list", "--data", str(data)) == ""


def test_each_crossing_of_the_limit_is_reported_once(tmp_path: Path) -> None:
    from examples import talk

    data = tmp_path / "data"
    skerry("run", "examples.talk", "--data", str(data), "--", "100000")
    customers = exported("Customer", data)
    assert sum(int(str(state["purchases"])) for state in customers.values()) == 400_000
    above = {key for key, state in customers.items() if int(str(state["spent"])) > talk.LIMIT}
    reported: list[str] = []
    for state in exported("Alerts", data).values():
        assert isinstance(state["customers"], dict)
        reported += state["customers"]
    assert above
    assert sorted(reported) == sorted(above)
    assert skerry("dead", "list", "--data", str(data)) == ""


def test_the_bank_keeps_its_money_while_it_is_driven(tmp_path: Path) -> None:
    data = tmp_path / "data"
    bank = subprocess.Popen(
        [*CLI, "run", "examples.bank", "--data", str(data)], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        await_app(data)
        load = [sys.executable, "-m", "examples.bank.load", "--data", str(data)]
        done = subprocess.run(
            [*load, "--transfers", "3000"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert "right" in done.stdout
        assert (
            skerry("ask", "Account/new", "deposit", '{"amount": 7}', "--data", str(data)) == "7\n"
        )
        refused = skerry("ask", "Account/new", "withdraw", "[8]", "--data", str(data), code=1)
        assert refused == ""
        assert json.loads(skerry("get", "Account/new", "--data", str(data)))["balance"] == 7
        skerry("stop", "--data", str(data))
        assert bank.wait(30) == 0
    finally:
        bank.kill()
        bank.communicate()


def await_app(data: Path) -> None:
    """Until the app says that it runs."""
    while not (data / "run.json").exists():
        os.sched_yield()


def test_the_word_counts_equal_a_counter_when_workers_are_killed_half_way(tmp_path: Path) -> None:
    files = []
    for copy in range(6):
        for number, source in enumerate(word_count.standard_library()[:150]):
            files.append(tmp_path / f"{number}-{copy}.txt")
            files[-1].write_bytes(Path(source).read_bytes())
    paths, data = [str(file) for file in files], tmp_path / "data"
    command = [*CLI, "run", "examples.word_count", "--data", str(data), "--workers", "2", "--"]
    kills = 0
    with subprocess.Popen([*command, *paths], cwd=ROOT, stderr=subprocess.PIPE) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None and kills < 6:
            for worker in watched.children():
                # One that has worked for some time: it has read and not finished.
                with contextlib.suppress(psutil.NoSuchProcess):
                    if sum(worker.cpu_times()[:2]) > 0.6 + 0.1 * kills:
                        worker.kill()
                        kills += 1
        said = process.communicate()[1].decode()
    assert process.returncode == 0, said
    assert kills >= 2, said
    assert "is started again" in said
    found = {key: state["count"] for key, state in exported("Word", data).items()}
    assert found == dict(counted(paths))
    assert "clean" in skerry("check", str(data))
