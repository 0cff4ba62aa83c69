"""Fixtures: Remit's control plane and, if its binaries are found, a real kube-apiserver to compare with.

CONFORMANCE_SERVERS names the servers to ask (`kube-apiserver,embedded` unless it is set).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conformance.harness.play import prepare
from conformance.harness.servers import Server, embedded, kube_apiserver, real_server_available


@pytest.fixture(scope="package")  # package scope, because an idle kube-apiserver still uses a twentieth of a core
def contestants(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    wanted = os.environ.get("CONFORMANCE_SERVERS", "kube-apiserver,embedded").split(",")
    home: Path = tmp_path_factory.mktemp("servers")
    crds = [crd for item in request.session.items for crd in getattr(getattr(item, "function", None), "crds", ())]
    with ExitStack() as running:
        servers = []
        if "kube-apiserver" in wanted and real_server_available():
            servers.append(running.enter_context(kube_apiserver(home / "kube-apiserver")))
        if "embedded" in wanted:
            servers.append(running.enter_context(embedded(home / "embedded")))
        for server in servers:
            asyncio.run(prepare(server, crds))
        yield servers
