"""Tests a Docker engine that accepts connections and answers nothing: no attempt ends while its container may be
running."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import docker as docker_sdk
import pytest

from dockers import LEAKING, Heard, OwnEngine, docker, during, sdk_leaves_sockets  # noqa: F401
from remit.api.executiontask import ExecutionTask
from remit.backends import breaker
from remit.backends.base import AttemptRequest, Command, Handle
from remit.backends.docker import container
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import ANSWER_SECONDS, MOST_AT_ONCE, Engine
from remit.backends.failure import OperationFailed
from remit.backends.outcome import ExitReason
from remit.errors import OutcomeUnknown, RemitError
from remit.operations.base import OperationRequest
from remit.operations.container.executor import ContainerExecutor
from remit.policy.grant import Grant
from remit.policy.request import request_for
from remit.sandbox import Confinement, Limits, Network

pytestmark = pytest.mark.timeout(180)
PATIENCE = 60


@pytest.fixture
async def engine(own: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """Provides a client that gives up after two unanswered calls and then pauses for a second. `hang` sets how long a
    call waits."""
    monkeypatch.setattr(breaker, "FAILURES", 2)
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 1.0)
    engine = Engine(own.host)
    yield engine
    go_on(own, engine)
    await engine.close()
    assert docker("ps", "-aq", host=own.host).stdout == b"", "containers were left"


async def hang(own: OwnEngine, engine: Engine) -> None:
    """Stops the engine. From now on each call waits for a second only. Before, calls may take longer, as on a busy
    machine; calls in progress are awaited first."""
    for _ in range(MOST_AT_ONCE):
        await engine._slots.acquire()
    hang_at_once(own, engine)
    for _ in range(MOST_AT_ONCE):
        engine._slots.release()


def hang_at_once(own: OwnEngine, engine: Engine) -> None:
    own.hang()
    _wait_for_answers(engine, 1)


def go_on(own: OwnEngine, engine: Engine) -> None:
    _wait_for_answers(engine, ANSWER_SECONDS)
    own.go_on()


def _wait_for_answers(engine: Engine, seconds: int) -> None:
    engine._answer_seconds = seconds
    if engine._client is not None:
        engine._client.timeout = seconds


def asking(image: str, script: str, seconds: float = 60, network: Network = "none") -> AttemptRequest:
    command = Command(("sh", "-c", script), "", {"REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns"})
    confinement = Confinement(Limits(), network=network, require=frozenset())
    return AttemptRequest(f"{uuid.uuid4()}-1", command, confinement, seconds, grace_seconds=0.1, image=image)


async def until_given_up(engine: Engine) -> None:
    """Waits until enough calls were unanswered that the circuit is open."""
    async with asyncio.timeout(PATIENCE):
        while not engine.breaker.open():
            await asyncio.sleep(0.05)


async def until_dead(process: int) -> None:
    """Waits until the process of that descriptor has ended."""
    ended, _, _ = await asyncio.to_thread(select.select, [process], [], [], PATIENCE)
    assert ended


@LEAKING
async def test_an_end_during_an_outage_is_reported_afterwards(own: OwnEngine, engine: Engine, own_image: str) -> None:
    heard = Heard()
    request = asking(own_image, "trap 'echo done; exit 5' USR1; echo begun; while true; do sleep 0.1; done")
    doing = asyncio.create_task(DockerBackend(engine).run(request, heard, cancel=asyncio.Event()))
    await heard.begun(doing)
    inspected = docker("inspect", "--format", "{{.State.Pid}}", f"remit-{request.id}", host=own.host)
    process = os.pidfd_open(int(inspected.stdout))
    try:
        await hang(own, engine)
        signal.pidfd_send_signal(process, signal.SIGUSR1)
        await during(doing, until_dead(process))
    finally:
        os.close(process)
    await during(doing, until_given_up(engine))
    assert not doing.done()
    go_on(own, engine)
    outcome = await asyncio.wait_for(doing, PATIENCE)
    assert (outcome.reason, outcome.exit_code) == (ExitReason.EXIT_CODE, 5)
    assert (heard.out, heard.err) == (b"begun\ndone\n", b"")


@LEAKING
@pytest.mark.parametrize(("network", "how"), [("none", "time is over"), ("restricted", "cancelled")])
async def test_what_cannot_be_ended_has_not_ended(
    own: OwnEngine, engine: Engine, own_image: str, network: Network, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, unheard, cancel = asyncio.Event(), asyncio.Event(), asyncio.Event()
    until_over, send = container.Container.until_over, container.Container.signal

    async def hanging(*arguments: Any, **options: Any) -> container.Ended:
        """The container has been started, and its time has not begun."""
        await hang(own, engine)
        hung.set()
        return await until_over(*arguments, **options)

    async def sending(carried: container.Container, name: str) -> bool:
        if not (heard := await send(carried, name)) and name == "SIGKILL":
            unheard.set()
        return heard

    patient = container._KILL_SECONDS
    monkeypatch.setattr(container, "_KILL_SECONDS", 0.1)
    monkeypatch.setattr(container.Container, "until_over", hanging)
    monkeypatch.setattr(container.Container, "signal", sending)
    seconds = 2 if how == "time is over" else 600
    request = asking(own_image, "while true; do sleep 1; done", seconds, network)
    doing = asyncio.create_task(DockerBackend(engine).run(request, Heard(), cancel=cancel))
    await during(doing, hung.wait())
    if how == "cancelled":
        cancel.set()
    await during(doing, unheard.wait())
    await during(doing, until_given_up(engine))
    assert not doing.done()
    monkeypatch.setattr(container, "_KILL_SECONDS", patient)
    go_on(own, engine)
    outcome = await asyncio.wait_for(doing, PATIENCE)
    assert outcome.reason is (ExitReason.CANCELLED if how == "cancelled" else ExitReason.TIMED_OUT)


@LEAKING
@pytest.mark.parametrize(
    ("network", "time", "error"),
    [("none", 1, OutcomeUnknown), ("restricted", 1, OperationFailed), ("restricted", 2, OutcomeUnknown)],
    ids=["attempt", "holder", "attempt after it"],
)
async def test_what_may_have_been_started_is_removed_first(
    own: OwnEngine,
    engine: Engine,
    own_image: str,
    network: Network,
    time: int,
    error: type[RemitError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine may still start the container when it continues. Another attempt beside or after it would be a second
    run."""
    start, calls = docker_sdk.APIClient.start, itertools.count(1)

    def hanging(*arguments: Any) -> Any:
        if next(calls) == time:
            hang_at_once(own, engine)
        return start(*arguments)

    monkeypatch.setattr(docker_sdk.APIClient, "start", hanging)
    handles: list[Handle] = []
    request = asking(own_image, "echo begun; sleep 600", network=network)
    running: Any = DockerBackend(engine).run(request, Heard(), cancel=asyncio.Event(), on_started=handles.append)
    doing = asyncio.create_task(running)
    await during(doing, until_given_up(engine))
    assert [handle.container for handle in handles] == [f"remit-{request.id}"]
    assert not doing.done()
    go_on(own, engine)
    with pytest.raises(error, match="did not answer") as caught:
        await asyncio.wait_for(doing, PATIENCE)
    assert caught.value.retryable is (error is OperationFailed)


