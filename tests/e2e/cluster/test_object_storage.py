"""Tests artifacts of Jobs in object storage: the chart's operator stores them there, and an operator without its state
finds them."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest

from e2e.cluster.installation import Installation
from objectstores import SECRET, Swift, keys, swift
from remit.execution.artifacts.s3.location import S3Location

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MEBIBYTES = 20
PARTS = 5
"""Number of parts that the next Job mounts: some 4 MiB, the maximum that one Job mounts."""


@dataclass(frozen=True)
class Store:
    server: Swift
    where: S3Location

    def bytes_of(self, folder: str) -> int:
        listed = obstore.list(self.server.client(self.where), f"{self.where.prefix}/{folder}").collect()
        return sum(each["size"] for each in listed)


@pytest.fixture(scope="module")
def store(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Provides the operator's object store, with TLS, a private authority, and credentials in a Secret."""
    with swift(tmp_path_factory.mktemp("swift"), _own_address(installation)) as server:
        where = server.bucket()
        encrypted = server.encrypted(where)
        metadata = {"namespace": installation.system}
        files = {path.name: path.read_text() for path in server.credentials.iterdir()}
        for kind, name, content in (
            ("Secret", "store", {"stringData": files}),
            ("ConfigMap", "authorities", {"data": {"ca.crt": server.authority.read_text()}}),
        ):
            body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}, **content}
            installation.kubectl.ok("apply", "-f", "-", given=body)
        s3 = {
            "bucket": where.bucket,
            "prefix": where.prefix,
            "endpoint": encrypted.endpoint,
            "existingSecret": "store",
            "caConfigMap": "authorities",
        }
        installation.upgrade(artifacts={"s3": s3})
        yield Store(server, where)
        installation.upgrade()


def _own_address(installation: Installation) -> str:
    """Returns the address of this machine by which the cluster's nodes, and so their pods, reach it."""
    (node, *_) = json.loads(installation.kubectl.ok("get", "nodes", "-o", "json"))["items"]
    addresses = node["status"]["addresses"]
    internal = next(each["address"] for each in addresses if each["type"] == "InternalIP")
    with closing(socket.socket(socket.AF_INET6 if ":" in internal else socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        asking.connect((internal, 9))
        return str(asking.getsockname()[0])


def test_what_one_job_leaves_the_next_one_reads_though_the_operator_lost_all(
    installation: Installation, store: Store, tmp_path: Path
) -> None:
    parts = " ".join(str(number) for number in range(PARTS))
    script = (
        f"mkdir d; for i in {parts}; do head -c 800000 /dev/urandom >d/$i; done; cat d/* | busybox sha256sum;"
        f" head -c {MEBIBYTES << 20} /dev/urandom >large; busybox sha256sum large"
    )
    kept = [{"name": "d", "path": "d"}, {"name": "large", "path": "large"}]
    installation.run("stores", "sh", "-c", script, artifacts=kept)
    first = installation.finished("stores")
    assert first["phase"] == "Succeeded", first
    together, large = first["output"]["stdoutTail"].splitlines()
    digest = hashlib.sha256(f"{large.split()[0]}  large\n".encode()).hexdigest()
    told = {each["name"]: (each["files"], each["bytes"], each["digest"]) for each in first["artifacts"]}
    assert told["large"] == (1, MEBIBYTES << 20, f"sha256:{digest}")
    assert told["d"][:2] == (PARTS, PARTS * 800_000)
    assert store.bytes_of("blobs") == (MEBIBYTES << 20) + PARTS * 800_000
    assert any(key.startswith(f"tasks/{installation.namespace}/stores/") for key in keys(store.server, store.where))

    was = installation.operators()
    installation.kill()
    installation.ready()
    assert not {*was} & {*installation.operators()}
    installation.run(
        "mounts-stored", "sh", "-c", "cat /in/* | busybox sha256sum",
        volumes=[{"name": "a", "artifact": {"task": "stores", "name": "d"}}],
        volumeMounts=[{"name": "a", "mountPath": "/in"}],
    )  # fmt: skip
    second = installation.finished("mounts-stored")
    assert (second["phase"], second["output"].get("stdoutTail")) == ("Succeeded", f"{together}\n"), second
    assert second["volumes"][0]["digest"] == told["d"][2]
    assert SECRET not in json.dumps([first, second, installation.get("jobs"), installation.get("events")])
    assert SECRET not in installation.logs()


def test_what_the_store_does_not_take_fails_the_task_and_says_so(installation: Installation, store: Store) -> None:
    store.server.server.stop()
    try:
        kept = [{"name": "d", "path": "d"}]
        installation.run("not-kept", "sh", "-c", "echo x >d", artifacts=kept)
        status = installation.finished("not-kept")
    finally:
        store.server.server.start()
    assert status["attempts"][-1]["reason"] == "ArtifactNotStored", status
    assert "nothing answers there" in status["message"]
    assert "artifacts" not in status
