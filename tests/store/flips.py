"""Flips bits anywhere in a data directory, and cuts files; each time it is named or harmless.

    make flips FLIPS=2000

A third of the damage goes to a whole app's directory, the description and all labels and locks
included, and the rest to a single store with a long log. Each damaged copy is checked, opened
and read in a process of its own.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from skerry.errors import StoreDamaged, Unavailable
from skerry.runtime.app import directory, membership
from skerry.runtime.description import Running
from skerry.runtime.store.check import check
from skerry.runtime.store.store import LmdbStore
from tests.store import described
from tests.store.dying import COMMITS, model

BAD = ("WRONG", "RAISED")
LOCKS = {"lock", "lock.mdb"}
"""Which are made where they are not."""


def judge(path: Path) -> str:
    """What becomes of a damaged store."""
    named = bool(list(check(path, shard=1)))
    want = model(COMMITS)
    try:
        store = LmdbStore.open(path, shard=1)
        right = dict(store.states("Thing")) == want
        right = right and {key: store.state("Thing", key) for key in want} == want
    except StoreDamaged:
        return "refused" if named else "refused, but clean to the check"
    if not right:
        return "WRONG STATES"
    return "named, and harmless so far" if named else "harmless"


def judge_directory(data: Path) -> str:
    """What becomes of a damaged app: what a start does before its workers, and what they read."""
    before = sorted(path for path in data.rglob("*") if path.name not in LOCKS)
    lock = directory.lock(data)
    try:
        directory.running_app(data)
        app = membership.described(data)
        unknown = membership.clear(data, app)
        for shard in app.placement.members:
            path = data / f"shard-{shard}"
            for sentence in check(path, shard=shard, placement=app.placement):
                raise StoreDamaged(sentence)
        right = described.contents(data, app) == described.ALL and not unknown
    except (StoreDamaged, Unavailable):
        right = True
        said = "refused"
    else:
        said = "harmless"
    os.close(lock)
    if sorted(path for path in data.rglob("*") if path.name not in LOCKS) != before:
        return "WRONG: something was removed"
    return f"{said}, of a whole app" if right else "WRONG STATES of a whole app"


def damage(stored: bytes, rng: random.Random) -> bytes:
    """A flipped bit, or one time in ten a shorter file."""
    if not stored:
        return b"?"
    if rng.random() < 0.1:
        return stored[: rng.randrange(len(stored))]
    flipped = bytearray(stored)
    # Mostly where something stands: the rest is free pages, and the zeros ahead of the log.
    used = [place for place, byte in enumerate(stored) if byte or rng.random() < 0.01]
    flipped[rng.choice(used)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def apart(judge: Callable[[Path], str], path: Path) -> str:
    """What is judged in a forked process: LMDB may be killed by what it reads."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = judge(path)
        except BaseException as error:
            said = f"RAISED {type(error).__name__}: {error}"
        os.write(there, said.encode())
        os._exit(0)
    os.close(there)
    with open(here, "rb") as answer:
        said = answer.read().decode()
    _, status = os.waitpid(child, 0)
    return said or f"killed by signal {os.WTERMSIG(status)}, which `skerry check` names"


def store(folder: Path) -> list[Path]:
    """A store in this folder; its files."""
    writer = [sys.executable, "-m", "tests.store.dying", "a write of the log", "before", "0"]
    subprocess.run([*writer, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return [folder / "data.mdb", folder / "store.json", *sorted(folder.glob("log-*"))]


def app_in(folder: Path) -> list[Path]:
    """An app in this folder; its files."""
    described.make(folder)
    running = Running(os.getpid(), "described", "/tmp/nowhere", [0, 1])
    directory.announce(folder, running)
    os.close(directory.lock(folder))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def campaign(
    make: Callable[[Path], list[Path]], judge: Callable[[Path], str], count: int, seed: int
) -> collections.Counter[str]:
    """So many damaged copies of what is made, by what became of them."""
    rng, found = random.Random(seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory(prefix="skerry-flips-") as folder:
        path = Path(folder) / "shard-1"
        files = make(path)
        for number in range(count):
            copy = Path(folder) / f"{number}" / "shard-1"
            shutil.copytree(path, copy)
            victim = copy / rng.choice(files).relative_to(path)
            victim.write_bytes(damage(victim.read_bytes(), rng))
            became = apart(judge, copy)
            if became.startswith(BAD):
                print(f"{victim}: {became}")
            found[became] += 1
            shutil.rmtree(copy)
    return found


def main() -> int:
    """0: none was read as good."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = campaign(app_in, judge_directory, count // 3, seed)
    found += campaign(store, judge, count - count // 3, seed)
    for what, times in found.most_common():
        print(f"{times:>8,}  {what}")
    return int(any(what.startswith(BAD) for what in found))


if __name__ == "__main__":
    sys.exit(main())