@LEAKING
async def test_what_was_left_is_not_called_dead(own: OwnEngine, engine: Engine, own_image: str) -> None:
    """An operator that finds the container, and may not adopt it, gets an error that it cannot be ended now."""
    heard, request = Heard(), asking(own_image, "echo begun; sleep 600", network="restricted")
    first = asyncio.create_task(DockerBackend(engine).run(request, heard, cancel=asyncio.Event()))
    await heard.begun(first)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    left = Handle(0, 0, "", container=f"remit-{request.id}")
    await hang(own, engine)
    with pytest.raises(OperationFailed) as caught:
        await DockerBackend(engine).recover(left)
    assert caught.value.retryable
    go_on(own, engine)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await DockerBackend(engine).recover(left)
                break
            except OperationFailed:
                await asyncio.sleep(0.1)


@LEAKING
async def test_a_container_operation_says_what_may_have_come_of_it(
    own: OwnEngine, engine: Engine, own_image: str
) -> None:
    spec = {"container": {"action": "run", "name": "kept", "image": own_image, "argv": ["sleep", "600"]}}
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "ns"}, "spec": spec})
    grant = Grant(request_for(task, None), (), ())
    work, executor = OperationRequest("u-1", "ns", "t", grant, timeout_seconds=60), ContainerExecutor(engine)
    await engine.call(lambda client: client.ping())
    await hang(own, engine)
    with pytest.raises(OperationFailed, match="container kept may be there all the same") as caught:
        await executor.execute(work, Heard())
    assert (caught.value.reason, caught.value.retryable) == ("EngineTimeout", True)
    go_on(own, engine)
    async with asyncio.timeout(PATIENCE):
        while True:  # a retry adopts the container and starts nothing twice
            try:
                await executor.execute(replace(work, id="u-2"), Heard())
                break
            except OperationFailed as error:
                assert error.retryable, error
                await asyncio.sleep(0.1)
    assert docker("ps", "--format", "{{.Names}}", host=own.host).stdout == b"kept\n"
    docker("rm", "-f", "kept", host=own.host)
