"""An imitation of the part of a kubelet from which an API server reads logs, over TLS."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from remit.controlplane.certificates import ensure_tls

NODE = "imitation"


class Kubelet:
    """The kubelet. `logs` has the output of each container by pod. With `follow`, output that is added later is sent
    too, until `over` contains the pod."""

    def __init__(self) -> None:
        self.logs: dict[str, bytes] = {}
        self.over: set[str] = set()
        self.asked: list[dict[str, str]] = []
        """Received requests for logs: their queries, with the container as `container`."""
        self.port = 0

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Kubelet]:
        """Serves in a separate thread."""
        folder.mkdir()
        tls = ensure_tls(folder, ["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        loop, ready = asyncio.new_event_loop(), threading.Event()
        stopping = asyncio.Event()

        async def serve() -> None:
            app = web.Application()
            app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            self.port = runner.addresses[0][1]
            ready.set()
            await stopping.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert ready.wait(60)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join()
            loop.close()

    @property
    def node(self) -> dict[str, Any]:
        """Returns the Node object with the status by which an API server finds the kubelet."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            },
        }

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = request.match_info["pod"]
        self.asked.append({**request.query, "container": request.match_info["container"]})
        if pod not in self.logs:
            return web.Response(status=400, text=f"container in pod {pod} is waiting to start: ContainerCreating")
        response = web.StreamResponse()
        await response.prepare(request)
        given = 0
        while True:
            new = self.logs[pod][given:]
            given += len(new)
            if new:
                await response.write(new)
            if request.query.get("follow") != "true" or pod in self.over:
                break
            await asyncio.sleep(0.02)
        await response.write_eof()
        return response
