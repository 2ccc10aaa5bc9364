"""Orders that are turned down met a wide quote, once each, also over kills of workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil

from examples.market_spread import CENTS, SYMBOLS, order, quote

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "skerry.runtime.cli"]
ORDERS = 200_000


def test_orders_that_are_turned_down_met_a_wide_quote_once_each_over_kills(tmp_path: Path) -> None:
    target = f"{ROOT / 'examples' / 'market_spread.py'}:app"
    run = [*CLI, "run", target, "--workers", "2", "--data", "data", "--", str(ORDERS)]
    process = subprocess.Popen(run, cwd=tmp_path)
    killed: set[int] = set()
    while process.poll() is None and len(killed) < 4:
        for child in psutil.Process(process.pid).children():
            new = child.pid not in killed and "worker.process" in " ".join(child.cmdline())
            if new and (tmp_path / "turned-down").exists():
                child.send_signal(signal.SIGKILL)
                child.wait()
                killed.add(child.pid)
    assert process.wait(100) == 0
    assert killed
    files = list((tmp_path / "turned-down").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert all(offer - bid > CENTS for _, _, _, bid, offer in lines)
    made = Counter(
        (each.client, each.symbol, each.quantity)
        for partition in "0123"
        for each in (order(partition, n) for n in range(ORDERS // 4))
    )
    found = Counter((client, symbol, quantity) for client, symbol, quantity, *_ in lines)
    assert 0 < found.total() < ORDERS
    assert found <= made, "I1: each at most once"
    check_quotes(tmp_path)


def check_quotes(folder: Path) -> None:
    """Each symbol has the last of its quotes of one of the partitions."""
    last: dict[str, set[tuple[float, float]]] = {symbol: set() for symbol in SYMBOLS}
    for partition in "0123":
        newest = {}
        for position in range(ORDERS // 2):
            each = quote(partition, position)
            newest[each.symbol] = (each.bid, each.offer)
        for symbol, pair in newest.items():
            last[symbol].add(pair)
    export = [*CLI, "export", "Symbol", "--data", "data"]
    rows = subprocess.run(export, cwd=folder, capture_output=True, text=True, check=True)
    states = {row["key"]: row["state"] for row in map(json.loads, rows.stdout.splitlines())}
    assert set(states) == {symbol for symbol, pairs in last.items() if pairs}
    for symbol, state in states.items():
        assert (state["bid"], state["offer"]) in last[symbol], f"I2: {symbol}"
