"""What the examples need that a test machine has elsewhere: their servers, folders and images.

A stage yields what has to stand in an example instead of what is written there for users. Each text must occur in the
example, so that the two cannot drift apart; nothing else of an example is changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from aiohttp import web

import servers
import shops
import supervised
from dockers import docker, make_image, needs_docker, remove_image
from webserver import answering

Changes = dict[str, str]
Stage = Callable[[Path], contextlib.AbstractAsyncContextManager[Changes]]
AUTHORIZATION = "Bearer not-really-a-token-4711"
CONTAINER = "remit-example-counter"


@contextlib.asynccontextmanager
async def as_it_stands(folder: Path) -> AsyncIterator[Changes]:
    yield {}


@contextlib.asynccontextmanager
async def folder_of_the_test(folder: Path) -> AsyncIterator[Changes]:
    """Files are written to a folder of the test's own."""
    yield {"/var/tmp/": f"{folder}/"}


@contextlib.asynccontextmanager
async def toolchain(folder: Path) -> AsyncIterator[Changes]:
    """A program that is not in /usr, with a module of its own."""
    venv = folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "greeting").write_text("hello")
    program = venv / "bin" / "greet"
    program.write_text('#!/bin/sh\nread word < "${0%/bin/greet}/greeting"\necho "$word, $1"\n')
    program.chmod(0o755)
    yield {"/opt/venv": str(venv)}


@contextlib.asynccontextmanager
async def no_process_left(folder: Path) -> AsyncIterator[Changes]:
    """What outlives its operator ends with the test."""
    try:
        yield {}
    finally:
        await supervised.end(folder.parent / "state" / "processes")


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Changes]:
    """A page to serve, and ports that are free."""
    source = folder / "remit-example-site-v1"
    source.mkdir()
    (source / "index.html").write_text("<h1>One</h1>")
    live, preview = servers.free_port(), servers.free_port()
    async with shops.GROUNDS[0].at(folder, folder.parent / "state"):
        yield {"/var/tmp/": f"{folder}/", "8080": str(live), "8081": str(preview)}


@contextlib.asynccontextmanager
async def boxed_site(folder: Path) -> AsyncIterator[Changes]:
    """An image with a server in it, instead of one from a registry."""
    async with shops.GROUNDS[1].at(folder, folder.parent / "state") as spec_of:
        spec = spec_of("v1", ())
        name = spec["artifact"]["image"].rpartition(":")[0]
        command = spec["target"]["docker"]["command"]
        yield {
            "nginxinc/nginx-unprivileged:1.29": f"{name}:v1",
            "['nginxinc/nginx-unprivileged:1.*']": f"['{name}:*']",
            "  limits:": f"  commands: {{allow: [{{executable: {command[0]}}}]}}\n  limits:",
            "docker: {} ": f"docker: {{command: {command}}} ",
            "published: 8082": f"published: {servers.free_port()}",
        }


@contextlib.asynccontextmanager
async def website(folder: Path) -> AsyncIterator[Changes]:
    """A server on loopback, which a policy has to name as such, without TLS."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        known = request.headers.get("Authorization") == AUTHORIZATION
        return web.Response(status=200 if known else 401, text="<h1>Example Domain</h1>")

    async with answering(answer) as port:
        yield {
            "https://example.com/": f"http://127.0.0.1:{port}/",
            "[example.com, '*.example.com']": "[127.0.0.1]",
            "ports: [443]": f"ports: [{port}]",
        }


@contextlib.asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Changes]:
    with _running(*servers.postgres(folder)) as url:
        yield {"postgresql://reader:change-me@postgres.example:5432/shop?sslmode=require": url}


@contextlib.asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Changes]:
    with _running(*servers.valkey(folder)) as url:
        yield {"rediss://default:change-me@redis.example:6379/0": url}


@contextlib.asynccontextmanager
async def an_image(folder: Path) -> AsyncIterator[Changes]:
    """One made on the spot, for the machine's engine."""
    needs_docker()
    image = make_image()
    try:
        yield {"busybox:1.36": image, "'busybox:1.*'": "'remit-test:*'"}
    finally:
        remove_image(image)


@contextlib.asynccontextmanager
async def docker_engine(folder: Path) -> AsyncIterator[Changes]:
    """The machine's engine, with an image made on the spot, and a container name that nobody else uses."""
    needs_docker()
    image = make_image()
    name = f"{CONTAINER}-{image.partition(':')[2][:12]}"
    try:
        yield {"busybox:1.36": image, "'busybox:1.*'": "'remit-test:*'", CONTAINER: name}
    finally:
        docker("rm", "-fv", name)
        remove_image(image)


@contextlib.contextmanager
def _running(server: servers.Server, url: str) -> Iterator[str]:
    server.start()
    try:
        yield url
    finally:
        server.stop()
