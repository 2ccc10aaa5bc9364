"""A process that takes an app's lease, and writes down each moment at which it holds it.

    python -m tests.cluster.holder SERVERS APP HOST DATA LEASE_S

Each line of DATA.claims is a time since the machine started, taken before it was asked whether the
lease holds. The last line is "lost", once it does not.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from skerry.runtime.cluster.coordinator import ClusterCoordinator
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.presence import boottime_ns


def main(servers: str, app: str, host: str, data: str, lease_s: str) -> None:
    """Hold the lease until it is lost."""
    with open(f"{data}.said", "w", buffering=1) as said, open(f"{data}.claims", "w") as claims:
        coordinator = ClusterCoordinator(
            Engine(servers.split(","), name=host),
            app,
            host,
            Path(data),
            say=lambda line: print(line, file=said),
            lease_s=float(lease_s),
        )
        coordinator.acquire()
        pace = threading.Event()
        while not pace.wait(0.01):
            now_ns = boottime_ns()
            if not coordinator.holds():
                break
            print(now_ns, file=claims, flush=True)
        print("lost", file=claims, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
