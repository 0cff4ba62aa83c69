"""The two servers: Remit's embedded control plane, and the kube-apiserver that it is compared with."""

from __future__ import annotations

import base64
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ports import free_port

ROOT = Path(__file__).parents[3]
BOOT_SECONDS = 60.0
TOKEN = "conformance"
EMBEDDED_TRAITS = frozenset({"controllers", "old-discovery", "protobuf-refusals", "watch-progress"})


@dataclass(frozen=True)
class Server:
    """A running API server. `traits` names what it supports beyond the plain API:

    `controllers`        namespaces are emptied and owned objects collected
    `cel-checker`        CEL rules are type-checked and their cost is estimated when a CRD is created
    `old-discovery`      aggregated discovery is also served as v2beta1, which Kubernetes 1.36 no longer does
    `protobuf-refusals`  protobuf for a custom resource is refused, where Kubernetes 1.36 drops the connection
    `watch-progress`     a watch knows how far its storage is, which kube-apiserver asks of etcd 3.4.31, 3.5.13 or newer
    """

    name: str
    url: str
    token: str
    ca: Path
    traits: frozenset[str]

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    def kubeconfig(self, path: Path) -> Path:
        user = {"name": "user", "user": {"token": self.token}}
        cluster = {"name": "cluster", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}
        context = {"name": "context", "context": {"cluster": "cluster", "user": "user"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "context"}
        path.write_text(yaml.safe_dump(config | {"users": [user], "clusters": [cluster], "contexts": [context]}))
        return path


def find_asset(name: str) -> str | None:
    """Returns the Kubernetes test binary `name`, from KUBEBUILDER_ASSETS, kubebuilder's default folder, or PATH."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin")
    return shutil.which(name, path=assets) or shutil.which(name)


def real_server_available() -> bool:
    return bool(find_asset("kube-apiserver") and find_asset("etcd"))


@contextmanager
def embedded(state: Path) -> Iterator[Server]:
    state.mkdir(mode=0o700)
    config = state / "kubeconfig"
    command = [sys.executable, "-m", "remit.controlplane", "--state", str(state), "--port", str(free_port())]
    with _running(command, state.with_suffix(".log"), PYTHONPATH=str(ROOT / "operator")) as process:
        process.wait_until(config.exists)
        read = yaml.safe_load(config.read_text())
        cluster, user = read["clusters"][0]["cluster"], read["users"][0]["user"]
        if "certificate-authority-data" in cluster:
            ca = state.with_suffix(".ca")
            ca.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        else:
            ca = Path(cluster["certificate-authority"])
        server = Server("embedded", cluster["server"], user["token"], ca, EMBEDDED_TRAITS)
        process.wait_until(lambda: _ready(server))
        yield server


@contextmanager
def kube_apiserver(state: Path, **flags: object) -> Iterator[Server]:
    """Runs etcd, kube-apiserver and, if it is found, the two controllers that finish deletions.

    `flags` are further ones of kube-apiserver, or others in the place of those here.
    """
    state.mkdir(mode=0o700)
    store, peer, port = (free_port() for _ in range(3))
    tokens, key, ca = state / "tokens.csv", state / "sa.key", state / "apiserver.crt"
    tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    clients, peers = f"http://127.0.0.1:{store}", f"http://127.0.0.1:{peer}"
    etcd = _command(
        "etcd",
        data_dir=f"{state}/etcd",
        listen_client_urls=clients,
        advertise_client_urls=clients,
        listen_peer_urls=peers,
        initial_advertise_peer_urls=peers,
        initial_cluster=f"default={peers}",
    )
    settings: dict[str, object] = {
        "etcd_servers": clients,
        "secure_port": port,
        "bind_address": "127.0.0.1",
        "advertise_address": "127.0.0.1",
        "endpoint_reconciler_type": "none",
        "cert_dir": state,
        "token_auth_file": tokens,
        "service_account_issuer": "https://kubernetes.default.svc",
        "service_account_key_file": key,
        "service_account_signing_key_file": key,
        "service_cluster_ip_range": "10.96.0.0/24",
        "authorization_mode": "AlwaysAllow",
        "enable_priority_and_fairness": "false",
        "disable_admission_plugins": "ServiceAccount",
    }
    apiserver = _command("kube-apiserver", **settings | flags)
    controllers_found = find_asset("kube-controller-manager") is not None
    has = {"cel-checker": True, "controllers": controllers_found, "watch-progress": _etcd_tells_progress()}
    traits = frozenset(trait for trait, there in has.items() if there)
    with ExitStack() as running:
        running.enter_context(_running(etcd, state / "etcd.log"))
        process = running.enter_context(_running(apiserver, state / "kube-apiserver.log"))
        process.wait_until(ca.exists)
        server = Server("kube-apiserver", f"https://127.0.0.1:{port}", TOKEN, ca, traits)
        process.wait_until(lambda: _ready(server))
        if controllers_found:
            config = server.kubeconfig(state / "kubeconfig")
            controllers = _command(
                "kube-controller-manager",
                kubeconfig=config,
                leader_elect="false",
                secure_port=0,
                controllers="namespace-controller,garbage-collector-controller",
            )
            running.enter_context(_running(controllers, state / "kube-controller-manager.log"))
        yield server


def _etcd_tells_progress() -> bool:
    said = subprocess.run(_command("etcd", version="true"), capture_output=True, text=True, check=True).stdout
    major, minor, patch = (int(part) for part in re.findall(r"\d+", said)[:3])
    return (major, minor) > (3, 5) or patch >= {5: 13, 4: 31}.get(minor, 1 << 30)


def _command(asset: str, **flags: object) -> list[str]:
    return [find_asset(asset) or asset, *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]


@dataclass(frozen=True)
class _Process:
    popen: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while not condition():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{self.popen.args!r} did not come up (exit {self.popen.returncode}):\n{tail}")
            time.sleep(0.05)


@contextmanager
def _running(command: list[str], log: Path, **env: str) -> Iterator[_Process]:
    with log.open("ab") as out:
        popen = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ | env)
    try:
        yield _Process(popen, log)
    finally:
        popen.terminate()
        try:
            popen.wait(10)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def _ready(server: Server) -> bool:
    for path in ("/readyz", "/api/v1/namespaces/default"):
        request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {server.token}"})
        try:
            urllib.request.urlopen(request, context=server.tls, timeout=5).close()
        except OSError:
            return False
    return True
