"""What lets a host into NATS that is guarded: a user with few permissions, and TLS."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skerry import Client
from skerry.errors import SkerryError
from skerry.runtime.cluster import server
from tests.cluster.apps import Counter, Filled
from tests.cluster.hosts import Host
from tests.processes.started import ROOT, launcher

yaml = pytest.importorskip("yaml")

DEPLOY = ROOT / "examples/deploy"
VALUES = yaml.safe_load((DEPLOY / "nats-values.yaml").read_text())["config"]
STATEFUL_SET = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))[-1]
CONTAINER = STATEFUL_SET["spec"]["template"]["spec"]["containers"][0]

PASSWORD, OF_CLIENTS = "correct-horse", "battery-staple"
LEASE = "--lease=10"
"""Longer than one is frozen here."""


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        port: int = end.getsockname()[1]
        return port


@contextmanager
def nats_server(folder: Path, **settings: Any) -> Iterator[int]:
    """Run a NATS server that listens on a free port. What it logs is in server.log."""
    try:
        program = server.binary()
    except SkerryError as error:
        pytest.skip(f"needs a real NATS server. {error}")
    port = free_port()
    ours = {"listen": f"127.0.0.1:{port}", "log_file": str(folder / "server.log")}
    # As the chart writes it: what stands between << and >> goes without quotes.
    text = re.sub(r'"<< (\S+) >>"', r"\1", json.dumps(settings | ours))
    (folder / "server.conf").write_text(text)
    process = subprocess.Popen(
        [program, "--config", folder / "server.conf"],
        env=os.environ | {"SHOP_PASSWORD": PASSWORD, "SHOP_CLIENT_PASSWORD": OF_CLIENTS},
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def jetstream(folder: Path) -> dict[str, Any]:
    """The settings of JetStream that the chart makes of the values."""
    of_chart = VALUES["jetstream"]
    size = of_chart["fileStore"]["maxSize"]
    return {
        "store_dir": str(folder / "jetstream"),
        "max_file_store": f"<< {size} >>",
        **of_chart["merge"],
    }


@pytest.fixture
def program(tmp_path: Path) -> str:
    file = tmp_path / "shop.py"
    file.write_text(
        "from skerry import App\nfrom tests.cluster import apps\n"
        "app = App('shop', entities=apps.ENTITIES)\n"
    )
    return f"{file}:app"


def in_container(command: list[str], host: Host) -> subprocess.CompletedProcess[str]:
    """Run a command of the manifest as it runs beside a host."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        env=os.environ | {"PATH": path, "SKERRY_DATA": str(host.data)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def covers(permission: str, subject: str) -> bool:
    """Whether a subject is one of those that a permission names, by the rules of NATS."""
    allowed, tokens = permission.split("."), subject.split(".")
    if allowed[-1] == ">":
        allowed, tokens = allowed[:-1], tokens[: len(allowed) - 1]
    return len(allowed) == len(tokens) and all(a in ("*", t) for a, t in zip(allowed, tokens))


