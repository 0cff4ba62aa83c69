"""Provides what the examples need that a test machine has elsewhere: servers, folders and images.

A stage yields replacements for texts of an example. Each text must occur in the example, so that the two cannot drift
apart; nothing else of an example is changed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from aiohttp import web

import servers
import shops
import supervised
from dockers import docker, make_image, needs_docker, remove_image
from parts import require
from webserver import answering

from . import repositories

Changes = dict[str, str]
Stage = Callable[[Path], contextlib.AbstractAsyncContextManager[Changes]]
AUTHORIZATION = "Bearer not-really-a-token-4711"
CONTAINER = "remit-example-counter"


@contextlib.asynccontextmanager
async def as_it_stands(folder: Path) -> AsyncIterator[Changes]:
    yield {}


@contextlib.asynccontextmanager
async def folder_of_the_test(folder: Path) -> AsyncIterator[Changes]:
    """Files are written to a folder of the test."""
    yield {"/var/tmp/": f"{folder}/"}


def folder_of_a_user(written: str, make: Callable[[Path], Path]) -> Stage:
    """Replaces the folder that is `written` in the example by one that `make` creates."""

    @contextlib.asynccontextmanager
    async def stage(folder: Path) -> AsyncIterator[Changes]:
        yield {written: str(make(folder / Path(written).name))}

    return stage


tested_shop = folder_of_a_user("/srv/shop", repositories.tested_with_a_dependency)
built_shop = folder_of_a_user("/srv/shop", repositories.built_by_setuptools)
logged_requests = folder_of_a_user("/var/log/nginx/access.log", repositories.access_log)
tested_cart = folder_of_a_user("/srv/cart", repositories.tested_by_npm)
logs_of_a_shop = folder_of_a_user("/var/log/shop", repositories.logs_of_some_age)


@contextlib.asynccontextmanager
async def toolchain(folder: Path) -> AsyncIterator[Changes]:
    """Provides a program outside /usr, with a module of its own."""
    venv = folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "greeting").write_text("hello")
    program = venv / "bin" / "greet"
    program.write_text('#!/bin/sh\nread word < "${0%/bin/greet}/greeting"\necho "$word, $1"\n')
    program.chmod(0o755)
    yield {"/opt/venv": str(venv)}


@contextlib.asynccontextmanager
async def no_process_left(folder: Path) -> AsyncIterator[Changes]:
    """Ends processes that outlive their operator at the end of the test."""
    try:
        yield {}
    finally:
        await supervised.end(folder.parent / "state" / "processes")


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Changes]:
    """Provides a page to serve, and free ports."""
    source = folder / "remit-example-site-v1"
    source.mkdir()
    (source / "index.html").write_text("<h1>One</h1>")
    live, preview = servers.free_port(), servers.free_port()
    async with shops.GROUNDS[0].at(folder, folder.parent / "state"):
        yield {"/var/tmp/": f"{folder}/", "8080": str(live), "8081": str(preview)}


@contextlib.asynccontextmanager
async def boxed_site(folder: Path) -> AsyncIterator[Changes]:
    """Provides an image with a server, instead of one from a registry."""
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
    """Provides a server without TLS on the loopback interface, which a policy must list explicitly."""

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
async def postgres_with_a_shop(folder: Path) -> AsyncIterator[Changes]:
    """Provides two databases: one with data to dump, and an empty one."""
    tables = ["CREATE TABLE orders (item text)", "INSERT INTO orders VALUES ('a lamp'), ('a chair')"]
    async with _databases(folder, shop=tables, shop_trial=[]) as changes:
        yield {**changes, "value: backup": "value: admin"}


@contextlib.asynccontextmanager
async def blog_with_a_migration(folder: Path) -> AsyncIterator[Changes]:
    migration = "ALTER TABLE posts ADD COLUMN IF NOT EXISTS likes integer NOT NULL DEFAULT 7;"
    repositories.folder_of(folder / "blog" / "v1", {"index.html": "<h1>Blog</h1>", "migrate.sql": migration})
    tables = ["CREATE TABLE posts (title text)", "INSERT INTO posts VALUES ('First')"]
    async with _databases(folder, blog=tables) as changes, shops.GROUNDS[0].at(folder, folder.parent / "state"):
        moved = {"/srv/blog": str(folder / "blog"), "8083": str(servers.free_port())}
        yield {**changes, **moved, "value: blog": "value: admin"}


@contextlib.asynccontextmanager
async def _databases(folder: Path, **databases: list[str]) -> AsyncIterator[Changes]:
    """Provides a server of the same release as the host's pg_dump, which refuses newer ones, on which these statements
    were run."""
    require("postgres", shutil.which("pg_dump") and shutil.which("psql"), "apt install postgresql-client")
    with _running(*servers.postgres(folder, encrypted=True)) as url:
        port = url.rpartition("/")[0].rpartition(":")[2]
        for database, statements in databases.items():
            ask_postgres(url, "postgres", f"CREATE DATABASE {database}")
            for statement in statements:
                ask_postgres(url, database, statement)
        yield {"value: postgres.example": "value: 127.0.0.1", '"5432"': f'"{port}"', "change-me": "canary-password"}


def ask_postgres(url: str, database: str, statement: str) -> str:
    """Returns the result of `statement`, one row per line."""
    command = ["psql", "--no-psqlrc", "-qtA", "-v", "ON_ERROR_STOP=1", "-c", statement]
    done = subprocess.run(
        [*command, f"{url.rpartition('/')[0]}/{database}"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@contextlib.asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Changes]:
    with _running(*servers.valkey(folder)) as url:
        yield {"rediss://default:change-me@redis.example:6379/0": url}


@contextlib.asynccontextmanager
async def an_image(folder: Path) -> AsyncIterator[Changes]:
    """Builds an image on the machine's engine."""
    needs_docker()
    image = make_image()
    try:
        yield {"busybox:1.36": image, "'busybox:1.*'": "'remit-test:*'"}
    finally:
        remove_image(image)


@contextlib.asynccontextmanager
async def docker_engine(folder: Path) -> AsyncIterator[Changes]:
    """Provides the machine's engine with an image that is built on the spot, and an unused container name."""
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
