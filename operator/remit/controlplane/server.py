"""The embedded control plane as one object: start it, use its kubeconfig, stop it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from remit.controlplane.certificates import ensure_tls
from remit.controlplane.controllers import Controllers
from remit.controlplane.http.dispatch import Dispatcher
from remit.controlplane.http.documents import Documents
from remit.controlplane.http.front import Front
from remit.controlplane.http.listener import Listener
from remit.controlplane.http.metrics import RequestMetrics
from remit.controlplane.http.reviews import Reviews
from remit.controlplane.kubeconfig import ensure_token, write_kubeconfig
from remit.controlplane.resources import Registry, ServedResource
from remit.controlplane.resources.builtin import builtin_resources, check_stored
from remit.controlplane.schema.celworker import WORKER
from remit.controlplane.startup import DATABASE, lock_state, open_sockets, raise_descriptor_limit
from remit.controlplane.storage import Store
from remit.controlplane.verbs.cluster import Cluster
from remit.privatefiles import private_directory

STOP_SECONDS = 5.0


class ControlPlane:
    """A Kubernetes API on one address, with its state in one directory.

        async with ControlPlane(Path("~/.remit").expanduser()) as control_plane:
            print(control_plane.url, control_plane.kubeconfig)

    The directory (0700) holds `state.db`, `tls/`, `token` and `kubeconfig`. `port` 0 takes a free one.
    Raises `InvalidInput` when the directory is in use by another process or belongs to another user, or the port is
    taken.

    `lock` and `sockets` are what `startup.lock_state` and `startup.open_sockets` gave, where a supervisor has taken
    them; `stop` closes them. `extensions` are written into the kubeconfig, each with `name` and `extension`.
    """

    def __init__(
        self,
        state_dir: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        lock: int | None = None,
        sockets: Sequence[socket.socket] = (),
        extensions: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.state_dir = state_dir
        self.kubeconfig = state_dir / "kubeconfig"
        self.host = host
        self.port = port
        self.extensions = extensions
        self._lock = lock
        self._sockets = [*sockets]
        self._store: Store | None = None
        self._controllers: Controllers | None = None
        self._front: Front | None = None
        self._listener: Listener | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done, with an exception, once the storage has refused a write: nothing works until a restart."""
        if self._store is None:
            raise RuntimeError("the control plane is not started")
        return self._store.failed

    async def start(self) -> None:
        private_directory(self.state_dir)
        database = self.state_dir / DATABASE
        try:
            if self._lock is None:
                self._lock = lock_state(database)
            if not self._sockets:
                self._sockets = await asyncio.to_thread(open_sockets, self.host, self.port)
            self.port = self._sockets[0].getsockname()[1]
            builtin = builtin_resources()
            self._store = Store(database, locked=True, check=check_stored(builtin))
            await self._serve(self._store, builtin)
        except BaseException:
            await self.stop()
            raise

    async def _serve(self, store: Store, builtin: list[ServedResource]) -> None:
        registry = Registry()
        for resource in builtin:
            registry.replace(resource.group, resource.plural, [resource])
        cluster = Cluster(store, registry)
        store.start()
        self._controllers = Controllers(cluster)
        await self._controllers.start()

        token = ensure_token(self.state_dir / "token")
        tls = ensure_tls(self.state_dir / "tls", list(dict.fromkeys([self.host, "127.0.0.1", "::1", "localhost"])))
        metrics = RequestMetrics()
        documents = Documents(cluster, self.host, metrics)
        self._front = Front(Dispatcher(cluster, documents, Reviews(token)), token, registry, metrics)
        self._listener = Listener(self._front, tls.server_context(), descriptors=raise_descriptor_limit())
        self._front.on_authenticated = self._listener.authenticated
        self._listener.listen(self._sockets)
        write_kubeconfig(self.kubeconfig, self.url, tls.authority, token, self.extensions)

    async def stop(self) -> None:
        """End the watches, finish requests under way, close the store. May be called twice."""
        if self._front:
            self._front.stop()
        if self._listener:
            listener, self._listener = self._listener, None
            await listener.stop(STOP_SECONDS)
        if self._controllers:
            await self._controllers.stop()
            self._controllers = None
        await asyncio.to_thread(WORKER.close)
        if self._store:
            store, self._store = self._store, None
            await store.stop()
        while self._sockets:
            self._sockets.pop().close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
