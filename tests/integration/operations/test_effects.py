"""What has taken place is not done again, whatever breaks afterwards: each effect is counted where it happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from aiohttp import web

import supervised
from dockers import docker, make_image, needs_docker, remove_image
from remit.api.executiontaskstatus import AttemptStatus
from remit.backends import AttemptRequest, Outcome
from remit.backends import Command as Program
from remit.backends.docker import Engine
from remit.execution import runner
from remit.execution.output import OutputWriter
from remit.execution.runner import Attempt, Runner
from remit.execution.store import Run, RunStore
from remit.operations import Work
from remit.operations.container import ContainerPerformer
from remit.operations.database import PostgresPerformer, RedisPerformer
from remit.operations.file import FilePerformer
from remit.operations.http import HttpPerformer
from remit.operations.process import ProcessPerformer, Supervision
from remit.sandbox import Confinement, probe_host
from remit.sandbox import Limits as SandboxLimits
from remit.telemetry import Redactor
from servers import postgres, valkey
from webserver import answering

from .conftest import Desk

ATTEMPTS = 4
CONNECTION = {"name": "s", "key": "url"}
NOW = "2026-01-01T00:00:00Z"


@dataclass
class Case:
    """An operation that is not safe to repeat, and how often it took place."""

    desk: Desk
    work: Callable[[], Work]
    count: Callable[[], Awaitable[int]]


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


FAULTS: dict[str, tuple[Any, str, BaseException]] = {
    "writing the output": (OutputWriter, "write", MemoryError()),
    "closing the output": (OutputWriter, "close", KeyError("stdout")),
    "redaction": (runner, "redacted", RecursionError()),
    "encoding the result": (Run, "ended", TypeError("Integer exceeds 64-bit range")),
    "a full disk": (Run, "ended", OSError(errno.ENOSPC, "No space left on device")),
}


@contextlib.asynccontextmanager
async def of_redis(folder: Path) -> AsyncIterator[Case]:
    server, url = valkey(folder)
    server.start()
    desk = Desk(RedisPerformer(), [{"databases": {"redis": {"secrets": ["s"], "commands": ["INCR"]}}}])

    async def count() -> int:
        with redis.Redis.from_url(url) as client:
            return int(client.get("n") or 0)

    operation = {"connection": CONNECTION, "commands": [["INCR", "n"]]}
    try:
        yield Case(desk, lambda: desk.work({"connection": url.encode()}, redis=operation), count)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def of_postgres(folder: Path) -> AsyncIterator[Case]:
    server, url = postgres(folder)
    server.start()
    desk = Desk(PostgresPerformer(), [{"databases": {"postgres": {"secrets": ["s"], "statements": ["insert"]}}}])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (i int)")

    async def count() -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM t").fetchone()
            return int(row[0]) if row else 0

    operation = {"connection": CONNECTION, "statements": [{"sql": "INSERT INTO t VALUES (1)"}]}
    try:
        yield Case(desk, lambda: desk.work({"connection": url.encode()}, postgres=operation), count)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def of_http(folder: Path) -> AsyncIterator[Case]:
    seen = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(text="done")

    async def count() -> int:
        return len(seen)

    async with answering(answer) as port:
        rule = {"hosts": ["127.0.0.1"], "ports": [port], "methods": ["POST"], "addresses": ["127.0.0.0/8"]}
        desk = Desk(HttpPerformer(), [{"http": {"allow": [rule]}}])
        yield Case(desk, lambda: desk.work(http={"url": f"http://127.0.0.1:{port}/", "method": "POST"}), count)


@contextlib.asynccontextmanager
async def of_file(folder: Path) -> AsyncIterator[Case]:
    path = folder / "log"
    path.touch()
    rule = {"paths": [f"{folder}/**"], "operations": ["append"]}
    desk = Desk(FilePerformer(), [{"files": {"allow": [rule]}}])

    async def count() -> int:
        return len(path.read_text())

    yield Case(desk, lambda: desk.work(file={"operation": "append", "path": str(path), "content": "x"}), count)


@contextlib.asynccontextmanager
async def of_process(folder: Path) -> AsyncIterator[Case]:
    desk = Desk(ProcessPerformer(Supervision(folder, probe_host())))
    request = AttemptRequest(
        id="uid-1",
        command=Program(("echo", "x"), "/bin/echo"),
        confinement=Confinement(limits=SandboxLimits(), network="none", require=frozenset()),
        timeout_seconds=30,
    )

    def work() -> Work:
        return replace(desk.work(process={"action": "start", "name": "p", "argv": ["echo", "x"]}), run=request)

    async def count() -> int:
        await supervised.ended(folder)
        return (folder / "ns" / "p" / "stdout.log").read_text().count("x")

    yield Case(desk, work, count)


@contextlib.asynccontextmanager
async def of_container(folder: Path) -> AsyncIterator[Case]:
    needs_docker()
    image, name = make_image(), f"remit-test-{folder.name}"
    desk = Desk(ContainerPerformer(Engine()))
    argv = ["sh", "-c", "echo x >> /tmp/began; echo said"]
    marks = ["--label", "remit.dev/namespace=ns", "--label", "remit.dev/task-uid=u"]
    docker("run", "-d", "--network=none", "--name", name, *marks, image, "/bin/sleep", "600")

    async def count() -> int:
        return (await asyncio.to_thread(docker, "exec", name, "cat", "/tmp/began")).stdout.count(b"x")

    try:
        yield Case(desk, lambda: desk.work(container={"action": "exec", "name": name, "argv": argv}), count)
    finally:
        docker("rm", "-fv", name)
        remove_image(image)


OPERATIONS = {
    "redis": of_redis,
    "postgres": of_postgres,
    "http": of_http,
    "file": of_file,
    "process": of_process,
    "container": of_container,
}


async def retried(case: Case, root: Path) -> list[Outcome]:
    """Attempts of one task, as often as `maxRetries: 3` and the results allow."""
    results: list[Outcome] = []
    ended = asyncio.Event()
    operation = case.work().grant.request.operation
    running = Runner({}, RunStore(root), Redactor(), lambda _: ended.set(), {operation: case.desk.performer})
    for number in range(1, ATTEMPTS + 1):
        work = replace(case.work(), id=f"u-{number}")
        ended.clear()
        running.start(Attempt("ns/t", "ns", "u", "process", work, 1000, 100, operation=operation))
        await asyncio.wait_for(ended.wait(), 60)
        recorded = AttemptStatus.model_validate({"number": number, "id": work.id, "startedAt": NOW})
        results.append(await running.collect("ns", "u", recorded, 100))
        if results[-1].reason == "Completed" or not results[-1].retryable:
            break
    return results


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_no_failure_after_an_effect_repeats_it(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / operation).mkdir()
    async with OPERATIONS[operation](tmp_path / operation) as case, contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(case.desk.performer.close)
        for number, (fault, (where, name, error)) in enumerate(FAULTS.items(), start=1):
            with monkeypatch.context() as broken:
                broken.setattr(where, name, raising(error))
                (*_, result) = await retried(case, tmp_path / "runs" / str(number))
            assert await case.count() == number, fault
            if fault == "a full disk" or (operation, fault) == ("file", "writing the output"):
                assert result.reason == "Completed", fault
            else:
                assert (result.reason, result.retryable) == ("InternalError", False), fault
                assert "; " in result.message, "what may have taken place is told"
