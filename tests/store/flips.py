"""Flips bits anywhere in a store's files, and cuts them; each time it must be named or harmless.

    make flips FLIPS=2000

Each damaged copy is checked, opened and read in a process of its own.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from skerry.errors import StoreDamaged
from skerry.runtime.store.check import check
from skerry.runtime.store.log import LmdbStore
from tests.store.dying import COMMITS, model


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


def damage(stored: bytes, rng: random.Random) -> bytes:
    """A flipped bit, or one time in ten a shorter file."""
    if rng.random() < 0.1:
        return stored[: rng.randrange(len(stored))]
    flipped = bytearray(stored)
    # Mostly where something stands: the rest is free pages, and the zeros ahead of the log.
    used = [place for place, byte in enumerate(stored) if byte or rng.random() < 0.01]
    flipped[rng.choice(used)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def apart(path: Path) -> str:
    """`judge` in a forked process: LMDB may be killed by what it reads."""
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


def campaign(count: int, seed: int) -> collections.Counter[str]:
    """So many damaged copies of one store, by what became of them."""
    rng, found = random.Random(seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory(prefix="skerry-flips-") as folder:
        path = Path(folder) / "shard-1"
        writer = [sys.executable, "-m", "tests.store.dying", "a write of the log", "before", "0"]
        subprocess.run([*writer, str(path)], check=True, stdout=subprocess.DEVNULL)
        files = [path / "data.mdb", *sorted(path.glob("log-*"))]
        for number in range(count):
            copy = Path(folder) / f"{number}" / "shard-1"
            shutil.copytree(path, copy)
            victim = copy / rng.choice(files).name
            victim.write_bytes(damage(victim.read_bytes(), rng))
            found[apart(copy)] += 1
            shutil.rmtree(copy)
    return found


def main() -> int:
    """0: none was read as good."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = campaign(count, seed)
    for what, times in found.most_common():
        print(f"{times:>8,}  {what}")
    return int(any(what.startswith(("WRONG", "RAISED")) for what in found))


if __name__ == "__main__":
    sys.exit(main())
