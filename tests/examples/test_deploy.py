"""The files of examples/deploy are what Kubernetes, systemd and NATS take."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from skerry.runtime.cli.run import run
from tests.processes.started import ROOT

yaml = pytest.importorskip("yaml")

DEPLOY = ROOT / "examples/deploy"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS}
POD = BY_KIND["StatefulSet"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_a_manifest_has_the_fields_that_kubernetes_knows(manifest: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip(
        "kubernetes_validate", reason="needs kubernetes-validate, whose schemas take 72 MB"
    )
    kubernetes.validate(manifest, kubernetes.latest_version(), strict=True)


def test_the_manifests_select_the_pods_of_the_hosts() -> None:
    labels = POD["metadata"]["labels"]
    assert BY_KIND["Service"]["spec"]["selector"] == labels
    assert BY_KIND["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert BY_KIND["StatefulSet"]["spec"]["selector"]["matchLabels"] == labels
    assert BY_KIND["StatefulSet"]["spec"]["serviceName"] == BY_KIND["Service"]["metadata"]["name"]
    [source] = CONTAINER["envFrom"]
    assert source["secretRef"]["name"] == BY_KIND["Secret"]["metadata"]["name"]


def test_other_hosts_reach_the_link_at_the_port_that_the_container_opens() -> None:
    [port] = CONTAINER["ports"]
    assert f"--address=$(POD_IP):{port['containerPort']}" in CONTAINER["args"]
    assert BY_KIND["Service"]["spec"]["ports"] == [{"name": port["name"], "port": 7400}]


def test_the_image_keeps_its_data_on_the_volume_as_the_user_of_the_pod() -> None:
    image = (DEPLOY / "Dockerfile").read_text()
    [mount] = CONTAINER["volumeMounts"]
    assert f"SKERRY_DATA={mount['mountPath']}/" in image
    assert f"--uid {POD['spec']['securityContext']['runAsUser']} " in image


@pytest.mark.parametrize("file", ["Dockerfile", "kubernetes.yaml", "shop@.service"])
def test_the_options_are_those_of_skerry_run(file: str) -> None:
    text = (DEPLOY / file).read_text()
    text = re.sub(r"pip install.*|^#.*", "", text, flags=re.MULTILINE)
    if file != "kubernetes.yaml":
        [text] = re.findall(r"(?:ENTRYPOINT|ExecStart).*", text)
    options = set(re.findall(r"(?<![\w-])--([a-z]+)", text)) - {"json"}
    assert options and options <= set(inspect.signature(run).parameters)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, a part of systemd")
    unit = (DEPLOY / "shop@.service").read_text()
    file = tmp_path / "shop@h1.service"
    file.write_text(unit.replace("/opt/shop/.venv/bin/skerry", "/bin/true"))
    told = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
