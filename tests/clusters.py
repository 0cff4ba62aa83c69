"""A Kubernetes cluster for tests: whichever one they are given.

REMIT_TEST_KUBECONFIG names the kubeconfig of a cluster whose Services this machine reaches; REMIT_TEST_LOAD_IMAGE is
the command that makes an image of the local Docker engine known to its nodes, such as `kind load docker-image`.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
from pathlib import Path

import dockers
from conftest import require
from dockers import docker, needs_docker
from pythonimage import PYTHON, tree

IMAGE = "remit-test-shop:v1"
BUSYBOX = "remit-test-busybox:v1"
USUAL = "remit-test-usual:v1"
PORT = 8080
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
    """Skip where there is no cluster."""
    named = os.environ.get("REMIT_TEST_KUBECONFIG", "")
    require("cluster", named, "name a cluster's kubeconfig in REMIT_TEST_KUBECONFIG")
    return Path(named)


@functools.cache
def shop_image() -> str:
    """An image with a small web server, on every node. What it serves and how it fares its environment says:
    VERSION, GREETING, SICK and CRASH."""
    needs_docker()
    made = docker("import", "-c", f'CMD ["{PYTHON}", "-I", "/app.py"]', "-", IMAGE, input=tree({"/app.py": _APP}))
    assert made.returncode == 0, made.stderr
    return _loaded(IMAGE)


@functools.cache
def busybox_image() -> str:
    """An image with a shell and the usual small programs, on every node."""
    needs_docker()
    made = docker("import", "-", BUSYBOX, input=dockers.tree())
    assert made.returncode == 0, made.stderr
    return _loaded(BUSYBOX)


@functools.cache
def usual_image() -> str:
    """An image with Python and some of the programs that a Debian has, on every node."""
    needs_docker()
    made = docker(
        "import", "-", USUAL, input=tree(programs=("sh", "echo", "printenv", "cat", "grep", "sleep", "tail", "ls"))
    )
    assert made.returncode == 0, made.stderr
    return _loaded(USUAL)


def _loaded(name: str) -> str:
    load = shlex.split(os.environ.get("REMIT_TEST_LOAD_IMAGE", ""))
    require("cluster", load, "say in REMIT_TEST_LOAD_IMAGE how the nodes get an image of this machine")
    subprocess.run([*load, name], check=True, capture_output=True, timeout=120)
    return name
