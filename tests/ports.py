"""Allocates ports for servers of tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

_FIRST, _SHARE, _WORKERS = 12_000, 1_125, 16
"""The range of ports. It is below the kernel's ephemeral ports and Kubernetes' node ports, so that no other program
takes a port before the test's server does. Each worker of a test run has its own share."""
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_numbers = itertools.count(random.randrange(_SHARE))


def free_port() -> int:
    """Returns a TCP port on which nothing listens on any address. This process returns each port once."""
    for number in itertools.islice(_numbers, _SHARE):
        port = _FIRST + _worker * _SHARE + number % _SHARE
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise RuntimeError("all ports of this test worker are taken")
