"""Tests a coordinator that uses only `RemitClient`: it carries out a plan of thirty tasks while failures occur.

Four sources are fetched, stored, summed up and recorded in two databases. One source answers 503 at first, one sum
fails at first, and publishing the result is denied. Halfway the coordinator is killed, then the API server and the
operator are restarted; the coordinator starts again from the beginning of its plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from aiohttp import web

from remit.api.executiontask import ExecutionTask
from remit.api.phases import Phase
from remit.client import Access, RemitClient
from remit.kube.client import SECRETS
from servers import postgres, valkey
from webserver import answering

from .conftest import PATIENCE, World

SOURCES = range(4)
ADD_UP = "import sys\nprint(sum(int(line) for line in sys.stdin))\n"
ADD_UP_IN_THE_END = "import os, sys\nos.environ['REMIT_ATTEMPT'] == '1' and sys.exit('not yet')\n" + ADD_UP
HELD_UP = "test $REMIT_ATTEMPT = 1 && sleep 1000; echo through"
AGAIN = {"maxRetries": 3, "backoff": {"initialSeconds": 0.1, "jitter": 0}, "onInterruption": "Retry"}

Ended = Mapping[str, ExecutionTask]
Spec = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One task of a plan. Its spec may depend on the results of the steps that it needs."""

    name: str
    spec: Callable[[Ended], Spec]
    needs: tuple[str, ...] = ()
    when_denied: Step | None = None


async def carry_out(plan: list[Step], client: RemitClient) -> dict[str, ExecutionTask]:
    """Runs the plan as a coordinator does. Each step starts as soon as all steps that it needs have succeeded; any
    other failure ends the plan."""
    ended: dict[str, ExecutionTask] = {}
    over = {step.name: asyncio.Event() for step in plan}

    async def perform(step: Step) -> ExecutionTask:
        task = await client.submit({"metadata": {"name": step.name}, "spec": step.spec(ended)})
        return await client.wait(task, timeout=PATIENCE * 4)

    async def take(step: Step) -> None:
        for name in step.needs:
            await over[name].wait()
        task = ended[step.name] = await perform(step)
        if task.status.phase is Phase.DENIED and step.when_denied is not None:
            task = ended[step.when_denied.name] = await perform(step.when_denied)
        if task.status.phase is not Phase.SUCCEEDED:
            raise RuntimeError(f"{task.metadata.name}: {task.status.phase}, {task.status.message}")
        over[step.name].set()

    async with asyncio.TaskGroup() as group:
        for step in plan:
            group.create_task(take(step))
    return ended


def said(task: ExecutionTask) -> str:
    assert task.status.output is not None
    return task.status.output.stdout_tail


@dataclass
class Source:
    """An HTTP server with four lists of numbers, one of which is unavailable at first."""

    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def numbers(index: int) -> list[int]:
        return [index * 100 + step for step in range(50)]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked[f"{request.method} {request.path}"] += 1
        index = int(request.path.rpartition("/")[2])
        if index == 3 and self.asked[f"GET {request.path}"] == 1:
            return web.Response(status=503)
        return web.Response(text="".join(f"{number}\n" for number in self.numbers(index)))


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source()
    async with answering(source.answer) as source.port:
        yield source


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Provides the URLs of a PostgreSQL and a Valkey server."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for name, make in (("db", postgres), ("cache", valkey)):
            server, urls[name] = make(tmp_path_factory.mktemp(name))
            server.start()
            stack.callback(server.stop)
        yield urls


def the_plan(folder: Path, port: int) -> list[Step]:
    """Returns thirty tasks, and one more for the case that publishing is denied."""
    db, cache = {"name": "db", "key": "url"}, {"name": "cache", "key": "url"}

    def http(method: str, path: str) -> Spec:
        return {"http": {"method": method, "url": f"http://127.0.0.1:{port}/{path}"}, "retry": AGAIN}

    def file(operation: str, path: str, **rest: Any) -> Spec:
        return {"file": {"operation": operation, "path": f"{folder}/{path}", **rest}}

    def sql(text: str, *parameters: str) -> Spec:
        return {"postgres": {"connection": db, "statements": [{"sql": text, "parameters": list(parameters)}]}}

    def total(ended: Ended) -> str:
        (row,) = json.loads(said(ended["total"]))["rows"]
        return str(row["total"])

    def of_source(index: int) -> list[Step]:
        fetch, keep, digest, add = f"fetch-{index}", f"keep-{index}", f"digest-{index}", f"sum-{index}"
        script = ADD_UP_IN_THE_END if index == 2 else ADD_UP
        booking = "INSERT INTO bookings VALUES ($1::int, $2::int)"
        return [
            Step(fetch, lambda _: http("GET", f"numbers/{index}"), ("folder",)),
            Step(keep, lambda ended: file("create", f"sources/{index}.txt", content=said(ended[fetch])), (fetch,)),
            Step(digest, lambda _: file("checksum", f"sources/{index}.txt"), (keep,)),
            Step(
                add,
                lambda ended: {
                    "script": {"interpreter": "python3", "source": script},
                    "stdin": said(ended[fetch]),
                    "retry": AGAIN,
                },
                (fetch,),
            ),
            Step(f"book-{index}", lambda ended: sql(booking, str(index), said(ended[add]).strip()), ("table", add)),
            Step(
                f"count-{index}",
                lambda ended: {
                    "redis": {"connection": cache, "commands": [["INCRBY", "total", said(ended[add]).strip()]]}
                },
                ("gate", add),
            ),
        ]

    halfway = tuple(f"{part}-{index}" for part in ("digest", "sum") for index in SOURCES)
    booked = tuple(f"{part}-{index}" for part in ("book", "count") for index in SOURCES)
    report = Step("report", lambda ended: file("create", "report", content=f"total {total(ended)}\n"))
    return [
        Step("folder", lambda _: file("mkdir", "sources")),
        *(step for index in SOURCES for step in of_source(index)),
        Step("gate", lambda _: {"command": {"argv": ["sh", "-c", HELD_UP]}, "retry": AGAIN}, halfway),
        Step("table", lambda _: sql("CREATE TABLE bookings (source int, amount int)"), ("gate",)),
        Step("total", lambda _: sql("SELECT sum(amount)::int AS total FROM bookings"), booked),
        Step("publish", lambda _: http("PUT", "total/0"), ("total",), when_denied=report),
        Step("say", lambda ended: {"command": {"argv": ["echo", "total", total(ended)]}}, ("publish",)),
    ]


