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

from conftest import require
from dockers import docker, needs_docker
from pythonimage import PYTHON, tree

IMAGE = "remit-test-shop:v1"
PORT = 8080
_APP = """
import http.server, os, signal, sys, threading

if os.environ.get("CRASH"):
    sys.exit("no database")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        sick = self.path == "/healthz" and os.environ.get("SICK")
        body = (os.environ.get("VERSION", "") + os.environ.get("GREETING", "")).encode()
        self.send_response(500 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        if stopping.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

stopping = threading.Event()
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: (stopping.set(), threading.Thread(target=server.shutdown).start()))
server.serve_forever()
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
    load = shlex.split(os.environ.get("REMIT_TEST_LOAD_IMAGE", ""))
    require("cluster", load, "say in REMIT_TEST_LOAD_IMAGE how the nodes get an image of this machine")
    subprocess.run([*load, IMAGE], check=True, capture_output=True, timeout=120)
    return IMAGE