class Log:
    """What clients have asked a server, by its log."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "server.log"

    @property
    def text(self) -> str:
        return self._file.read_text()

    def subjects(self, kind: str) -> set[str]:
        """The subjects that were published to (PUB), or subscribed to (SUB)."""
        return set(re.findall(rf"cid:\d+ .*<<- \[H?{kind} (\S+)", self.text))

    def await_published(self, start: str) -> None:
        """Wait until a client has published to a subject that begins so."""
        while not any(subject.startswith(start) for subject in self.subjects("PUB")):
            assert "Violation" not in self.text


def test_the_manifests_host_needs_exactly_the_permissions_of_the_values(
    tmp_path: Path, program: str
) -> None:
    """It joins and leaves, drains, is cut off from another, saves and loads a snapshot; nothing is
    refused, and no permission is left over."""
    settings = VALUES["merge"] | {"jetstream": jetstream(tmp_path), "server_name": "n1"}
    with nats_server(tmp_path, **settings, trace=True, max_traced_msg_len=1) as port:
        url, log = f"nats://shop:{PASSWORD}@127.0.0.1:{port}", Log(tmp_path)

        def host(name: str) -> Host:
            filled = {"$(POD_NAME)": name, "$(POD_IP):7400": f"127.0.0.1:{free_port()}"}
            args = [re.sub(r"\$\(.*", lambda m: filled[m[0]], arg) for arg in CONTAINER["args"]]
            return Host(tmp_path / name, url, *args, LEASE, target=program)

        first, second = host("shop-0"), host("shop-1")
        try:
            first.start()
            first.await_serving()
            second.start()
            second.await_serving()
            first.await_homes(**{"shop-0": 2, "shop-1": 2})
            for probe in ("readinessProbe", "livenessProbe"):
                assert in_container(CONTAINER[probe]["exec"]["command"], second).returncode == 0
            second.freeze()
            log.await_published("skerry-shop-link.")
            second.thaw()
            with first.client() as client:
                client.options(timeout=60).ask(Counter.at("c").add, 1)
                drained = in_container(CONTAINER["lifecycle"]["preStop"]["exec"]["command"], second)
                assert drained.returncode == 0, drained.stderr
                assert second.await_end() == 0
                for _ in range(70):
                    client.options(timeout=60).ask(Filled.at("x").fill, random.randbytes(1 << 20))
            log.await_published(f"$JS.API.STREAM.PURGE.skerry-shop-{first.incarnation[:8]}")
            first.stop()
            assert in_container(CONTAINER["readinessProbe"]["exec"]["command"], first).returncode
            shutil.rmtree(first.data)
            first.start()
            first.await_serving()
            of_clients = f"nats://shop-client:{OF_CLIENTS}@127.0.0.1:{port}"
            with Client(cluster=of_clients, app="shop") as client:
                assert client.ask(Counter.at("c").total) == 1
                assert client.ask(Filled.at("x").size) == 1 << 20
        finally:
            first.end()
            second.end()
        assert "Violation" not in log.text
        permissions = VALUES["merge"]["accounts"]["shop"]["users"][0]["permissions"]
        for kind, allowed in (("PUB", permissions["publish"]), ("SUB", permissions["subscribe"])):
            used = log.subjects(kind)
            unused = [p for p in allowed["allow"] if not any(covers(p, each) for each in used)]
            assert unused == []


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with the certificate of a new authority, ca.crt, and one that it signed, nats.crt."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl, which makes certificates")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    new = "-newkey rsa:2048 -nodes -days 2"
    for command in (
        f"req -x509 {new} -subj /CN=authority -keyout ca.key -out ca.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=nats -keyout nats.key -out nats.csr",
        "x509 -req -in nats.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names "
        "-out nats.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@contextmanager
def nats_with_tls(folder: Path) -> Iterator[str]:
    """Run a server that refuses clients without TLS; its URL."""
    tls = {"cert_file": str(folder / "nats.crt"), "key_file": str(folder / "nats.key")}
    user = {"user": "shop", "password": PASSWORD}
    with nats_server(folder, tls=tls, authorization=user, jetstream=jetstream(folder)) as port:
        yield f"tls://shop:{PASSWORD}@127.0.0.1:{port}"


def test_hosts_and_clients_reach_nats_by_tls_with_an_authority_of_ones_own(
    certificates: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))
    with nats_with_tls(certificates) as url:
        host = Host(certificates / "h1", url, "--workers", "1", target=program)
        host.start()
        try:
            host.await_serving()
            with Client(cluster=url, app="shop") as client:
                assert client.ask(Counter.at("c").add, 1) == 1
        finally:
            host.end()


def test_a_server_whose_certificate_is_not_trusted_is_refused_with_the_next_step(
    certificates: Path, program: str
) -> None:
    with nats_with_tls(certificates) as url:
        data = str(certificates / "h1")
        told = launcher("run", program, "--cluster", url, "--host", "h1", "--data", data)
    assert told.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in told.stderr and "SSL_CERT_FILE" in told.stderr
    assert PASSWORD not in told.stderr


def test_no_password_goes_to_a_server_without_tls_if_the_url_says_tls(
    tmp_path: Path, program: str
) -> None:
    """Somebody who stands in between could leave out that the server wants TLS."""
    with nats_server(tmp_path, jetstream=jetstream(tmp_path), trace=True) as port:
        url = f"tls://shop:{PASSWORD}@127.0.0.1:{port}"
        data = str(tmp_path / "h1")
        told = launcher("run", program, "--cluster", url, "--host", "h1", "--data", data)
        log = (tmp_path / "server.log").read_text()
    assert told.returncode == 1
    assert "does not offer TLS" in told.stderr
    assert "<<- [CONNECT" not in log
