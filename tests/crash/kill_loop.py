"""Kills workers and the supervisor at random moments, while money moves and messages flow.

    python -m tests.crash.kill_loop --kills 1000
    python -m tests.crash.kill_loop --kills 300 --moves 1000

With `--moves` the number of workers changes all the while, until so many slots have moved, too.

Three witnesses, all read from the stores at the end: money is conserved, every acknowledged
request counted once, and every sequence is without gap or repeat. Prints what it did; the
exit code is 0 when all three agree.
"""

import argparse
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

import skerry
from skerry.errors import SkerryError, TimedOut, Unavailable
from skerry.message import message
from skerry.runtime.app import directory
from skerry.runtime.app.control import Line
from skerry.runtime.config import Config, Program, Supervision
from skerry.runtime.store.check import check
from skerry.runtime.store.store import LmdbStore
from tests.crash.apps import RECEIVERS, Account, Counter, Receiver, Sender

ACCOUNTS, COUNTERS, START = 20, 20, 1000
CALM = 0.25
"""How often the next kill waits until a request was answered: else, where a start takes longer
than the next kill, none ever would be."""

CALM_S = 120.0
"""An app that answers nothing for so long, while nobody kills it, has stopped for good."""

WORKERS_MAX = 4

HANG_S = 1.0
"""After how long a worker that stands still is replaced."""


