"""A host joins a cluster: it finds servers that will do, and the app's bucket.

    reach(engine)       -> how many replicas a stream has here
    bucket(engine, app) -> the app's bucket, which is made when there is none

Servers that are not there yet are waited for, since hosts and servers often start together. What no
waiting mends is refused at once: wrong credentials, a missing permission, an old release. What may
mend itself while servers come up, such as too few of them, is refused when it has stood for a while.

Does network I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.cluster import monitor, names, probe, settings
from skerry.runtime.cluster.bucket import ASK_S, PAUSE_S, Bucket
from skerry.runtime.cluster.engine import Away, Closed, Engine, Plain
from skerry.runtime.ports import Interrupted
from skerry.runtime.printable import Say

LOWEST = (2, 11)
"""The lowest release of the servers. Earlier ones lost streams (nats-server issue 6888)."""

PORT = 4222
"""Where a server listens whose URL does not say it."""

SAY_S = 10.0
"""How often a wait is told of."""

REFUSED_S = 15.0
"""How long a refusal may stand that servers also give while they start: longer than an election."""

_OFF = (10039, 10076)
"""JetStream: "not enabled for account", "not enabled"."""
_NO_LEADER, _NO_PEERS = 10008, 10005
_NAME_TAKEN = 10058


class Patience:
    """Waits between tries, tells why now and then, and stops when the process is told to.

    Args:
        stop: whether the process was told to stop.
    """

    def __init__(self, say: Say, stop: Callable[[], bool]) -> None:
        self._say, self._stop = say, stop
        self._since_s = time.monotonic()
        self._said_s = self._since_s

    def wait(self, why: str) -> None:
        """Wait for a moment. Raises Interrupted."""
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_S:
            self._said_s = now_s
            self._say(f"waiting for the cluster: {why}")
        pause(PAUSE_S, self._stop)

    @property
    def exhausted(self) -> bool:
        """Whether what servers also say while they start has stood for too long."""
        return time.monotonic() - self._since_s >= REFUSED_S

    def bear(self, refusal: str) -> None:
        """Wait for a moment though servers refuse. Raises Interrupted; SkerryError: they did for long."""
        if self.exhausted:
            raise SkerryError(refusal)
        self.wait(refusal)


def pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Wait. Raises Interrupted."""
    deadline_s = time.monotonic() + seconds
    while not stop():
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(left_s, PAUSE_S))
    raise Interrupted("stopped while it waited for the cluster; nothing was changed")


class _Servers(Struct):
    version: tuple[int, int, int]
    clustered: bool


def reach(engine: Engine, say: Say, stop: Callable[[], bool]) -> int:
    """Wait for servers that will do; return how many replicas a stream has there.

    Raises SkerryError: they never will; Interrupted.
    """
    patience = Patience(say, stop)
    while True:
        try:
            found = engine.run(_look, ASK_S)
            break
        except _Off as off:
            patience.bear(_without_jetstream(engine, str(off)))
        except _Leaderless:
            _refuse(engine)
            patience.wait(
                f"JetStream of NATS at {_at(engine)} has no leader: its servers elect one, or half of "
                f"them or more are down."
            )
        except Closed:
            raise
        except Away as away:
            _refuse(engine)
            patience.wait(str(away))
        except Error as error:
            patience.wait(f"NATS at {_at(engine)} answers: {error}.")
    if found.version[:2] < LOWEST:
        raise SkerryError(
            f"NATS at {_at(engine)} is nats-server {'.'.join(map(str, found.version))}, and skerry "
            f"needs {LOWEST[0]}.{LOWEST[1]} or newer: older ones can lose what they acknowledged. "
            f"Upgrade all servers, one by one."
        )
    _warn_of_loss(engine, say)
    if found.clustered:
        return settings.REPLICAS
    say(
        f"NATS at {_at(engine)} is one server, without a cluster: the app survives no loss of that "
        f"machine. For use, run three servers, each on a machine of its own."
    )
    return 1


def bucket(engine: Engine, app: str, replicas: int, say: Say, stop: Callable[[], bool]) -> Bucket:
    """Return the app's bucket, which is made when there is none.

    Raises SkerryError: it can't be made, or was set up otherwise; StoreDamaged: there is none, but
    logs of the app are; Interrupted.
    """
    made = Bucket(engine, names.of_app(app))
    wanted = settings.of_bucket(made.name, replicas=replicas)
    patience = Patience(say, stop)
    while True:
        try:
            found = engine.run(lambda client: _config(client, made.stream), ASK_S)
            if found is not None:
                break
            if left := logs(engine, app):
                raise StoreDamaged(
                    f"NATS has no bucket {made.name}, which describes the app {app!r}, but it has "
                    f"logs of the app: {', '.join(left)}. Restore the bucket, or the app's last "
                    f"backup; if the app is to begin anew, remove them with `nats stream rm`."
                )
            engine.run(lambda client: client.jetstream().add_stream(wanted), ASK_S)
        except Closed:
            raise
        except Away as away:
            _refuse(engine)
            patience.wait(str(away))
        except APIError as error:
            if error.err_code == _NO_PEERS:
                if patience.exhausted:
                    raise SkerryError(_too_few(engine, made.name, replicas)) from error
                patience.wait(f"there are fewer than {replicas} servers with JetStream so far")
            elif error.err_code == _NAME_TAKEN:  # Another host has just made it.
                patience.wait(f"the bucket {made.name} is made by another host")
            else:
                patience.bear(
                    f"NATS does not make the bucket {made.name}: {error.description} (JetStream "
                    f"error {error.err_code}). Mend that on the servers, and start again."
                )
    if wrong := settings.wrong(found, wanted):
        raise SkerryError(
            f"The bucket {made.name} in NATS is not set up as skerry does it, and is not safe: {wrong}"
        )
    return made


