"""The alerts are the right ones, once each, in a harness and over real kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import psutil

from examples import alerts
from examples.alerts import LARGE, MILLION, Account, Transaction, app, transaction
from skerry.testing import Harness

ROOT = Path(__file__).parents[2]
ALL = [[transaction(f"{partition}", n) for n in range(5000)] for partition in range(4)]


def paid(each: Transaction) -> bool:
    return each.amount < 0


def single() -> list[str]:
    """What alerts by itself."""
    large = [each for partition in ALL for each in partition if -each.amount > LARGE]
    return sorted(f"{each.account}: paid {-each.amount}" for each in large)


def balances() -> dict[str, int]:
    found: Counter[str] = Counter()
    for partition in ALL:
        for each in partition:
            found[each.account] += each.amount
    return found


def turnovers() -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for partition in ALL:
        for each in filter(paid, partition):
            found[each.shop] -= each.amount
    return found


def check_overdrawn(came: list[str], states: dict[str, Account]) -> None:
    """An account alerts whenever it falls below zero, so each one that ends there has."""
    told = {line.partition(":")[0] for line in came}
    assert {key for key, account in states.items() if account.balance < 0} <= told


def check_turnover(came: list[str]) -> None:
    """Each shop's last alert is that of its last million, and none comes twice."""
    assert len(set(came)) == len(came)
    last = {
        shop: max(int(line.split()[1]) for line in came if line.startswith(shop))
        for shop in turnovers()
    }
    assert last == {shop: total // MILLION for shop, total in turnovers().items()}


def check(sim: Harness) -> None:
    states = {key: sim[Account.at(key)] for key in balances()}
    assert {key: account.balance for key, account in states.items()} == balances()
    assert sorted(sim.emitted(alerts.single)) == single()
    check_overdrawn(sim.emitted(alerts.overdrawn), states)
    check_turnover(sim.emitted(alerts.turnover))
    assert not sim.dead


def test_every_alert_is_the_right_one() -> None:
    harness = Harness(app)
    harness.run()
    check(harness)


def test_alerts_survive_kills_of_workers(tmp_path: Path) -> None:
    cli = [sys.executable, "-m", "skerry.runtime.cli"]
    run = [*cli, "run", f"{ROOT / 'examples' / 'alerts.py'}:app", "--workers", "2"]
    process = subprocess.Popen([*run, "--data", "data"], cwd=tmp_path)
    kills = 0
    while process.poll() is None and kills < 5:
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "worker.process" in " ".join(child.cmdline())
        ]
        for worker in workers[: kills % 2 + 1]:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            kills += 1
    assert process.wait(100) == 0
    assert kills

    def came(name: str) -> list[str]:
        files = (tmp_path / "alerts" / name).glob("*.txt")
        return [line for file in files for line in file.read_text().splitlines()]

    export = subprocess.run(
        [*cli, "export", "Account", "--data", "data"], cwd=tmp_path, capture_output=True, text=True
    )
    rows = map(json.loads, export.stdout.splitlines())
    states = {row["key"]: Account(**row["state"]) for row in rows}
    assert {key: account.balance for key, account in states.items()} == balances()
    assert sorted(came("single")) == single()
    check_overdrawn(came("overdrawn"), states)
    check_turnover(came("turnover"))