class Witness:
    """The app under attack, and a client that remembers what was acknowledged."""

    def __init__(self, data: Path, workers: int, seed: int, target: str) -> None:
        self.target = target
        self.data, self.workers, self.rng = data, workers, random.Random(seed)
        self.acknowledged = 0
        self.unknown = 0
        self.answered = threading.Event()
        self.stopping = False
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.kills: collections.Counter[str] = collections.Counter()
        self.moved = self.changes = 0
        """Slots, and changes of the number of workers that came to their end."""

    def start(self) -> None:
        """A supervisor; its standard input is its lifeline."""
        root = str(Path(__file__).parents[2])
        config = Config(
            program=Program(app="witness", target=self.target, path=[root]),
            data=str(self.data),
            # Later starts go on with as many workers as there were to be.
            workers=None if self.data.exists() else self.workers,
            supervision=Supervision(serve=True, hang_s=HANG_S),
        )
        self.supervisor = subprocess.Popen(
            [sys.executable, "-m", "skerry.runtime.app.background"],
            stdin=subprocess.PIPE,
            stderr=open(self.data.parent / "supervisor.log", "ab"),
        )
        assert self.supervisor.stdin is not None
        self.supervisor.stdin.write(msgspec.json.encode(config) + b"\n")
        self.supervisor.stdin.flush()

    def move(self) -> None:
        """Other numbers of workers until told to stop, each as soon as the last has come to its end."""
        rng = random.Random(11)
        while not self.stopping:
            try:
                with Line(self.data, directory.running_app(self.data)) as line:
                    found = line.ask("scale", rng.randint(1, WORKERS_MAX))["scaling"]
                    while not found["done"]:
                        time.sleep(0.05)
                        found = line.ask("status")["scaling"]
                    self.moved += found["slots"]
                    self.changes += found["slots"] > 0
            except (SkerryError, OSError):
                time.sleep(0.1)  # It is down, or goes on with an earlier change.

    def connect(self) -> skerry.Client:
        """A client, however long the app takes to come up."""
        while True:
            try:
                return skerry.Client(self.data).__enter__()
            except Unavailable:
                time.sleep(0.02)

    def drive(self) -> None:
        """Requests until told to stop; each outcome is noted."""
        client = self.connect().options(timeout=60)
        rng = random.Random(7)
        opened = client.ask_many(
            [message(Account.at(f"a{n}").deposit, START) for n in range(ACCOUNTS)]
        )
        assert len(opened) == ACCOUNTS
        while not self.stopping:
            adds = [message(Counter.at(f"c{rng.randrange(COUNTERS)}").add) for _ in range(50)]
            moves = [
                message(
                    Account.at(f"a{rng.randrange(ACCOUNTS)}").transfer,
                    f"a{rng.randrange(ACCOUNTS)}",
                    rng.randint(1, 40),
                )
                for _ in range(50)
            ]
            try:
                client.ask_many(moves)
                answers = client.ask_many(adds)
                self.acknowledged += sum(isinstance(answer, int) for answer in answers)
                self.answered.set()
            except (TimedOut, SkerryError):
                self.unknown += len(adds)
        client.__exit__(None, None, None)

    def kill_one(self) -> None:
        """SIGKILL of a worker, mostly; now and then of the supervisor, or a stop of either."""
        assert self.supervisor is not None
        drawn = self.rng.random()
        if drawn < 0.06:
            self.supervisor.kill()
            self.supervisor.wait()
            self.kills["supervisor killed"] += 1
            self.start()
        elif drawn < 0.10:
            # Maybe while it or its workers recover from the last one.
            self.supervisor.terminate()
            assert self.supervisor.wait(60) in (0, -signal.SIGTERM)
            self.kills["supervisor told to stop"] += 1
            self.start()
        elif drawn < 0.16:
            pid = self.rng.choice([self.supervisor.pid, *children_of(self.supervisor.pid)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                # Longer than a heartbeat, for some: nobody may take it for a handler that hangs.
                time.sleep(self.rng.uniform(0, 2 * HANG_S))
                self.kills["stopped for a while"] += 1
                os.kill(pid, signal.SIGCONT)
        elif workers := children_of(self.supervisor.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(workers), signal.SIGKILL)
                self.kills["worker killed"] += 1

    def run(self, kills: int, moves: int, pause_s: float) -> None:
        """All of it."""
        self.start()
        driving = threading.Thread(target=self.drive, daemon=True)
        driving.start()
        moving = threading.Thread(target=self.move, daemon=True)
        if moves:
            self.answered.wait(CALM_S)
            moving.start()
        while (done := self.kills.total()) < kills or self.moved < moves:
            # The moment of a kill is the whole point: anywhere in the life of a worker.
            time.sleep(self.rng.uniform(0, 2 * pause_s))
            self.kill_one()
            if self.rng.random() < CALM:
                self.answered.clear()
                assert self.answered.wait(CALM_S), f"nothing was answered for {CALM_S:.0f} s"
            if done // 100 < self.kills.total() // 100:
                print(f"{self.kills.total()} of {kills}", file=sys.stderr, flush=True)
        self.stopping = True
        driving.join()
        if moves:
            moving.join()
        assert self.supervisor is not None
        self.settle()
        self.supervisor.send_signal(signal.SIGTERM)
        assert self.supervisor.wait(60) == 0, "the supervisor did not stop cleanly"

    def settle(self) -> None:
        """Wait until transfers under way have arrived."""
        client = self.connect()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if sum(account.balance for _, account in client.scan(Account)) == ACCOUNTS * START:
                break
        client.__exit__(None, None, None)


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def stored(data: Path, cls: type[skerry.Entity]) -> dict[str, skerry.Entity]:
    """All states of a type, read from the stores of the stopped app."""
    found = {}
    app = directory.load(data)
    assert app is not None
    for shard in app.placement.members:
        store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
        for key, state in store.states(cls.__skerry__.name):
            found[key] = cls.__skerry__.decode(state, key, lambda id: None)
        store.close()
    return found


def judge(data: Path, acknowledged: int, unknown: int) -> list[str]:
    """What is wrong; nothing when every promise was kept."""
    app = directory.load(data)
    assert app is not None
    wrong = [
        damage
        for shard in app.placement.members
        for damage in check(data / f"shard-{shard}", shard=shard)
    ]
    money = sum(a.balance for a in stored(data, Account).values() if isinstance(a, Account))
    if money != ACCOUNTS * START:
        wrong.append(f"money: {money}, not {ACCOUNTS * START}")
    counted = sum(c.count for c in stored(data, Counter).values() if isinstance(c, Counter))
    if not acknowledged <= counted <= acknowledged + unknown:
        wrong.append(f"requests: {counted} counted, {acknowledged} acknowledged, {unknown} unknown")
    sent = {key: s.sent for key, s in stored(data, Sender).items() if isinstance(s, Sender)}
    for key, receiver in stored(data, Receiver).items():
        assert isinstance(receiver, Receiver)
        wrong += [f"{key}: {what}" for what in receiver.wrong[:5]]
        for name, last in receiver.last.items():
            if last > sent[name]:
                wrong.append(f"{key}: has {last} of {name}, which sent {sent[name]}")
    return wrong


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--moves", type=int, default=0, help="slots that must have moved")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.3, help="mean seconds between two kills")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skerry-crash-") as folder:
        data = Path(folder) / "data"
        target = f"tests.crash.{'calm' if given.moves else 'apps'}:app"
        witness = Witness(data, given.workers, given.seed, target)
        started = time.monotonic()
        try:
            witness.run(given.kills, given.moves, given.pause)
        except BaseException:
            print((Path(folder) / "supervisor.log").read_text()[-5000:])
            raise
        wrong = judge(data, witness.acknowledged, witness.unknown)
        sent = sum(s.sent for s in stored(data, Sender).values() if isinstance(s, Sender))
        if wrong:
            print((Path(folder) / "supervisor.log").read_text()[-3000:])
    print(
        f"{', '.join(f'{count} {what}' for what, count in sorted(witness.kills.items()))}; "
        f"{witness.moved:,} slots moved in {witness.changes} changes that no kill cut short; "
        f"{witness.acknowledged:,} requests acknowledged, {witness.unknown} unknown, "
        f"{sent * RECEIVERS:,} numbered messages in {time.monotonic() - started:.0f} s"
    )
    print("\n".join(wrong) or "0 lost, 0 doubled, 0 out of order, money conserved")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