def logs(engine: Engine, app: str) -> list[str]:
    """Return the names of the app's logs that were written to, whatever its incarnation. Raises Away.

    A first start that was cut short leaves empty ones.
    """
    mine = re.compile(rf"{re.escape(names.of_app(app))}-[0-9a-f]{{8}}-\d+")

    async def ask(client: Client) -> list[str]:
        found: list[str] = []
        context, seen = client.jetstream(timeout=ASK_S), 0
        while page := await context.streams_info(offset=seen):
            seen += len(page)
            found += [info.config.name or "" for info in page if info.state.last_seq]
        return sorted(name for name in found if mine.fullmatch(name))

    return engine.run(ask, ASK_S)


def _warn_of_loss(engine: Engine, say: Say) -> None:
    """Tell of servers that acknowledge before they sync, as far as that can be seen."""

    async def known(client: Client) -> list[tuple[str, int]]:
        return [(url.hostname or "", url.port or PORT) for url in client.servers]

    with suppress(Away):
        places = engine.run(known, ASK_S)
        with ThreadPoolExecutor(len(places)) as at_once:
            lapses = at_once.map(lambda place: monitor.lapse_s(*place), places)
            lazy = {f"{host}:{port}": s for (host, port), s in zip(places, lapses) if s}
        if lazy:
            say(
                f"NATS at {', '.join(lazy)} syncs what it acknowledges only every "
                f"{max(lazy.values()):g} s: a power cut can lose work that was acknowledged. Put "
                f"`sync_interval: always` into the `jetstream` block of each server's configuration, "
                f"and restart the servers one by one."
            )


# ── what servers say ──


class _Off(Exception):
    """There are servers, and none of them has JetStream for us."""


class _Leaderless(Exception):
    """There are servers, and none of them leads the others."""


async def _look(client: Client) -> _Servers:
    told = client._server_info
    try:
        await client.jetstream(timeout=ASK_S / 2).account_info()
    except TimeoutError as error:
        raise _Leaderless from error
    except ServiceUnavailableError as error:
        if error.err_code == _NO_LEADER:
            raise _Leaderless from error
        if error.err_code in _OFF:
            raise _Off(error.description) from error
        if error.err_code is None and not told.get("jetstream"):
            raise _Off("nobody answers for it") from error
        raise
    version = client.connected_server_version
    return _Servers(
        version=(version.major, version.minor, version.patch),
        clustered=bool(told.get("cluster")),
    )


async def _config(client: Client, stream: str) -> StreamConfig | None:
    try:
        return (await client.jetstream(timeout=ASK_S).stream_info(stream)).config
    except NotFoundError:
        return None


def _at(engine: Engine) -> str:
    return ", ".join(engine.servers)


def _refuse(engine: Engine) -> None:
    """Raise what the servers have complained of, if waiting does not mend it."""
    said = engine.complaint
    if "authorization" in said.lower() or "authentication" in said.lower():
        raise SkerryError(
            f"NATS at {_at(engine)} lets nobody in with these credentials ({said}). Put them into the "
            f"URL of --cluster: nats://USER:PASSWORD@HOST:4222, or nats://TOKEN@HOST:4222."
        )
    if "permissions violation" in said.lower():
        raise SkerryError(
            f"NATS at {_at(engine)} forbids what skerry needs ({said}). Allow its user to publish to "
            f"$JS.API.>, $KV.skerry-APP.>, skerry-APP-snapshots.>, skerry-APP-link.* and *, and to "
            f"subscribe to _INBOX.> and skerry-APP-link.*, with the app's name for APP."
        )
    if said == str(Plain()):
        raise SkerryError(
            f"NATS at {_at(engine)} is not spoken with: {said}. Turn TLS on in its configuration, with "
            f"a `tls` block, or say nats:// if the network is yours alone."
        )
    if "certificate_verify_failed" in said.lower():
        raise SkerryError(
            f"NATS at {_at(engine)} has a certificate that is not trusted here, or not for this "
            f"name ({said}). Put the certificate of the authority that signed it into a file, and "
            f"name that in SSL_CERT_FILE."
        )


def _without_jetstream(engine: Engine, why: str) -> str:
    return (
        f"NATS at {_at(engine)} runs without JetStream ({why}), which keeps an app's logs. Turn it on "
        f"in the servers' configuration, `jetstream {{ store_dir: DIR, sync_interval: always }}`, and "
        f"for the account that skerry uses."
    )


def _too_few(engine: Engine, name: str, replicas: int) -> str:
    there = next((fewer for fewer in range(replicas - 1, 1, -1) if _keep(engine, name, fewer)), 1)
    return (
        f"The app is to be kept by {replicas} servers with JetStream, and NATS at {_at(engine)} has "
        f"{there}. Start more of them, each on a machine of its own."
    )


def _keep(engine: Engine, name: str, servers: int) -> bool:
    """Tell whether there are so many servers, which do not say it themselves: try it."""
    probed = f"{name}-probe-{servers}"
    try:
        engine.run(lambda client: probe.make(client, probed, servers, ASK_S), ASK_S)
    except (Away, Error):
        return False
    return True
