"""How an app is run: one tree of settings, built where a program comes in and handed down whole.

    command line, app.run(), app.running() -> Config -> supervisor -> Assignment -> worker

Each reader takes its section: nothing is copied from one record to the next under another name.
What outlives a run is not here but in the app's description (`description.py`).

Data and its rules; does nothing.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from skerry.runtime.core.settings import Limits

QUOTA_BYTES_MIN = 16 << 20
"""The least quota. A choice: a smaller store would soon be full, and only look like it works."""

MEMTABLE_BYTES_MIN = 4 << 20
"""The least memtable. A choice: a smaller one would move rows to the tree in tiny portions."""

WORKERS_MAX = 512
"""Workers of an app on a host. Each has a slot at least, and each pair of them has two streams."""

HALF_LIFE = 3
"""In so many looks, what was measured of a load counts half."""


def check_workers(workers: int) -> None:
    """Raises ValueError: an app can't have so many workers, or so few."""
    if not 1 <= workers <= WORKERS_MAX:
        raise ValueError(f"an app has 1 to {WORKERS_MAX} workers on a host, not {workers}")


class Program(Struct, frozen=True, kw_only=True):
    """The app, and how a worker gets it."""

    app: str
    """The app's name."""
    target: str = ""
    """The file or module that has the app, and the app's variable there."""
    pickled: str = ""
    """The app by value, in base64, where no file or module has it."""
    path: list[str] = []
    """`sys.path` of the program that defines it."""
    hidden: list[str] = []
    """Modules to import before that path counts: files of the program have the same names."""
    args: list[str] = []
    """`skerry.args()`."""
    folder: str | None = None
    """The folder in which workers run; None: the supervisor's own. As it was named: what a symbolic link
    leads to is found anew by each process that loads the app. So it is with `target` and `path`."""
    renamed: dict[str, str] = {}
    """Entity types that are stored under an earlier name: name, earlier name."""


class Storage(Struct, frozen=True, kw_only=True):
    """How safely and how largely a worker stores."""

    sync: Literal["commit", "10ms", "off"] = "commit"
    """When the log is synced. Each commit: what a client is told survives a power cut."""

    quota_bytes: int = 1 << 40
    """Disk of a worker. Only address space is taken before it is used, of which x86-64 gives 128 TiB:
    enough for a hundred workers of a terabyte each."""

    accept_loss: bool = False
    """Whether to go on after a power cut with `sync` off, with what is there."""

    def __post_init__(self) -> None:
        if self.quota_bytes < QUOTA_BYTES_MIN:
            raise ValueError(
                f"the quota is {self.quota_bytes:,} bytes, and a store needs {QUOTA_BYTES_MIN:,} at "
                f"least"
            )


class Supervision(Struct, frozen=True, kw_only=True):
    """How workers are watched, and when the app ends."""

    hang_s: float = 10.0
    """How long a handler may take before its worker is killed. A choice between two harms: all of a
    shard's entities wait as long for one that hangs, and a slow one must not be killed for it."""

    serve: bool = False
    """Whether to keep running when all sources have ended."""

    pin: bool = True
    """Whether each worker keeps to a core of its own, when there are as many."""

    rebalance: bool = True
    """Whether slots move to other workers as their load asks for."""

    look_s: float = 5.0
    """How often the load is looked at, while something happens. A choice: some looks after the load has
    changed for good, slots move, and what is over in a few seconds moves none."""

    @property
    def half_life_s(self) -> float:
        """After so long, what was measured of a load counts half."""
        return HALF_LIFE * self.look_s

    def __post_init__(self) -> None:
        if not self.hang_s > 0:
            raise ValueError(f"a handler may take longer than {self.hang_s:g} s")
        if not self.look_s > 0:
            raise ValueError(f"the load can't be looked at every {self.look_s:g} s")


def urls_of(servers: str) -> list[str]:
    """Return the URLs in a text that has commas between them."""
    return [url.strip() for url in servers.split(",") if url.strip()]


class Cluster(Struct, frozen=True, kw_only=True):
    """The cluster that an app runs in, by way of NATS."""

    servers: list[str]
    """URLs of NATS servers. A password in them is shown to nobody."""
    host: str
    """This host's name."""
    lease_s: float = 10.0
    """How long a host may be silent before another takes its place. Longer than an election of the
    servers takes, or each would look like the death of a host."""
    address: str = ""
    """Where other hosts reach this one: IP or IP:PORT; empty: by the way to the servers."""
    replicas: int = 3
    """Of each stream."""

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError("a cluster is reached by the URL of a NATS server at least")
        if not self.host:
            raise ValueError("a host has a name")


class Config(Struct, frozen=True, kw_only=True):
    """Everything that is settled before a worker starts."""

    program: Program
    data: str
    """The data directory."""
    workers: int | None = None
    """None: as many as the app has, or one per usable core when it is new."""
    storage: Storage = Storage()
    limits: Limits = Limits()
    supervision: Supervision = Supervision()
    cluster: Cluster | None = None
    """None: the app lives on this machine."""

    def __post_init__(self) -> None:
        if self.cluster is not None and self.storage.sync == "off":
            raise ValueError(
                "in a cluster the servers sync each commit before it counts: leave --sync off out"
            )
        if self.workers is not None:
            check_workers(self.workers)

    @property
    def memtable_bytes(self) -> int:
        """Memory for rows that the log has and the tree has not: as much as entities may take."""
        return max(self.limits.cache_bytes, MEMTABLE_BYTES_MIN)