async def allow(world: World, folder: Path, port: int, databases: dict[str, str]) -> None:
    """Creates the policy, and the Secrets with the connections."""
    for name, url in databases.items():
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url}}
        await world.kube.create(SECRETS, "default", body)
    await world.policy(
        "sh",
        "echo",
        scripts={"interpreters": ["python3"], "patterns": [r"(?s)import (os, )?sys\n.*"]},
        files={"allow": [{"paths": [f"{folder}/**"], "operations": ["mkdir", "create", "checksum"]}]},
        http={"allow": [{"hosts": ["127.0.0.1"], "ports": [port], "addresses": ["127.0.0.0/8"]}]},
        databases={
            "postgres": {"secrets": ["db"], "statements": ["create", "insert", "select"]},
            "redis": {"secrets": ["cache"], "commands": ["INCRBY"]},
        },
    )


async def test_a_plan_is_carried_out_whatever_is_restarted(
    world: World, tmp_path: Path, source: Source, databases: dict[str, str]
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    plan = the_plan(folder, source.port)
    assert len(plan) == 30
    await allow(world, folder, source.port, databases)
    access = await Access.load(world.control_plane.kubeconfig)
    async with RemitClient(access, name="coordinator") as onlooker:
        async with world.operator():
            async with RemitClient(access, name="coordinator") as client:
                first = asyncio.ensure_future(carry_out(plan, client))
                await asyncio.wait_for(_runs(onlooker, "sum-0"), PATIENCE)
                await world.restart_api_server()
                await asyncio.wait_for(_runs(onlooker, "gate"), PATIENCE)
                assert not first.done()
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            await world.restart_api_server()
        async with world.operator(), RemitClient(access, name="coordinator") as client:
            ended = await carry_out(plan, client)
        there = {task.metadata.name: task for task in await onlooker.list()}

    # Every task has the planned outcome, and no other task was ever created.
    assert {name for name, task in ended.items() if task.status.phase is not Phase.SUCCEEDED} == {"publish"}
    assert ended["publish"].status.phase is Phase.DENIED
    assert there.keys() == ended.keys() == {step.name for step in plan} | {"report"}
    assert {name: task.metadata.uid for name, task in there.items()} == {
        name: task.metadata.uid for name, task in ended.items()
    }

    # The state is correct.
    for index in SOURCES:
        kept = (folder / f"sources/{index}.txt").read_text()
        assert kept.split() == [str(number) for number in source.numbers(index)]
        assert said(ended[f"digest-{index}"]).split()[0] == hashlib.sha256(kept.encode()).hexdigest()
    amounts = {index: sum(source.numbers(index)) for index in SOURCES}
    with psycopg.connect(databases["db"]) as connection:
        assert sorted(connection.execute("SELECT source, amount FROM bookings").fetchall()) == sorted(amounts.items())
    with contextlib.closing(redis.Redis.from_url(databases["cache"])) as cache:
        assert cache.get("total") == str(sum(amounts.values())).encode()
    assert (folder / "report").read_text() == said(ended["say"]) == f"total {sum(amounts.values())}\n"

    # Nothing ran twice except for the three tasks that were to be retried, according to the tasks, the audit trail and
    # the source.
    tried = {name: [attempt.reason for attempt in task.status.attempts] for name, task in ended.items()}
    again = {name: reasons for name, reasons in tried.items() if len(reasons) != 1}
    assert again == {
        "fetch-3": ["UnexpectedStatus", "Completed"],
        "sum-2": ["ExitCode", "Completed"],
        "gate": ["Interrupted", "Completed"],
        "publish": [],
    }
    trail = [json.loads(line) for line in (world.settings.state_dir / "audit" / "audit.jsonl").read_text().splitlines()]
    executed = Counter(record["task"] for record in trail if record.get("kind") == "execution")
    assert executed == {name: len(reasons) for name, reasons in tried.items() if reasons}
    assert source.asked == {f"GET /numbers/{index}": 2 if index == 3 else 1 for index in SOURCES}


async def _runs(client: RemitClient, name: str) -> None:
    """Waits until the task `name` exists and has started."""
    async for change in client.watch():
        if change.task.metadata.name == name and change.task.status.attempts:
            return
