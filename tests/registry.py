"""An image registry for tests, with one image and a password."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from dockers import tree

USER, PASSWORD = "robot", "canary-password"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@asynccontextmanager
async def registry(repository: str = "shop", tag: str = "v1") -> AsyncIterator[str]:
    """Starts the registry and yields its address; `ADDRESS/shop:v1` can be pulled."""
    layer = tree()
    packed = gzip.compress(layer)
    root = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
    described = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _about(config, "application/vnd.docker.container.image.v1+json"),
        "layers": [_about(packed, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
    }
    manifest = json.dumps(described).encode()
    blobs = {_digest(blob): blob for blob in (config, packed)}
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != expected:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        path = request.path.removeprefix("/v2/")
        if path == "":
            return web.Response(text="{}")
        if path in {f"{repository}/manifests/{tag}", f"{repository}/manifests/{_digest(manifest)}"}:
            headers = {"Docker-Content-Digest": _digest(manifest)}
            return web.Response(body=manifest, content_type=_MANIFEST, headers=headers)
        if (blob := blobs.get(path.rpartition("/")[2])) is not None:
            return web.Response(body=blob)
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return web.json_response(error, status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _about(blob: bytes, media: str) -> dict[str, object]:
    return {"mediaType": media, "size": len(blob), "digest": _digest(blob)}
