"""Tests that effects are never repeated: with faults at each await of each operation, against real servers, with the
real decision about retries. Each effect is counted where it happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import structlog.testing
from aiohttp import web

import remit.operations
import supervised
from dockers import docker, make_image, needs_docker, remove_image
from faultpoints import Fault, Lines, Tally, disturbed
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.backends.base import AttemptRequest, OutputSink
from remit.backends.base import Command as Program
from remit.backends.breaker import Breaker
from remit.backends.docker.engine import Engine
from remit.backends.outcome import Outcome
from remit.execution import operations, runner
from remit.execution.lifecycle import RetryAt, after_attempt
from remit.execution.output import OutputWriter
from remit.execution.runner import Attempt, Runner
from remit.execution.store import Run, RunStore
from remit.operations.base import Effect, OperationExecutor, OperationRequest
from remit.operations.container.executor import ContainerExecutor
from remit.operations.database.postgres import PostgresExecutor
from remit.operations.database.redis import RedisExecutor
from remit.operations.file.executor import FileExecutor
from remit.operations.http.executor import HttpExecutor
from remit.operations.process.executor import ProcessExecutor
from remit.operations.process.supervision import Supervision, Wanted
from remit.sandbox import Confinement, probe_host
from remit.sandbox import Limits as SandboxLimits
from remit.telemetry.redact import Redactor
from servers import postgres, valkey
from support import soaking
from webserver import answering

from .conftest import Desk

CONNECTION = {"name": "s", "key": "url"}
ATTEMPTS = 4
NOW = "2026-01-01T00:00:00Z"
FOLDER = Path(next(iter(remit.operations.__path__)))


@dataclass
class Case:
    """An operation that is not safe to repeat."""

    executor: Callable[[], OperationExecutor]
    policy: dict[str, Any]
    work: Callable[[Desk, int], OperationRequest]
    """Returns the operation of the run with this number."""
    count: Callable[[int], Awaitable[int]]
    """Returns how often the run with this number took place."""
    undone_by_cancel: bool = False
    """Whether a cancelled run is certainly dead, so that a retry does no harm."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Suppresses tracebacks, which take most of the time."""
    with structlog.testing.capture_logs():
        yield


# ---------------------------------------------------------------- the operations


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, url = valkey(tmp_path_factory.mktemp("redis"))
    server.start()
    yield url
    server.stop()


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, url = postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (i int)")
    yield url
    server.stop()


