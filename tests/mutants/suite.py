"""What looks for a planted bug: quick tests, then seeds of the simulation, then all of the core's.

    python -m tests.mutants.suite SEEDS FILE ROOM

FILE has the bug, and `tests/mutants/ROOM.py` describes it. A bug in a file of the room `store` is
looked for by the store's own tests: the simulated disk has none of its code. A bug of moves is looked
for where slots move, whatever its file. One of hosts is looked for by seeds with hosts.
Says what found it in one line; the exit code is then 1.
0: nothing did.
"""

from __future__ import annotations

import contextlib
import io
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.simulation import workload
from tests.simulation.world import World, drawn

QUICK = [
    f"tests/simulation/test_{name}.py"
    for name in (
        "packets",
        "large_frames",
        "traces",
        "watch",
        "verbs",
        "forget",
        "draws",
        "replies",
    )
]
MOVES = ["tests/simulation/test_moving.py", "tests/simulation/test_moves.py"]
DESCRIPTION = "tests/store/test_description.py"
HOUSING = "tests/cluster/test_housing.py"
STORE = [
    *("tests/store/test_store.py", "tests/ports", "tests/store/test_segments.py", DESCRIPTION),
    "tests/store/test_stopped_moves.py",
]
FIRST = {
    "client": ["tests/client", *QUICK],
    "core/flows.py": ["tests/simulation/test_stages.py", "tests/simulation/test_changes.py"],
    "app/homes.py": ["tests/simulation/test_homes.py"],
    "app/housing.py": [HOUSING],
    "app/register.py": [HOUSING],
    "description.py": [HOUSING],
    "link": ["tests/link/test_talks.py", "tests/link/test_link.py"],
    "cluster/lease.py": ["tests/cluster/test_lease.py", HOUSING],
    "gateway": ["tests/gateway/test_inquiries.py", *QUICK],
    "store/memtable.py": ["tests/store/test_memtable.py", "tests/store/test_pages.py", *STORE],
    "store/committer.py": ["tests/store/test_power.py", *STORE],
    "store": STORE,
    "app/reshard.py": [MOVES[0], "tests/simulation/test_world.py", DESCRIPTION],
    "app/membership.py": [DESCRIPTION],
    "app/rolling.py": ["tests/simulation/test_rolling.py"],
    "app/balancing.py": ["tests/simulation/test_balancing.py"],
    "app/scaling.py": MOVES,
    "app/placer.py": MOVES,
    "cluster/local.py": ["tests/cluster/test_local.py"],
    "cluster": ["tests/cluster/test_log.py", "tests/ports/test_log.py"],
    "worker/leased.py": ["tests/cluster/test_leased.py"],
    "worker/meter.py": ["tests/core/test_meter.py"],
    "simulator": ["tests/simulation/test_backup.py"],
}


def main(seeds: int, file: str, room: str) -> int:
    """The first thing that finds it."""
    if room == "hosts":
        return simulate(seeds, hosts=True)
    if room == "moves" and (test(MOVES[0]) or test(MOVES[1]) or simulate(seeds, World(scales=6))):
        return 1
    rest = ["tests/core", *QUICK]
    own = next((tests for place, tests in FIRST.items() if file.startswith(place)), rest)
    return test(*own) or simulate(seeds) or test("tests/store", "tests/simulation")


def simulate(seeds: int, world: World | None = None, *, hosts: bool = False) -> int:
    """Whether one of so many seeds fails. `world`: None: each seed draws its own."""
    for seed in range(seeds):
        try:
            workload.run(seed, world=drawn(seed, hosts=True) if hosts else world)
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}"[:200].replace("\n", " "))
            return 1
    return 0


def test(*folders: str) -> int:
    """Whether a test in these folders fails."""
    # A machine that is slow for a moment is no bug that was found.
    patient = {"deadline": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("hunt", phases=[Phase.explicit, Phase.generate], **patient)
    settings.load_profile("hunt")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestWarning"]
        failed = pytest.main([*quiet, "-k", "not survive", *folders])
    if failed:
        lines = said.getvalue().splitlines()
        print(next((line for line in lines if line.startswith("FAILED")), "".join(lines[-2:])))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