@contextlib.asynccontextmanager
async def of_redis(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
    url = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(url) as client:

        async def count(number: int) -> int:
            return int(client.get(f"{folder}-{number}") or 0)

        def work(desk: Desk, number: int) -> OperationRequest:
            operation = {"connection": CONNECTION, "commands": [["INCR", f"{folder}-{number}"]]}
            return desk.work({"connection": url.encode()}, redis=operation)

        policy = {"databases": {"redis": {"secrets": ["s"], "commands": ["INCR"]}}}
        yield Case(RedisExecutor, policy, work, count)


@contextlib.asynccontextmanager
async def of_postgres(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
    url = request.getfixturevalue("postgres_url")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE t")

        async def count(number: int) -> int:
            row = connection.execute("SELECT count(*) FROM t WHERE i = %s", [number]).fetchone()
            return int(row[0]) if row else 0

        def work(desk: Desk, number: int) -> OperationRequest:
            operation = {"connection": CONNECTION, "statements": [{"sql": f"INSERT INTO t VALUES ({number})"}]}
            return desk.work({"connection": url.encode()}, postgres=operation)

        policy = {"databases": {"postgres": {"secrets": ["s"], "statements": ["insert"]}}}
        yield Case(PostgresExecutor, policy, work, count)


@contextlib.asynccontextmanager
async def of_http(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(text="done")

    async def count(number: int) -> int:
        return seen.count(f"/{number}")

    async with answering(answer) as port:

        def work(desk: Desk, number: int) -> OperationRequest:
            return desk.work(http={"url": f"http://127.0.0.1:{port}/{number}", "method": "POST"})

        rule = {"hosts": ["127.0.0.1"], "ports": [port], "methods": ["POST"], "addresses": ["127.0.0.0/8"]}
        yield Case(HttpExecutor, {"http": {"allow": [rule]}}, work, count)


def of_file(
    operation: str, prepare: Callable[[Path], None], counted: Callable[[Path], int], **fields: Any
) -> Callable[..., contextlib.AbstractAsyncContextManager[Case]]:
    @contextlib.asynccontextmanager
    async def opened(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
        async def count(number: int) -> int:
            return counted(folder / str(number))

        def work(desk: Desk, number: int) -> OperationRequest:
            path = folder / str(number)
            prepare(path)
            to = {"destination": f"{path}.moved"} if operation == "move" else {}
            return desk.work(file={"operation": operation, "path": str(path), **fields, **to})

        rule = {"paths": [f"{folder}/**"], "operations": [operation]}
        yield Case(FileExecutor, {"files": {"allow": [rule]}}, work, count)

    return opened


@contextlib.asynccontextmanager
async def of_start(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
    host = probe_host()
    asked = AttemptRequest(
        id="uid-1",
        command=Program(("echo", "x"), "/bin/echo"),
        confinement=Confinement(limits=SandboxLimits(), network="none", require=frozenset()),
        timeout_seconds=30,
    )

    def work(desk: Desk, number: int) -> OperationRequest:
        return replace(desk.work(process={"action": "start", "name": f"p{number}", "argv": ["echo", "x"]}), run=asked)

    async def count(number: int) -> int:
        await supervised.ended(folder)
        log = folder / "ns" / f"p{number}" / "stdout.log"
        return log.read_text().count("x") if log.exists() else 0

    yield Case(lambda: ProcessExecutor(Supervision(folder, host)), {}, work, count, undone_by_cancel=True)


@contextlib.asynccontextmanager
async def of_signal(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
    supervision, log = Supervision(folder, probe_host()), folder / "ns" / "p" / "stdout.log"
    told: dict[int, int] = {}
    source = "trap 'echo x' USR1; trap 'echo y' USR2; echo y; while :; do sleep 600 & wait; kill $!; done"
    command = Program(("sh", "-c", source), "/bin/sh")
    confinement = Confinement(limits=SandboxLimits(), network="none", require=frozenset())
    await supervision.start(Wanted("ns", "p", AttemptRequest("uid-1", command, confinement, timeout_seconds=30)))

    def said(word: str) -> int:
        return log.read_text().split().count(word) if log.exists() else 0

    async def until_said(word: str, times: int) -> None:
        async with asyncio.timeout(60):
            while said(word) < times:
                await asyncio.sleep(0.005)

    def work(desk: Desk, number: int) -> OperationRequest:
        told.setdefault(number, said("x"))
        return desk.work(process={"action": "signal", "name": "p", "signal": "SIGUSR1"})

    async def count(number: int) -> int:
        """Counts after the process answered another signal, which it handles after all earlier ones."""
        heard = said("y")
        await supervision.signal("ns", "p", signal.SIGUSR2, Effect())
        await until_said("y", heard + 1)
        return said("x") - told[number]

    try:
        await until_said("y", 1)
        yield Case(lambda: ProcessExecutor(supervision), {}, work, count)
    finally:
        await supervision.stop("ns", "p")


@contextlib.asynccontextmanager
async def of_exec(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
    needs_docker()
    image, name = make_image(), f"remit-test-{folder.parent.name}-{folder.name}"
    marks = ["--label", "remit.dev/namespace=ns", "--label", "remit.dev/task-uid=u"]
    docker("run", "-d", "--network=none", "--name", name, *marks, image, "/bin/sleep", "600")

    def work(desk: Desk, number: int) -> OperationRequest:
        argv = ["sh", "-c", f"echo x >> /tmp/{number}; echo said"]
        return desk.work(container={"action": "exec", "name": name, "argv": argv})

    async def count(number: int) -> int:
        said = await asyncio.to_thread(docker, "exec", name, "sh", "-c", f"cat /tmp/{number} 2>&1 || true")
        return said.stdout.splitlines().count(b"x")

    try:
        yield Case(lambda: ContainerExecutor(Engine()), {}, work, count)
    finally:
        docker("rm", "-fv", name)
        remove_image(image)


def of_lives(action: str) -> Callable[..., contextlib.AbstractAsyncContextManager[Case]]:
    """Provides operations that start a container: `run` another one each time, `restart` the same one."""

    @contextlib.asynccontextmanager
    async def opened(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Case]:
        needs_docker()
        image, start = make_image(), f"remit-test-{folder.parent.name}-{folder.name}".replace("_", "-")
        argv = ["/bin/sh", "-c", "trap exit TERM; sleep 600 & wait"]
        marks = ["--label", "remit.dev/namespace=ns", "--label", "remit.dev/task-uid=u"]
        since: dict[int, float] = {}

        def name(number: int) -> str:
            return f"{start}-{number}" if action == "run" else start

        def work(desk: Desk, number: int) -> OperationRequest:
            since.setdefault(number, time.time())
            more = {"image": image, "argv": argv} if action == "run" else {}
            return desk.work(container={"action": action, "name": name(number), **more})

        async def count(number: int) -> int:
            span = ["--since", f"{since[number]:.9f}", "--until", f"{time.time():.9f}"]
            which = ["--filter", f"container={name(number)}", "--filter", "event=start", "--format", "x"]
            return (await asyncio.to_thread(docker, "events", *span, *which)).stdout.split().count(b"x")

        try:
            if action == "restart":
                docker("run", "-d", "--network=none", "--name", start, *marks, image, *argv)
            yield Case(lambda: ContainerExecutor(Engine()), {}, work, count)
        finally:
            docker("rm", "-fv", *(docker("ps", "-aq", "--filter", f"ancestor={image}").stdout.decode().split()))
            remove_image(image)

    return opened


def nothing(path: Path) -> None:
    """Does nothing: the file must not exist before."""


def make(path: Path) -> None:
    if not path.with_name(f"{path.name}.moved").exists():
        path.touch()


def make_once(path: Path) -> None:
    """Creates the file once, for an operation that removes it, so that a second attempt finds nothing."""
    if not (seen := path.with_name(f"{path.name}.moved")).exists():
        seen.touch()
        path.touch()


Opened = Callable[[pytest.FixtureRequest, Path], contextlib.AbstractAsyncContextManager[Case]]
FILES: dict[str, Opened] = {
    "append": of_file("append", make, lambda path: len(path.read_text()), content="x"),
    "create": of_file("create", nothing, lambda path: int(path.exists()), content="x"),
    "mkdir": of_file("mkdir", nothing, lambda path: int(path.exists())),
    "move": of_file("move", make, lambda path: int(not path.exists())),
    "delete": of_file("delete", make_once, lambda path: int(not path.exists())),
}
CHEAP: dict[str, Opened] = {"redis": of_redis, "postgres": of_postgres, "http": of_http, **FILES}
DEAR: dict[str, Opened] = {
    "start": of_start,
    "signal": of_signal,
    "exec": of_exec,
    "run": of_lives("run"),
    "restart": of_lives("restart"),
}


# ---------------------------------------------------------------- the faults


class Overdue:
    """Replaces asyncio in `operations`: its wait ends when a fault says so."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def come(self) -> None:
        self._over.set()

    async def wait(self, awaited: set[asyncio.Future[Any]], *, timeout: float, return_when: str) -> Any:
        over = asyncio.ensure_future(self._over.wait())
        try:
            return await asyncio.wait({*awaited, over}, timeout=timeout, return_when=return_when)
        finally:
            over.cancel()
            self._over.clear()


@dataclass
class Disturbed:
    """Creates an executor for each attempt, because a fault may leave one without a free connection. The first attempt
    has the fault."""

    make: Callable[[], OperationExecutor]
    disturb: Callable[[Any], Awaitable[str]]
    made: list[OperationExecutor] = field(default_factory=list)
    collects: bool = False
    """Whether connections that a fault during clean-up left open are garbage-collected before the next attempt."""
    breaker: Breaker | None = None

    async def execute(self, work: OperationRequest, output: OutputSink) -> str:
        if self.collects and len(self.made) == 1:
            gc.collect()
        self.made.append(self.make())
        performing = self.made[-1].execute(work, output)
        return await (self.disturb(performing) if len(self.made) == 1 else performing)

    async def close(self) -> None:
        for executor in self.made:
            await executor.close()


async def attempts(case: Case, root: Path, number: int, disturb: Callable[[Any], Awaitable[str]]) -> list[Outcome]:
    """Runs the attempts of one task with `maxRetries: 3`. The first one is disturbed."""
    outcomes: list[Outcome] = []
    ended = asyncio.Event()
    desk = Desk(Disturbed(case.executor, disturb, collects=case.undone_by_cancel), [case.policy])
    operation = case.work(desk, number).grant.request.operation
    running = Runner({}, RunStore(root), Redactor(), lambda _: ended.set(), {operation: desk.executor})
    task = ExecutionTask.parse(
        {"metadata": {"name": "t", "namespace": "ns"}, "spec": {"command": {"argv": ["x"]}, "retry": {"maxRetries": 3}}}
    )
    try:
        while True:
            work = replace(case.work(desk, number), id=f"u-{number}.{len(outcomes)}")
            ended.clear()
            running.start(Attempt("ns/t", "ns", "u", "process", work, 1000, 100, operation=operation))
            await asyncio.wait_for(ended.wait(), 60)
            recorded = AttemptStatus.model_validate({"number": 1, "id": work.id, "startedAt": NOW})
            outcomes.append(await running.collect("ns", "u", recorded, 100))
            step = after_attempt(task, outcomes[-1], now=datetime.now(UTC), draw=0.5)
            if not isinstance(step, RetryAt) or len(outcomes) == ATTEMPTS:
                return outcomes
    finally:
        await desk.executor.close()


async def judge(
    case: Case, number: int, outcomes: list[Outcome], where: str, tally: Tally, *, undone: bool = False
) -> None:
    first, last, count = outcomes[0], outcomes[-1], await case.count(number)
    tally.injected += 1
    if case.undone_by_cancel and undone and first.retryable:
        assert last.reason == "Completed", where
        assert 1 <= count <= 2, f"{where}: it took place {count} times: {outcomes}"
        return
    if not tally.was_refused(outcomes, count, where):
        return
    assert not first.retryable, where
    assert "; " in first.message, f"{where}: {first} does not tell what may have taken place"


FAULTS: dict[str, Callable[[int], Fault]] = {
    "connection": lambda point: Fault(point, ConnectionResetError(errno.ECONNRESET, "a fault")),
    "timeout": lambda point: Fault(point, TimeoutError("a fault")),
    "unexpected": lambda point: Fault(point, RuntimeError("a fault")),
    "cancelled by itself": lambda point: Fault(point, asyncio.CancelledError("a fault")),
    "overdue at once": lambda point: Fault(point, None, "instead"),
    "overdue afterwards": lambda point: Fault(point, None, "after"),
}
UNDOING = ("timeout", "cancelled by itself", "overdue at once", "overdue afterwards")
"""Faults after which everything that was started and can be ended has been ended."""
FEW = ("unexpected", "overdue at once")
"""The faults for operations whose every run starts programs."""


async def at_each_wait(case: Case, root: Path, faults: dict[str, Callable[[int], Fault]], monkeypatch: Any) -> Tally:
    tally, number = Tally(), 0
    for name, make_fault in faults.items():
        for point in range(1, 1000):
            number += 1
            overdue, fault = Overdue(), make_fault(point)
            with monkeypatch.context() as patched:
                patched.setattr(operations, "asyncio", overdue)
                disturb = functools.partial(disturbed, fault=fault, overdue=overdue.come)
                outcomes = await attempts(case, root, number, disturb)
            if not fault.met:
                assert [outcome.reason for outcome in outcomes] == ["Completed"], outcomes
                tally.undisturbed.append(name)
                break
            await judge(case, number, outcomes, f"{name} at wait {point}", tally, undone=name in UNDOING)
    assert tally.undisturbed == list(faults)
    return tally


LEAKS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
"""Ignores unclosed connections, because a fault may prevent their clean-up."""


@LEAKS
@pytest.mark.parametrize("operation", [*CHEAP, *DEAR])
async def test_no_fault_at_any_wait_repeats_an_effect(
    tmp_path: Path,
    operation: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder := tmp_path / operation).mkdir()
    faults = {name: FAULTS[name] for name in FAULTS if operation in CHEAP or soaking() or name in FEW}
    async with (CHEAP | DEAR)[operation](request, folder) as case:
        tally = await at_each_wait(case, tmp_path / "runs", faults, monkeypatch)
    print(operation, tally)
    gc.collect()
    assert tally.took_place, "no fault came after the effect"
    if operation not in FILES:
        assert tally.retried, "no fault came before the effect"


async def at_each_line(case: Case, root: Path) -> Tally:
    tally = Tally()
    for number in range(1, 10_000, 1 if soaking() else 5):
        lines = Lines(FOLDER, number)

        async def disturb(performing: Any, lines: Lines = lines) -> str:
            with lines.armed():
                return str(await performing)

        try:
            outcomes = await attempts(case, root, number, disturb)
        except TimeoutError:
            raise AssertionError(f"a fault at {lines.met} has no end") from None
        if not lines.met:
            return tally
        await judge(case, number, outcomes, lines.met, tally)
    raise AssertionError("it never ends")


SOAKED = [pytest.mark.soak, pytest.mark.timeout(3600)]
"""Marks operations whose runs are slow: there are hundreds of lines to test."""


@pytest.mark.no_cover
@LEAKS
@pytest.mark.parametrize(
    "operation",
    ["redis", *FILES, *(pytest.param(name, marks=SOAKED) for name in ("postgres", "http", *DEAR))],
)
async def test_no_mistake_at_any_line_repeats_an_effect(
    tmp_path: Path, operation: str, request: pytest.FixtureRequest
) -> None:
    (folder := tmp_path / operation).mkdir()
    async with (CHEAP | DEAR)[operation](request, folder) as case:
        tally = await at_each_line(case, tmp_path / "runs")
    print(operation, tally)
    gc.collect()
    assert tally.took_place, "no fault came after the effect"
    assert tally.retried, "no fault came before the effect"


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


AFTERWARDS: dict[str, tuple[Any, str, BaseException]] = {
    "closing the output": (OutputWriter, "close", KeyError("stdout")),
    "redaction": (runner, "redacted", RecursionError()),
    "encoding the result": (Run, "ended", TypeError("Integer exceeds 64-bit range")),
    "a full disk": (Run, "ended", OSError(errno.ENOSPC, "No space left on device")),
}


@pytest.mark.parametrize("fault", AFTERWARDS)
async def test_no_fault_of_the_runner_repeats_an_effect(
    tmp_path: Path, fault: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, error = AFTERWARDS[fault]
    async with of_redis(request, tmp_path) as case:
        with monkeypatch.context() as broken:
            broken.setattr(where, name, raising(error))
            (outcome,) = await attempts(case, tmp_path / "runs", 1, lambda performing: performing)
        assert await case.count(1) == 1
    if fault == "a full disk":
        assert outcome.reason == "Completed"
    else:
        assert (outcome.reason, outcome.retryable) == ("InternalError", False)
        assert "; " in outcome.message, "what may have taken place is told"
